"""When jobs run, and how many at once."""
