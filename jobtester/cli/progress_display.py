"""Show the progress of a tick: a bar and a line per gateway on a terminal, one line per result elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from jobtester.domain.jobs import Job
from jobtester.domain.orchestrators import shorten_address
from jobtester.domain.plan import Plan, Skip
from jobtester.domain.reasons import Outcome
from jobtester.domain.results import Result
from jobtester.domain.units import format_duration

_MAX_SHOWN_JOBS = 3  # per gateway, so that one takes one line


class ProgressDisplay:
    """Observes a tick and shows it on a console; `results` are for the table at the end.

    `is_stopping` returns True once the tester was asked to stop.
    """

    def __init__(self, console: Console, is_stopping: Callable[[], bool]) -> None:
        self.results: list[Result] = []
        self._is_stopping = is_stopping
        self._console = console
        self._is_plain = not console.is_terminal
        self._gateways: dict[str, dict[str, Job]] = {}
        self._counts = dict.fromkeys(Outcome, 0)
        self._bar = Progress(
            TextColumn("[bold]tick"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[counts]}"),
            TimeElapsedColumn(),
            TextColumn("[dim]left"),
            TimeRemainingColumn(),
            console=console,
        )
        self._task = self._bar.add_task("tick", total=None, counts="")
        self._live: Live | None = None

    def __enter__(self) -> ProgressDisplay:
        if not self._is_plain:
            self._live = Live(console=self._console, refresh_per_second=8, transient=True, get_renderable=self._render)
            self._live.start()
            # rich hides the cursor, and a second Ctrl-C ends the process before anything could show it again.
            self._console.show_cursor(True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def on_planned(self, plan: Plan) -> None:
        """Set the length of the bar."""
        self._bar.update(self._task, total=len(plan.jobs))
        if self._is_plain:
            self._console.print(f"tick {plan.tick}: {len(plan.jobs)} jobs, {len(plan.skipped)} skipped", markup=False)

    def on_sent(self, job: Job, gateway: str) -> None:
        """Show the job at its gateway."""
        self._gateways.setdefault(gateway, {})[job.id] = job

    def on_deferred(self, job: Job, gateway: str, _reason: str) -> None:
        """Remove the job from its gateway."""
        self._gateways.get(gateway, {}).pop(job.id, None)

    def on_recorded(self, result: Result) -> None:
        """Count and keep the result."""
        self.results.append(result)
        self._counts[result.verdict.outcome] += 1
        self._gateways.get(result.gateway, {}).pop(result.job.id, None)
        counts = "  ".join(f"{count} {outcome.value}" for outcome, count in self._counts.items())
        self._bar.update(self._task, advance=1, counts=counts)
        if self._is_plain:
            job, verdict = result.job, result.verdict
            reason = "" if verdict.outcome is Outcome.PASSED else f" ({verdict.code})"
            self._console.print(
                f"[{len(self.results)}] {shorten_address(job.orchestrator.address)} {job.pipeline} {job.model}: "
                f"{verdict.outcome.value}{reason} in {format_duration(result.round_trip_s)}, "
                f"{result.attribution.kind.value}",
                markup=False,
            )

    def on_skipped(self, _skip: Skip) -> None:
        """Advance the bar by the job, which will not be sent."""
        self._bar.update(self._task, advance=1)

    def _render(self) -> Group:
        lines = []
        for gateway, jobs in sorted(self._gateways.items()):
            names = [f"{shorten_address(job.orchestrator.address)} {job.pipeline} {job.model}" for job in jobs.values()]
            more = f"  and {len(names) - _MAX_SHOWN_JOBS} more" if len(names) > _MAX_SHOWN_JOBS else ""
            lines.append(
                Text(
                    f"  {gateway}: " + ("  ·  ".join(names[:_MAX_SHOWN_JOBS]) + more if names else "waiting"),
                    style="dim",
                    overflow="ellipsis",
                    no_wrap=True,
                )
            )
        if self._is_stopping():
            lines.append(Text("  stopping: waiting for jobs in flight; Ctrl-C again aborts", style="yellow"))
        return Group(self._bar, *lines)
