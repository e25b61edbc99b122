"""Plots: dots and lines as inline SVG, told apart by shape as well as by colour."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from markupsafe import Markup, escape

from jobtester.store.queries import ResultPoint

_LEFT, _TOP, _FOOT = 66, 16, 26
_TRACK, _BAR = 11, 8


@dataclass(frozen=True, slots=True)
class _Bar:
    """One job of a timeline: its row among the parallel ones of its gateway, and where it lies."""

    job: str
    outcome: str
    row: int
    x: float
    wide: float
    title: str

    def drawn(self, top: int) -> str:
        return (
            f'<a href="/r/{escape(self.job)}"><rect class="{escape(self.outcome)}" x="{self.x:.1f}" '
            f'y="{top + self.row * _TRACK}" width="{self.wide:.1f}" height="{_BAR}">{self.title}</rect></a>'
        )


def sparkline(points: Sequence[ResultPoint], width: int = 72, height: int = 18) -> Markup:
    """Draw the last results as bars: the taller the slower; failed ones are crossed, unscored ones hollow."""
    if not points:
        return Markup("")
    slowest = max(point.round_trip_s for point in points) or 1.0
    step = width / max(len(points), 12)
    bars = []
    for index, point in enumerate(points):
        tall = max(3.0, (height - 2) * point.round_trip_s / slowest)
        left, top, wide = index * step + 1, height - tall, step - 2
        bars.append(
            f'<rect class="{escape(point.outcome)}" x="{left:.1f}" y="{top:.1f}" '
            f'width="{wide:.1f}" height="{tall:.1f}"/>'
        )
        if point.outcome == "failed":
            bars.append(f'<path d="M{left:.1f} {top:.1f}l{wide:.1f} {tall:.1f}m0-{tall:.1f}l-{wide:.1f} {tall:.1f}"/>')
    words = ", ".join(f"{point.outcome} {point.round_trip_s:.2f} s" for point in points)
    return Markup(
        f'<svg class="spark" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="last results: {escape(words)}">{"".join(bars)}</svg>'
    )


def latency(points: Sequence[ResultPoint], width: int = 600, height: int = 180) -> Markup:
    """Draw round trips over time: passed as discs, failed as crosses, unscored as rings; each leads to its result."""
    if not points:
        return Markup("")
    first, last = points[0].started_at, points[-1].started_at
    most = _nice(max(point.round_trip_s for point in points))
    bottom = height - _FOOT

    def place(point: ResultPoint) -> tuple[float, float]:
        share = (point.started_at - first) / (last - first) if last > first else 0.5
        return _LEFT + 8 + share * (width - _LEFT - 16), bottom - (bottom - _TOP) * point.round_trip_s / most

    marks = []
    for point in points:
        title = f"<title>{escape(point.outcome)} {point.round_trip_s:.3f} s, {_moment(point.started_at)}</title>"
        marks.append(f'<a href="/r/{escape(point.id)}">{_mark(point.outcome, *place(point), title)}</a>')
    lines = "".join(
        f'<line class="grid" x1="{_LEFT}" x2="{width}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:.3g} s</text>'
        for value, y in ((most, float(_TOP)), (most / 2, (bottom + _TOP) / 2), (0.0, float(bottom)))
    )
    return Markup(
        f'<svg class="plot" viewBox="0 0 {width} {height}" role="group" aria-label="round trips over time">'
        f"{lines}{_span(_moment(first), _moment(last), _LEFT, width, height)}{''.join(marks)}</svg>"
    )


def timeline(jobs: Sequence[tuple[str, str, str, float, float, str]], width: int = 1320) -> Markup:
    """Draw a tick's jobs over time: a block per gateway, a row per parallel track."""
    if not jobs:
        return Markup("")
    first = min(job[3] for job in jobs)
    span = max(job[3] + job[4] for job in jobs) - first or 1.0
    tracks: dict[str, list[float]] = {}
    bars: dict[str, list[_Bar]] = {}
    for job_id, gateway, pipeline, began, took, outcome in jobs:
        ends = tracks.setdefault(gateway, [])
        row = next((index for index, end in enumerate(ends) if end <= began), len(ends))
        ends[row : row + 1] = [began + took]
        x, wide = (began - first) / span * width, max(1.5, took / span * width - 1)
        title = f"<title>{escape(pipeline)}: {escape(outcome)} in {took:.3f} s</title>"
        bars.setdefault(gateway, []).append(_Bar(job_id, outcome, row, x, wide, title))
    drawn, top = [], 0
    for gateway, ends in tracks.items():
        drawn.append(f'<text x="0" y="{top + 12}">{escape(gateway)}</text>')
        drawn += [bar.drawn(top + 20) for bar in bars[gateway]]
        top += 30 + _TRACK * len(ends)
    drawn.append(_span("0 s", f"{span:.3g} s", 0, width, top + 18))
    return Markup(
        f'<svg class="plot wide" viewBox="0 0 {width} {top + 22}" role="group" aria-label="jobs over time">'
        f"{''.join(drawn)}</svg>"
    )


def _mark(outcome: str, x: float, y: float, title: str = "") -> str:
    if outcome == "failed":
        return f'<path class="failed" d="M{x - 4.5:.1f} {y - 4.5:.1f}l9 9m0-9l-9 9">{title}</path>'
    return f'<circle class="{escape(outcome)}" cx="{x:.1f}" cy="{y:.1f}" r="4.5">{title}</circle>'


SHAPES = tuple((one, Markup(_mark(one, 6, 6))) for one in ("passed", "failed", "unscored"))


def _span(first: str, last: str, left: float, right: float, y: float) -> str:
    """Write under a plot where it begins and ends; once if that is the same."""
    texts = ((left, "start", first),) if first == last else ((left, "start", first), (right, "end", last))
    return "".join(f'<text x="{x}" y="{y - 4}" text-anchor="{anchor}">{text}</text>' for x, anchor, text in texts)


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M")


def _nice(value: float) -> float:
    """Round up to 1, 2 or 5 times a power of ten."""
    if value <= 0:
        return 1.0
    power = 10 ** math.floor(math.log10(value))
    return float(next(step * power for step in (1, 2, 5, 10) if step * power >= value))
