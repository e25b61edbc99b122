"""Lines of /metrics for tests that look for one exact series."""

from __future__ import annotations

import re


def without_region(text: str) -> str:
    """Return the text of /metrics without the region, which is on every series and the same on all."""
    return re.sub(r'\{region="[^"]*"\}|,region="[^"]*"|region="[^"]*",', "", text)
