"""What all tests share."""

from __future__ import annotations

import signal
import sys

from hypothesis import HealthCheck, settings

from jobtester import logs

# A shell that runs the tests in the background has their processes ignore Ctrl-C, which some tests send.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


logs.set_up("error", "json", sys.stderr)

# The same examples on each run, however slow the machine; `--hypothesis-profile=default` looks for new ones.
settings.register_profile("steady", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steady")
