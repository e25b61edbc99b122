"""A wall clock that a test sets, for a process that is run under libfaketime; durations stay real."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest


@dataclass(frozen=True, slots=True)
class WallClock:
    """Set by a file that the library reads at every look at the clock; `environment` makes a process use it."""

    file: Path
    library: Path

    @classmethod
    def in_folder(cls, folder: Path) -> WallClock:
        """Make one; skips the test where libfaketime is not installed."""
        library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
        if library is None:
            pytest.skip("libfaketime is not installed: apt-get install faketime")
        return cls(folder / "wall_clock", library)

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs in its environment."""
        return {
            "LD_PRELOAD": str(self.library),
            "FAKETIME_TIMESTAMP_FILE": str(self.file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }

    def set(self, to: str) -> datetime:
        """Set it to an instant, from which it goes on in real time; the file is replaced as a whole."""
        instant = datetime.fromisoformat(to)
        new = self.file.with_suffix(".new")
        new.write_text(f"{instant.timestamp() - time.time():+.3f}\n")
        new.replace(self.file)
        return instant
