"""The rows of the simulated Leaderboard, and a file that keeps them over restarts as a database does."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Row:
    """One stored stat: `stat` as the server shows it, `body` as it arrived, `insert_time` on the server's clock."""

    id: int
    insert_time: float
    stat: dict[str, Any]
    body: bytes


class RowsFile:
    """A file of rows. Once append() has returned, the next load() has the row, even if the process is killed."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> list[Row]:
        """Return every row. An incomplete last line was never stored: remove it."""
        if not self._path.exists():
            return []
        lines = self._path.read_bytes().splitlines(keepends=True)
        if lines and not lines[-1].endswith(b"\n"):
            incomplete = lines.pop()
            os.truncate(self._path, self._path.stat().st_size - len(incomplete))
        entries = map(json.loads, lines)
        return [
            Row(entry["id"], entry["insert_time"], entry["stat"], entry["body"].encode("latin-1")) for entry in entries
        ]

    def append(self, row: Row) -> None:
        """Write one row."""
        line = {"id": row.id, "insert_time": row.insert_time, "stat": row.stat, "body": row.body.decode("latin-1")}
        with self._path.open("ab") as file:
            file.write(json.dumps(line).encode() + b"\n")

    def clear(self) -> None:
        """Delete every row."""
        self._path.unlink(missing_ok=True)
