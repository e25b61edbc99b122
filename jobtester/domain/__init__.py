"""Values and rules of testing, without any I/O."""
