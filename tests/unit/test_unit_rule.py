"""Everything that people read writes durations by one rule, which is in domain/units.py."""

from __future__ import annotations

import re
from pathlib import Path

import jobtester

_OWN_SECONDS = re.compile(r"""\.\d[fg]\}\s?s\b|\|\s*format\([^)]*\)\s*\}\}\s?s\b""")


def test_no_page_or_command_formats_seconds_itself() -> None:
    """`4.05s`, `610ms` and `1m30s` come from format_duration, so no two places write a duration in two ways."""
    root = Path(jobtester.__file__).parent
    files = [
        path for folder in ("web", "cli") for path in (root / folder).rglob("*") if path.suffix in (".py", ".html")
    ]
    assert len(files) > 30
    assert [path.name for path in files if _OWN_SECONDS.search(path.read_text("utf-8"))] == []
    assert _OWN_SECONDS.search('f"{duration:.3f} s"'), "the test can fail"
