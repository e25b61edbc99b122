"""What to send for each pipeline, and how to check the answer."""
