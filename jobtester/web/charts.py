"""Draw charts as inline SVG, in which outcomes differ by shape as well as by color."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

from markupsafe import Markup, escape

from jobtester.domain.units import format_duration
from jobtester.store.queries import ResultPoint

_LEFT, _TOP, _BOTTOM = 66, 16, 26  # margins of the latency chart
_TRACK_HEIGHT, _BAR_HEIGHT = 11, 8


# Charts are text made here, not by a library of the browser: pages work without JavaScript and load nothing from
# elsewhere. Whatever comes from outside is escaped where it is put in.
@dataclass(frozen=True, slots=True)
class _Axes:
    """The axes of a chart of durations over time: `first` to `last`, and 0 to `highest`, in seconds."""

    first: float
    last: float
    highest: float
    width: int
    height: int

    def place(self, at: float, duration_s: float) -> tuple[float, float]:
        """Return where a value is drawn; one above the axis is drawn at its end."""
        share = (at - self.first) / (self.last - self.first) if self.last > self.first else 0.5
        bottom = self.height - _BOTTOM
        y = bottom - (bottom - _TOP) * min(1.0, duration_s / self.highest)
        return _LEFT + 8 + share * (self.width - _LEFT - 16), y

    def draw_grid(self) -> str:
        """Draw a line with its duration at the top, in the middle and at the bottom."""
        bottom = self.height - _BOTTOM
        return "".join(
            f'<line class="grid" x1="{_LEFT}" x2="{self.width}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{format_duration(value)}</text>'
            for value, y in (
                (self.highest, float(_TOP)), (self.highest / 2, (bottom + _TOP) / 2), (0.0, float(bottom)),
            )
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Bar:
    """A job of a timeline: its row among its gateway's parallel jobs, and its place."""

    job: str
    outcome: str
    row: int
    x: float
    width: float
    title: str
    is_stop: bool

    def draw(self, top: int) -> str:
        return (
            f'<a href="/r/{escape(self.job)}" {_tab_stop(is_stop=self.is_stop)}>'
            f'<rect class="{escape(self.outcome)}" x="{self.x:.1f}" '
            f'y="{top + self.row * _TRACK_HEIGHT}" width="{self.width:.1f}" height="{_BAR_HEIGHT}">'
            f"{self.title}</rect></a>"
        )


def draw_sparkline(points: Sequence[ResultPoint], width: int = 72, height: int = 18) -> Markup:
    """Draw the last results as bars that are taller for longer round trips, crossed if failed, hollow if unscored."""
    return _draw_sparkline(tuple(points), width, height) if points else Markup("")


# The overview draws the same ones again and again; only what was tested since is new.
@lru_cache(maxsize=4096)
def _draw_sparkline(points: tuple[ResultPoint, ...], width: int, height: int) -> Markup:
    slowest = max(point.round_trip_s for point in points) or 1.0
    step = width / max(len(points), 12)
    bars: dict[str, list[str]] = {}
    for index, point in enumerate(points):
        # At least three units, so that the fastest one can still be seen and its shape told.
        bar_height = max(3.0, (height - 2) * point.round_trip_s / slowest)
        left, top, bar_width = index * step + 1, height - bar_height, step - 2
        path = f"M{left:.3g} {top:.3g}h{bar_width:.3g}v{bar_height:.3g}h-{bar_width:.3g}z"
        bars.setdefault(point.outcome, []).append(path)
        if point.outcome == "failed":
            right, tall = f"{bar_width:.3g}", f"{bar_height:.3g}"
            bars.setdefault("cross", []).append(f"M{left:.3g} {top:.3g}l{right} {tall}m0-{tall}l-{right} {tall}")
    counts = Counter(point.outcome for point in points)
    label = f"last {len(points)}: " + ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
    label += f"; {format_duration(min(point.round_trip_s for point in points))} to {format_duration(slowest)}"
    paths = "".join(f'<path class="{escape(name)}" d="{"".join(parts)}"/>' for name, parts in bars.items())
    return Markup(
        f'<svg class="spark" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">'
        f"<title>{escape(label)}</title>{paths}</svg>"
    )


def draw_latency(points: Sequence[ResultPoint], width: int = 600, height: int = 180) -> Markup:
    """Draw round trips over time, passed as disks, failed as crosses, unscored as rings; each links to its result."""
    if not points:
        return Markup("")
    first, last = points[0].started_at, points[-1].started_at
    highest = _round_up(_find_limit([point.round_trip_s for point in points]))
    axes = _Axes(first, last, highest, width, height)
    beyond = sum(point.round_trip_s > highest for point in points)
    marks = []
    for index, point in enumerate(points, 1):
        shown = f"{point.outcome} {format_duration(point.round_trip_s)}, {_format_minute(point.started_at)}"
        title = f"<title>{escape(shown)}</title>"
        tab = _tab_stop(is_stop=index == len(points))
        mark = _draw_mark(point.outcome, *axes.place(point.started_at, point.round_trip_s), title)
        marks.append(f'<a href="/r/{escape(point.id)}" {tab}>{mark}</a>')
    lines = axes.draw_grid()
    if beyond:
        lines += f'<text x="{width}" y="10" text-anchor="end">▲ {beyond} above {format_duration(highest)}</text>'
    ends = _draw_axis_ends(_format_minute(first), _format_minute(last), _LEFT, width, height)
    return Markup(
        f'<svg class="plot" viewBox="0 0 {width} {height}" role="group" aria-label="round trips over time">'
        f"{lines}{ends}{''.join(marks)}</svg>"
    )


def draw_delays(delays: Sequence[tuple[float, float]], width: int = 600, height: int = 140) -> Markup:
    """Draw the delay of a live video over its time, both in seconds from its start."""
    if not delays:
        return Markup("")
    first, last = delays[0][0], delays[-1][0]
    axes = _Axes(first, last, _round_up(max(delay for _, delay in delays)), width, height)
    places = [axes.place(at, delay) for at, delay in delays]
    lines = axes.draw_grid()
    ends = _draw_axis_ends(format_duration(first), format_duration(last), _LEFT, width, height)
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    label = f"delay from input to output, {format_duration(min(delay for _, delay in delays))} to "
    label += f"{format_duration(max(delay for _, delay in delays))}"
    return Markup(
        f'<svg class="plot" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">'
        f'<title>{escape(label)}</title>{lines}{ends}<polyline class="delay" points="{line}"/></svg>'
    )


def draw_timeline(jobs: Sequence[tuple[str, str, str, float, float, str]], width: int = 1320) -> Markup:
    """Draw a tick's jobs over time, in a block of parallel tracks per gateway.

    A job is (id, gateway, pipeline, started at, duration in seconds, outcome).
    """
    if not jobs:
        return Markup("")
    first = min(job[3] for job in jobs)
    whole = max(job[3] + job[4] for job in jobs) - first or 1.0
    # One job that waits for its timeout would press all others together: the axis ends where nearly all are done.
    span = _find_limit([job[3] + job[4] - first for job in jobs])
    last = max(jobs, key=lambda job: job[3])[0]
    tracks: dict[str, list[float]] = {}
    bars: dict[str, list[_Bar]] = {}
    for job_id, gateway, pipeline, started_at, duration_s, outcome in jobs:
        ends = tracks.setdefault(gateway, [])
        # The first track that is free again, so that a gateway gets as many tracks as it had jobs at once.
        row = next((index for index, end in enumerate(ends) if end <= started_at), len(ends))
        ends[row : row + 1] = [started_at + duration_s]
        x = min((started_at - first) / span * width, width - 3)
        bar_width = max(1.5, min(duration_s / span * width - 1, width - x))
        title = f"<title>{escape(pipeline)}: {escape(outcome)} in {format_duration(duration_s)}</title>"
        bars.setdefault(gateway, []).append(_Bar(job_id, outcome, row, x, bar_width, title, job_id == last))
    elements, top = [], 0
    for gateway, ends in tracks.items():
        elements.append(f'<text x="0" y="{top + 12}">{escape(gateway)}</text>')
        elements += [bar.draw(top + 20) for bar in bars[gateway]]
        top += 30 + _TRACK_HEIGHT * len(ends)
    end = (
        format_duration(span)
        if span >= whole
        else f"{format_duration(span)}; the last job ended at {format_duration(whole)}"
    )
    elements.append(_draw_axis_ends("0s", end, 0, width, top + 18))
    return Markup(
        f'<svg class="plot wide" viewBox="0 0 {width} {top + 22}" role="group" aria-label="jobs over time">'
        f"{''.join(elements)}</svg>"
    )


def _tab_stop(*, is_stop: bool) -> str:
    # One of a chart's hundreds of links is reached by Tab; the script moves on from there by arrow keys.
    return f'tabindex="{0 if is_stop else -1}"'


def _find_limit(values: Sequence[float]) -> float:
    """Return where an axis ends: at the greatest value, unless that is far from where three of four are."""
    ordered = sorted(values)
    most, usual = ordered[-1], ordered[(len(ordered) - 1) * 3 // 4]
    return usual * 1.5 if usual > 0 and most > 4 * usual else most or 1.0


def _draw_mark(outcome: str, x: float, y: float, title: str = "") -> str:
    if outcome == "failed":
        return f'<path class="failed" d="M{x - 4.5:.1f} {y - 4.5:.1f}l9 9m0-9l-9 9">{title}</path>'
    return f'<circle class="{escape(outcome)}" cx="{x:.1f}" cy="{y:.1f}" r="4.5">{title}</circle>'


LEGEND_MARKS = tuple((outcome, Markup(_draw_mark(outcome, 6, 6))) for outcome in ("passed", "failed", "unscored"))


def _draw_axis_ends(first: str, last: str, left: float, right: float, y: float) -> str:
    """Write under a chart where its time axis begins and ends; once if that is the same."""
    texts = ((left, "start", first),) if first == last else ((left, "start", first), (right, "end", last))
    return "".join(f'<text x="{x}" y="{y - 4}" text-anchor="{anchor}">{text}</text>' for x, anchor, text in texts)


def _format_minute(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M")


def _round_up(value: float) -> float:
    """Return the next 1, 2 or 5 times a power of ten, which makes a readable axis."""
    if value <= 0:
        return 1.0
    power = 10 ** math.floor(math.log10(value))
    return float(next(step * power for step in (1, 2, 5, 10) if step * power >= value))
