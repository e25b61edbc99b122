"""Measure what `make bench` reports: ratios within one run, so that the machine matters little."""
