"""A tester for the Livepeer AI network: one job per orchestrator, pipeline and model, judged and posted."""

__version__ = "0.2.0"
