"""What orchestrators serve themselves: runners at the service URI, with discovery, sessions, payment and a signer."""
