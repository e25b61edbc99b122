"""Checks: pure functions that say what is wrong with an answer, each in a module of its own."""
