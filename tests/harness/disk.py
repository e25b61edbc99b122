"""A disk that is full."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path


def fill_disk(disk: Path) -> Path:
    """Take up all room that is left; return the file that does."""
    filler = disk / "filler"
    subprocess.run(["dd", "if=/dev/zero", f"of={filler}", "bs=4k"], capture_output=True, check=False)
    assert shutil.disk_usage(disk).free == 0
    return filler
