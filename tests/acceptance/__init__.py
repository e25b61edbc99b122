"""Tests of the shipped commands, as people and containers run them."""
