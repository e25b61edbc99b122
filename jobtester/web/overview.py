"""Arrange what is known of all orchestrators into the rows and columns of the overview, the worst first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from jobtester.domain.orchestrators import CapabilityKind
from jobtester.store.queries import CapabilityRow
from jobtester.store.skips import SkipRow

# Apps have free names, so all of a kind share a column; each batch pipeline has its own.
_SHARED_COLUMNS = {CapabilityKind.BYOC.value: "BYOC", CapabilityKind.LIVE_RUNNER.value: "live runner"}
STATES = {
    "failing": "a newest result failed",
    "unknown": "no newest result failed, and at least one is unscored",
    "untested": "no result",
    "passing": "every newest result passed",
}


class Query(NamedTuple):
    """What the overview is limited to: words that a capability must contain, and its outcome or `skipped`."""

    text: str = ""
    outcome: str = ""

    def accepts(self, outcome: str, *texts: str) -> bool:
        """Return True if an outcome and the texts of a capability match."""
        if self.outcome and outcome != self.outcome:
            return False
        together = " ".join((*texts, outcome)).lower()
        return all(word in together for word in self.text.lower().split())


@dataclass(slots=True)
class OverviewRow:
    """An orchestrator at one service URI: its capabilities and skips by column."""

    address: str
    service_uri: str
    cells: dict[str, list[CapabilityRow]] = field(default_factory=dict)
    skips: dict[str, list[SkipRow]] = field(default_factory=dict)

    @property
    def state(self) -> str:
        """Return one of STATES. An orchestrator of which nothing is known does not count as passing."""
        outcomes = {cell.newest.outcome for cells in self.cells.values() for cell in cells}
        if not outcomes:
            return "untested"
        return "failing" if "failed" in outcomes else "passing" if outcomes == {"passed"} else "unknown"

    @property
    def rank(self) -> tuple[int, int, str, str]:
        """Return what sorts the worst first: by state, then by the number of failed capabilities."""
        failed = sum(cell.newest.outcome == "failed" for cells in self.cells.values() for cell in cells)
        return (list(STATES).index(self.state), -failed, self.address, self.service_uri)


@dataclass(frozen=True, slots=True)
class Overview:
    """The matrix: its columns, of which none is empty, its rows, and how many orchestrators are in each state."""

    columns: tuple[str, ...]
    rows: tuple[OverviewRow, ...]
    states: dict[str, int]


def arrange(capabilities: Iterable[CapabilityRow], skips: Iterable[SkipRow], query: Query) -> Overview:
    """Return the matrix of what matches a query."""
    rows: dict[tuple[str, str], OverviewRow] = {}

    def find_row(address: str, service_uri: str) -> OverviewRow:
        return rows.setdefault((address, service_uri), OverviewRow(address, service_uri))

    tested = set()
    for cell in capabilities:
        tested.add((cell.orchestrator, cell.service_uri, cell.pipeline, cell.model, cell.kind))
        texts = (cell.orchestrator, cell.service_uri, cell.pipeline, cell.model, cell.kind, cell.newest.reason)
        if query.accepts(cell.newest.outcome, *texts):
            row = find_row(cell.orchestrator, cell.service_uri)
            row.cells.setdefault(name_column(cell.kind, cell.pipeline), []).append(cell)
    for skip in skips:
        key = (skip.orchestrator, skip.service_uri, skip.pipeline, skip.model, skip.kind)
        if key not in tested and query.accepts("skipped", *key, skip.reason):
            row = find_row(skip.orchestrator, skip.service_uri)
            row.skips.setdefault(name_column(skip.kind, skip.pipeline), []).append(skip)
    ordered = sorted(rows.values(), key=lambda row: row.rank)
    states = {state: sum(row.state == state for row in ordered) for state in STATES}
    return Overview(_list_columns(ordered), tuple(ordered), states)


def name_column(kind: str, pipeline: str) -> str:
    """Return the column of a capability; empty for an orchestrator that is skipped as a whole."""
    return _SHARED_COLUMNS.get(kind, pipeline)


def _list_columns(rows: Sequence[OverviewRow]) -> tuple[str, ...]:
    names = {name for row in rows for name in (*row.cells, *row.skips) if name}
    shared = set(_SHARED_COLUMNS.values())
    return (*sorted(names - shared), *sorted(names & shared))
