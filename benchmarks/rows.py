"""Rows: what a benchmark found, as a table on the terminal and as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Row:
    """One figure. `bar` is what is to be reached, in words; `met` None where there is no bar."""

    name: str
    value: float
    unit: str
    bar: str = ""
    met: bool | None = None


def row(name: str, value: float, unit: str = "", *, least: float | None = None, most: float | None = None) -> Row:
    """Make a row with a bar at `least` or `most`."""
    if least is not None:
        return Row(name, round(value, 4), unit, f"≥ {least:g}", value >= least)
    if most is not None:
        return Row(name, round(value, 4), unit, f"≤ {most:g}", value <= most)
    return Row(name, round(value, 4), unit)


def show(rows: list[Row], console: Console) -> None:
    """Print rows as a table."""
    table = Table(box=None, header_style="bold")
    for title, justify in (("what", "left"), ("value", "right"), ("unit", "left"), ("bar", "right"), ("met", "left")):
        table.add_column(title, justify="right" if justify == "right" else "left")
    for one in rows:
        met: Literal["", "yes", "no"] = "" if one.met is None else "yes" if one.met else "no"
        table.add_row(one.name, f"{one.value:,.3f}", one.unit, one.bar, met)
    console.print(table)


def write(rows: list[Row], path: Path) -> None:
    """Keep rows as JSON."""
    path.write_text(json.dumps({"rows": [asdict(one) for one in rows]}, indent=1, ensure_ascii=False) + "\n")
