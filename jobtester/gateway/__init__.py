"""Talking to go-livepeer gateways: finding, aiming at and timing orchestrators."""
