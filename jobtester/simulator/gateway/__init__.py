"""The gateway: job port, CLI port, selection, metrics and events, after go-livepeer."""
