"""Live progress of a tick: a bar per tick and a line per gateway on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from jobtester.cli.tables import short
from jobtester.domain.jobs import Job
from jobtester.domain.plan import Plan, Skip
from jobtester.domain.reasons import Outcome
from jobtester.domain.results import Result


class ProgressDisplay:
    """Watches a tick and shows it; keeps the results for the table at the end."""

    def __init__(self, console: Console) -> None:
        """Show on this console."""
        self.results: list[Result] = []
        self.stopping: Callable[[], bool] = lambda: False
        self._console = console
        self._plain = not console.is_terminal
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
        self._live = Live(console=console, refresh_per_second=8, transient=True, get_renderable=self._picture)

    def __enter__(self) -> ProgressDisplay:
        if not self._plain:
            self._live.start()
            self._console.show_cursor(True)  # a second Ctrl-C ends the process at once, with nobody left to show it
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._plain:
            self._live.stop()

    def on_planned(self, plan: Plan) -> None:
        """Show how much there is to do."""
        self._bar.update(self._task, total=len(plan.jobs))
        if self._plain:
            self._console.print(f"tick {plan.tick}: {len(plan.jobs)} jobs, {len(plan.skipped)} skipped", markup=False)

    def on_sent(self, job: Job, gateway: str) -> None:
        """Show what a gateway works on."""
        self._gateways.setdefault(gateway, {})[job.id] = job

    def on_deferred(self, job: Job, gateway: str, reason: str) -> None:
        """Take a job off its gateway for now."""
        self._gateways.get(gateway, {}).pop(job.id, None)

    def on_recorded(self, result: Result) -> None:
        """Count a result."""
        self.results.append(result)
        self._counts[result.verdict.outcome] += 1
        self._gateways.get(result.gateway, {}).pop(result.job.id, None)
        counts = "  ".join(f"{count} {outcome.value}" for outcome, count in self._counts.items())
        self._bar.update(self._task, advance=1, counts=counts)
        if self._plain:
            job, verdict = result.job, result.verdict
            reason = "" if verdict.outcome is Outcome.PASSED else f" ({verdict.code})"
            self._console.print(
                f"[{len(self.results)}] {short(job.orchestrator.address)} {job.pipeline} {job.model}: "
                f"{verdict.outcome.value}{reason} in {result.round_trip_s:.3f} s, {result.attribution.kind.value}",
                markup=False,
            )

    def on_skipped(self, skip: Skip) -> None:
        """Count a job that will not be sent as done."""
        self._bar.update(self._task, advance=1)

    def _picture(self) -> Group:
        lines = []
        for gateway, jobs in sorted(self._gateways.items()):
            shown = [f"{short(job.orchestrator.address)} {job.pipeline} {job.model}" for job in jobs.values()]
            more = f"  and {len(shown) - 3} more" if len(shown) > 3 else ""
            lines.append(
                Text(
                    f"  {gateway}: " + ("  ·  ".join(shown[:3]) + more if shown else "waiting"),
                    style="dim",
                    overflow="ellipsis",
                    no_wrap=True,
                )
            )
        if self.stopping():
            lines.append(Text("  stopping: jobs under way may end; Ctrl-C again aborts", style="yellow"))
        return Group(self._bar, *lines)
