"""The content of a notification about a tick, as values: the report, what changed, and links to the pages."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from jobtester.domain.reasons import Outcome
from jobtester.domain.tick_changes import CapabilityChange, TickChanges
from jobtester.domain.tick_report import TickReport
from jobtester.domain.units import format_duration


@dataclass(frozen=True, slots=True)
class Notification:
    """A finished tick; `public_url` is where people reach the pages, None if nobody said so."""

    report: TickReport
    changes: TickChanges = TickChanges()  # noqa: RUF009 - an immutable value
    region: str = ""
    public_url: str | None = None

    @property
    def is_change(self) -> bool:
        """Return True if there is news."""
        return self.changes.is_change(self.report.state)

    @property
    def title(self) -> str:
        """Return the news in a few words, without a name from outside."""
        counts = ((len(self.changes.failing), "newly failing"), (len(self.changes.recovered), "recovered"))
        news = ", ".join(f"{count} {name}" for count, name in counts if count)
        if self.report.state != "finished":
            news = f"tick {self.report.state}" + (f", {news}" if news else "")
        return f"{self.region}: {news or 'no change'}" if self.region else news or "no change"

    @property
    def summary(self) -> str:
        """Return how the tick went in a sentence, without a name from outside."""
        report = self.report
        duration_s = (report.finished_at or report.started_at) - report.started_at
        outcomes = ", ".join(f"{report.outcomes[outcome]} {outcome.value}" for outcome in Outcome)
        still = f", {self.changes.still_failing} still failing" if self.changes.still_failing else ""
        return (
            f"Tick {report.state} in {format_duration(duration_s)}: {report.settled} of {report.planned} jobs, "
            f"{outcomes}{still}"
        )

    @property
    def tick_url(self) -> str:
        """Return the address of the tick's page; empty without a public URL."""
        return self._link("t", self.report.tick)

    def result_url(self, change: CapabilityChange) -> str:
        """Return the address of a result's page; empty without a public URL."""
        return self._link("r", change.result)

    def orchestrator_url(self, change: CapabilityChange) -> str:
        """Return the address of an orchestrator's page; empty without a public URL."""
        return self._link("o", change.key.orchestrator)

    def _link(self, page: str, name: str) -> str:
        return f"{self.public_url}/{page}/{quote(name, safe='')}" if self.public_url else ""
