"""What is kept: results and outbox in one SQLite file."""
