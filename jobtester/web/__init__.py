"""Serve the pages, the API, the webhooks and the health checks of the daemon over HTTP."""
