"""Live video through a simulated gateway: real video from the client to a stand-in container and back."""
