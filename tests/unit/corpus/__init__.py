"""Answers of orchestrators and media files, right and wrong, for the unit tests."""
