"""Charts differ by shape as well as by color, link to results, and escape what comes from outside."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from jobtester.store.queries import ResultPoint
from jobtester.web.charts import draw_latency, draw_sparkline, draw_timeline

POINTS = [
    ResultPoint("job-1", 1_000.0, 1.0, "passed", "ok"),
    ResultPoint("job-2", 2_000.0, 3.0, "failed", "timeout"),
    ResultPoint("job-3", 3_000.0, 0.0, "unscored", "busy"),
]


def count(svg: str, tag: str) -> int:
    """Return the number of elements of a tag in an SVG, which has to be well-formed."""
    return len(list(ElementTree.fromstring(svg).iter(tag)))


def test_nothing_is_drawn_of_nothing() -> None:
    """A capability without results has no chart."""
    assert draw_sparkline([]) == draw_latency([]) == draw_timeline([]) == ""


def test_a_sparkline_has_a_bar_per_result() -> None:
    """Every result is a bar, and a failed one is crossed."""
    svg = draw_sparkline(POINTS)
    outlines = dict(re.findall(r'<path class="(\w+)" d="([^"]+)"', svg))
    assert {name: outline.count("M") for name, outline in outlines.items()} == {
        "passed": 1, "failed": 1, "unscored": 1, "cross": 1,
    }  # fmt: skip
    assert "<title>last 3: 1 passed, 1 failed, 1 unscored; 0s to 3s</title>" in svg


def test_latency_marks_each_outcome_by_a_shape() -> None:
    """Passed and unscored results are circles of different classes, failed ones crosses; all are links."""
    svg = draw_latency(POINTS)
    assert (count(svg, "circle"), count(svg, "path"), count(svg, "a")) == (2, 1, 3)
    assert "5s" in svg, "the axis ends at a round number above 3 s"


def test_one_point_stands_in_the_middle() -> None:
    """A single instant has no span to divide by."""
    assert 'cx="333.0"' in draw_latency(POINTS[:1])


def test_parallel_jobs_of_a_gateway_have_tracks_of_their_own() -> None:
    """Jobs that overlap stand below each other; a job after them takes the first free track."""
    jobs = [
        ("job-1", "gateway", "llm", 0.0, 2.0, "passed"),
        ("job-2", "gateway", "llm", 1.0, 2.0, "passed"),
        ("job-3", "gateway", "llm", 2.5, 1.0, "failed"),
    ]
    bars = list(ElementTree.fromstring(draw_timeline(jobs)).iter("rect"))
    assert [bar.get("y") for bar in bars] == ["20", "31", "20"]


def test_texts_from_outside_are_escaped() -> None:
    """Names of gateways, pipelines and jobs are text, whatever they hold."""
    text = "<script>&\"'"
    svg = draw_timeline([(text, text, text, 0.0, 1.0, text)])
    assert "<script>" not in svg
    assert count(svg, "title") == 1
