"""Rows: what the simulated Leaderboard has stored, and a file that keeps them as a database would."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Row:
    """One stored event: `stat` as the server shows it, `body` as it arrived, `insert_time` on the server's clock."""

    id: int
    insert_time: float
    stat: dict[str, Any]
    body: bytes


class RowsFile:
    """Keeps rows through the death of the process: one that append() has returned for is there at the next load()."""

    def __init__(self, path: Path) -> None:
        """Name the file; it need not exist yet."""
        self._path = path

    def load(self) -> list[Row]:
        """Read every row; a last line that was only begun was never stored, and goes."""
        if not self._path.exists():
            return []
        lines = self._path.read_bytes().splitlines(keepends=True)
        if lines and not lines[-1].endswith(b"\n"):
            torn = lines.pop()
            os.truncate(self._path, self._path.stat().st_size - len(torn))
        return [_row(json.loads(line)) for line in lines]

    def append(self, row: Row) -> None:
        """Keep one row."""
        line = {"id": row.id, "insert_time": row.insert_time, "stat": row.stat, "body": row.body.decode("latin-1")}
        with self._path.open("ab") as file:
            file.write(json.dumps(line).encode() + b"\n")

    def clear(self) -> None:
        """Forget every row."""
        self._path.unlink(missing_ok=True)


def _row(kept: dict[str, Any]) -> Row:
    return Row(kept["id"], kept["insert_time"], kept["stat"], kept["body"].encode("latin-1"))
