"""The simulated trickle server: channels of numbered segments, by which live media travels."""
