"""The running tester: its parts, built, watched over, and stopped in order."""
