"""The Leaderboard: its routes, rows, scores and failures, after the Leaderboard Serverless API."""
