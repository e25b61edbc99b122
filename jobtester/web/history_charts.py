"""Draw how results and prices of an orchestrator developed, as inline SVG."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from urllib.parse import urlencode

from markupsafe import Markup, escape

from jobtester.domain.history import Bucket
from jobtester.domain.units import format_duration

_OUTCOMES = ("passed", "failed", "unscored")
_BOTTOM = 22


def draw_bars(buckets: Sequence[Bucket], step_s: float, window: str, width: int = 1320, height: int = 120) -> Markup:
    """Draw a bar for each hour or day, split by outcome; each links to its results. Empty if there are none."""
    most = max((bucket.summary.total for bucket in buckets), default=0)
    if not most:
        return Markup("")
    step, scale = width / len(buckets), (height - _BOTTOM) / most
    bars = []
    newest = max(index for index, bucket in enumerate(buckets) if bucket.summary.total)
    for index, bucket in enumerate(buckets):
        summary = bucket.summary
        if not summary.total:
            continue
        counts = [getattr(summary, name) for name in _OUTCOMES]
        outcomes = ", ".join(f"{count} {name}" for count, name in zip(counts, _OUTCOMES, strict=True) if count)
        label = f"{_format(bucket.start, step_s)}: {outcomes}"
        label += f", p50 {format_duration(summary.p50_s)}" if summary.p50_s is not None else ""
        top, parts = float(height - _BOTTOM), []
        for name, count in zip(_OUTCOMES, counts, strict=True):
            if count:
                top -= count * scale
                parts.append(
                    f'<rect class="{name}" x="{index * step + 0.75:.1f}" y="{top:.1f}" '
                    f'width="{max(1.5, step - 1.5):.1f}" height="{count * scale:.1f}"/>'
                )
        query = {"window": window, "since": f"{bucket.start:.0f}", "until": f"{bucket.start + step_s:.0f}"}
        bars.append(
            f'<a href="?{escape(urlencode(query))}#results" tabindex="{0 if index == newest else -1}" '
            f'aria-label="{label}"><title>{label}</title>{"".join(parts)}</a>'
        )
    middle = buckets[len(buckets) // 2]
    texts = "".join(
        f'<text x="{x}" y="{height - 5}" text-anchor="{anchor}">{_format(bucket.start, step_s)}</text>'
        for x, anchor, bucket in (
            (0, "start", buckets[0]), (width / 2, "middle", middle), (width, "end", buckets[-1]),
        )
    )  # fmt: skip
    line = f'<line class="grid" x1="0" x2="{width}" y1="{height - _BOTTOM}" y2="{height - _BOTTOM}"/>'
    return Markup(
        f'<svg class="plot wide bars" viewBox="0 0 {width} {height}" role="group" '
        f'aria-label="results over time">{line}{"".join(bars)}{texts}</svg>'
    )


def draw_prices(changes: Sequence[tuple[float, int]], since: float, until: float, width: int = 600) -> Markup:
    """Draw the estimated price of a job as steps over time."""
    height, highest = 48, max(wei for _, wei in changes) or 1
    points = []
    for index, (moment, wei) in enumerate(changes):
        y = 4 + (height - 8) * (1 - wei / highest)
        end = changes[index + 1][0] if index + 1 < len(changes) else until
        points += [f"{(at - since) / (until - since) * width:.1f},{y:.1f}" for at in (moment, end)]
    label = "; ".join(f"{wei} wei from {_format(moment, 3600)}" for moment, wei in changes[-20:])
    return Markup(
        f'<svg class="plot prices" viewBox="0 0 {width} {height}" role="img" aria-label="price over time: {label}">'
        f'<title>{label}</title><polyline points="{" ".join(points)}"/></svg>'
    )


def _format(moment: float, step_s: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%b %d %H:%M" if step_s < 86_400 else "%b %d")
