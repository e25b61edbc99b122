"""Show what a benchmark measured as a table on the terminal, and write it as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Row:
    """One figure. `bar` is the limit in words, and `met` is None if there is none."""

    name: str
    value: float
    unit: str
    bar: str = ""
    met: bool | None = None

    @classmethod
    def with_bar(
        cls, name: str, value: float, unit: str = "", *, at_least: float | None = None, at_most: float | None = None
    ) -> Self:
        """Return a row, with a lower or an upper limit if one is passed."""
        if at_least is not None:
            return cls(name, round(value, 4), unit, f"≥ {at_least:g}", value >= at_least)
        if at_most is not None:
            return cls(name, round(value, 4), unit, f"≤ {at_most:g}", value <= at_most)
        return cls(name, round(value, 4), unit)


def show(rows: list[Row], console: Console) -> None:
    """Print rows as a table."""
    table = Table(box=None, header_style="bold")
    table.add_column("measurement")
    table.add_column("value", justify="right")
    table.add_column("unit")
    table.add_column("bar", justify="right")
    table.add_column("met")
    for row in rows:
        met = "" if row.met is None else "yes" if row.met else "no"
        table.add_row(row.name, f"{row.value:,.3f}", row.unit, row.bar, met)
    console.print(table)


def write(rows: list[Row], path: Path) -> None:
    """Write rows as JSON."""
    path.write_text(json.dumps({"rows": [asdict(row) for row in rows]}, indent=1, ensure_ascii=False) + "\n")
