"""SQLite storage of results, ticks and the outbox."""
