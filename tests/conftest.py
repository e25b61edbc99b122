"""What all tests share."""

from __future__ import annotations

import sys

from jobtester import logs

logs.set_up("error", "json", sys.stderr)
