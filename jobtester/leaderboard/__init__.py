"""Getting stats into the Leaderboard Serverless API, exactly once."""
