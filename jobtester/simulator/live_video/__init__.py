"""Live video through a simulated gateway: real video from the client to a simulated container and back."""
