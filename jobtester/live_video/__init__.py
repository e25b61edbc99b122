"""Live video through a gateway: the tester gives the input, takes the output, and answers what the gateway asks."""
