"""Write the Atom feed and the SVG badge of an orchestrator."""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from xml.etree import ElementTree as ET

from markupsafe import Markup, escape

from jobtester.domain.history import Summary
from jobtester.domain.orchestrators import shorten_address
from jobtester.domain.units import format_duration
from jobtester.store.history import EventRow
from jobtester.web.template_filters import abbreviate, format_iso, format_share

_ATOM = "http://www.w3.org/2005/Atom"
# What XML 1.0 cannot hold, however it is written.
_UNWRITABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_CHARACTER_WIDTH = 6.6  # of the badge's font, in units of its picture; somewhat more than most characters take


def write_feed(events: Sequence[EventRow], address: str, *, base: str, region: str, now: float) -> bytes:
    """Return the Atom feed of failures and recoveries, newest first; `base` is where the pages are reached."""
    page = f"{base}/o/{address}"
    feed = ET.Element("feed", xmlns=_ATOM)
    _add(feed, "id", _make_id(region, address))
    _add(feed, "title", f"{shorten_address(address)} in {region}: failures and recoveries")
    _add(feed, "updated", format_iso(events[0].event.observation.started_at if events else now))
    ET.SubElement(feed, "link", rel="self", type="application/atom+xml", href=_clean(f"{page}.atom"))
    ET.SubElement(feed, "link", rel="alternate", type="text/html", href=_clean(page))
    _add(ET.SubElement(feed, "author"), "name", f"Livepeer job tester, {region}")
    for row in events:
        observation = row.event.observation
        what = f"{observation.pipeline} {observation.model}"
        entry = ET.SubElement(feed, "entry")
        _add(entry, "id", _make_id(region, row.id))
        _add(entry, "title", f"{'Recovered' if row.event.has_recovered else 'Failed'}: {abbreviate(what)}")
        _add(entry, "updated", format_iso(observation.started_at))
        ET.SubElement(entry, "link", rel="alternate", type="text/html", href=_clean(f"{base}/r/{row.id}"))
        duration = f"round trip {format_duration(observation.round_trip_s)}"
        content = duration if row.event.has_recovered else f"{row.reason}: {abbreviate(row.message)} ({duration})"
        _add(entry, "content", content).set("type", "text")
    document: bytes = ET.tostring(feed, encoding="utf-8", xml_declaration=True)
    return document


def draw_badge(region: str, summary: Summary) -> str:
    """Return a badge with the success rate of the last 24 hours; `unknown` where nothing was scored."""
    rate = summary.success_rate
    left, right = (
        f"Livepeer {abbreviate(region)[:24]}",
        f"{format_share(rate)} of 24 h" if rate is not None else "unknown",
    )
    color = "#59606b" if rate is None else "#14713f" if rate >= 0.95 else "#855600" if rate >= 0.7 else "#bd2430"
    widths = [12 + _CHARACTER_WIDTH * len(text) for text in (left, right)]
    title = f"{left}: {right} passed" if rate is not None else f"{left}: nothing was scored in 24 h"
    return Markup(
        '<svg xmlns="http://www.w3.org/2000/svg" width="{total:.0f}" height="20" role="img" aria-label="{title}">'
        "<title>{title}</title>"
        '<rect width="{total:.0f}" height="20" rx="4" fill="#1f2328"/>'
        '<path d="M{first:.0f} 0h{second:.0f}v20h-{second:.0f}z" fill="{color}"/>'
        '<g fill="#fff" font-family="system-ui,sans-serif" font-size="11" text-anchor="middle">'
        '<text x="{left_x:.1f}" y="14">{left}</text><text x="{right_x:.1f}" y="14">{right}</text></g></svg>'
    ).format(
        total=sum(widths),
        title=_clean(title),
        first=widths[0],
        second=widths[1],
        color=color,
        left_x=widths[0] / 2,
        right_x=widths[0] + widths[1] / 2,
        left=escape(_clean(left)),
        right=right,
    )


def _add(parent: ET.Element, name: str, text: str) -> ET.Element:
    element = ET.SubElement(parent, name)
    element.text = _clean(text)
    return element


def _make_id(region: str, name: str) -> str:
    # The same for the same thing wherever the pages are reached, as Atom demands.
    return f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'jobtester/{region}/{name}')}"


def _clean(text: str) -> str:
    return _UNWRITABLE.sub("\ufffd", text)
