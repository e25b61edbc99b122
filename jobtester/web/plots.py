"""Plots: dots and lines as inline SVG, told apart by shape as well as by colour."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup, escape

from jobtester.store.views import Point


def sparkline(points: Sequence[Point], width: int = 96, height: int = 20) -> Markup:
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
        f'<svg class="spark" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="last results: {escape(words)}">{"".join(bars)}</svg>'
    )


def latency(points: Sequence[Point], width: int = 720, height: int = 180) -> Markup:
    """Draw round trips over time: passed as discs, failed as crosses, unscored as rings; each leads to its result."""
    if not points:
        return Markup("")
    first, last = points[0].started_at, points[-1].started_at
    top = _nice(max(point.round_trip_s for point in points))
    left, bottom = 64, height - 22

    def place(point: Point) -> tuple[float, float]:
        share = (point.started_at - first) / (last - first) if last > first else 0.5
        return left + 8 + share * (width - left - 16), bottom - (bottom - 8) * point.round_trip_s / top

    marks = []
    for point in points:
        x, y = place(point)
        title = f"<title>{escape(point.outcome)} {point.round_trip_s:.3f} s</title>"
        if point.outcome == "failed":
            shape = f'<path class="failed" d="M{x - 4:.1f} {y - 4:.1f}l8 8m0-8l-8 8">{title}</path>'
        else:
            shape = f'<circle class="{escape(point.outcome)}" cx="{x:.1f}" cy="{y:.1f}" r="4">{title}</circle>'
        marks.append(f'<a href="/r/{escape(point.id)}">{shape}</a>')
    lines = "".join(
        f'<line class="grid" x1="{left}" x2="{width}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{_seconds(value)}</text>'
        for value, y in ((top, 8.0), (top / 2, (bottom + 8) / 2), (0.0, float(bottom)))
    )
    return Markup(
        f'<svg class="plot" viewBox="0 0 {width} {height}" role="group" aria-label="round trips over time">'
        f"{lines}{''.join(marks)}</svg>"
    )


def timeline(jobs: Sequence[tuple[str, str, str, float, float, str]], width: int = 720) -> Markup:
    """Draw a tick's jobs over time: a block per gateway, a row per parallel track."""
    if not jobs:
        return Markup("")
    first = min(job[3] for job in jobs)
    span = max(job[3] + job[4] for job in jobs) - first or 1.0
    tracks: dict[str, list[float]] = {}
    bars: list[tuple[str, int, str]] = []
    for job_id, gateway, pipeline, began, took, outcome in jobs:
        ends = tracks.setdefault(gateway, [])
        row = next((index for index, end in enumerate(ends) if end <= began), len(ends))
        ends[row : row + 1] = [began + took]
        x, wide = (began - first) / span * width, max(1.5, took / span * width)
        title = f"<title>{escape(pipeline)}: {escape(outcome)} in {took:.3f} s</title>"
        bars.append(
            (gateway, row, f'class="{escape(outcome)}" x="{x:.1f}" width="{wide:.1f}" height="7">{title}</rect>')
        )
        bars[-1] = (gateway, row, f'<a href="/r/{escape(job_id)}"><rect {bars[-1][2]}</a>')
    drawn, top = [], 0
    for gateway, ends in tracks.items():
        drawn.append(f'<text x="0" y="{top + 12}">{escape(gateway)}</text>')
        for of, row, bar in bars:
            if of == gateway:
                drawn.append(bar.replace("<rect ", f'<rect y="{top + 18 + row * 9}" ', 1))
        top += 26 + 9 * len(ends)
    return Markup(
        f'<svg class="plot" viewBox="0 0 {width} {top}" role="group" aria-label="jobs over time">{"".join(drawn)}</svg>'
    )


def _nice(value: float) -> float:
    """Round up to 1, 2 or 5 times a power of ten."""
    if value <= 0:
        return 1.0
    power = 10 ** math.floor(math.log10(value))
    return float(next(step * power for step in (1, 2, 5, 10) if step * power >= value))


def _seconds(value: float) -> str:
    return f"{value:.3g} s"
