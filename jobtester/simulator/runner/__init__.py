"""The runner behind an orchestrator: what models answer to jobs, well or badly."""
