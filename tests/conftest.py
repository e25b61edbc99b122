"""What all tests share."""

from __future__ import annotations

import sys

from hypothesis import HealthCheck, settings

from jobtester import logs

logs.set_up("error", "json", sys.stderr)

# The same examples on each run, however slow the machine; `--hypothesis-profile=default` looks for new ones.
settings.register_profile("steady", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steady")
