"""Write notifications as their receivers read them: JSON, Slack, Discord, or the operator's own template.

Names of pipelines and models come from the network, and are untrusted. No format lets them mention people, link
anywhere or leave their line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import orjson

from jobtester.daemon.notification import Notification
from jobtester.domain.orchestrators import shorten_address
from jobtester.domain.reasons import Outcome
from jobtester.domain.tick_changes import CapabilityChange
from jobtester.domain.units import format_duration
from jobtester.domain.untrusted_text import clean_label
from jobtester.settings.message_template import fill_template
from jobtester.settings.operator_sections import NotifySettings
from jobtester.web.schemas import NotificationSchema

_MAX_NAME_CHARS = 80
_MAX_LISTED = 20
_MAX_JSON_CHANGES = 200
_MAX_PROBLEM_CHARS = 300
# What the receivers accept; Slack counts the characters after escaping.
_SLACK_HEADER, _SLACK_SECTION = 150, 3_000
_DISCORD_TITLE, _DISCORD_DESCRIPTION = 256, 4_096
_RED, _GREEN, _GRAY = 0xC62828, 0x2E7D32, 0x757575
_MARKUP = re.compile(r"[@<>&\[\]()`*|!#\\]")
_DOMAIN_DOT = re.compile(r"\.(?=[^\W\d_]{2})")


def write_body(notification: Notification, settings: NotifySettings) -> tuple[bytes, str]:
    """Return the body to post, and its content type."""
    if settings.format == "slack":
        return orjson.dumps(_make_slack(notification)), "application/json"
    if settings.format == "discord":
        return orjson.dumps(_make_discord(notification)), "application/json"
    if settings.format == "template":
        is_json = settings.template_type == "json"
        text = fill_template(settings.template, _make_fields(notification), is_json=is_json)
        return text.encode(), "application/json" if is_json else "text/plain; charset=utf-8"
    schema = NotificationSchema.from_changes(
        notification.report,
        notification.changes,
        region=notification.region,
        tick_url=notification.tick_url,
        max_changes=_MAX_JSON_CHANGES,
        urls=lambda change: (notification.result_url(change), notification.orchestrator_url(change)),
    )
    return schema.to_json(), "application/json"


def _make_slack(notification: Notification) -> dict[str, Any]:
    def section(text: str) -> dict[str, Any]:
        # verbatim: else Slack makes links of what looks like an address or a channel.
        return {"type": "section", "text": {"type": "mrkdwn", "text": text, "verbatim": True}}

    def link(url: str, text: str) -> str:
        return f"<{_escape_slack(url)}|{text}>" if url else text

    def line(change: CapabilityChange) -> str:
        names = " ".join(f"`{_escape_slack(name)}`" for name in _names(change))
        orchestrator = link(notification.orchestrator_url(change), shorten_address(change.key.orchestrator))
        return f"• {orchestrator} {names} {link(notification.result_url(change), change.reason or 'passed')}"

    summary = link(notification.tick_url, _escape_slack(notification.summary))
    if notification.report.problem:
        summary += f"\n`{_escape_slack(_clean(notification.report.problem, _MAX_PROBLEM_CHARS))}`"
    blocks: list[dict[str, Any]] = [
        {"type": "header", "text": {"type": "plain_text", "text": _cut(notification.title, _SLACK_HEADER)}},
        section(_cut(summary, _SLACK_SECTION)),
    ]
    for title, changes in _lists(notification):
        blocks.append(section(_join(f"*{title}*", changes, line, _SLACK_SECTION)))
    # `text` is what a phone shows of the message; it holds no name from outside, because it is read as markup.
    text = f"{_escape_slack(notification.title)}. {_escape_slack(notification.summary)}"
    return {"text": text, "blocks": blocks, "unfurl_links": False, "unfurl_media": False}


def _make_discord(notification: Notification) -> dict[str, Any]:
    def link(url: str, text: str) -> str:
        return f"[{text}]({url})" if url else text

    def line(change: CapabilityChange) -> str:
        names = " ".join(f"`{name}`" for name in _names(change))
        orchestrator = link(notification.orchestrator_url(change), shorten_address(change.key.orchestrator))
        return f"- {orchestrator} {names} {link(notification.result_url(change), change.reason or 'passed')}"

    parts = [notification.summary]
    if notification.report.problem:
        parts.append(f"`{_clean(notification.report.problem, _MAX_PROBLEM_CHARS)}`")
    lists = _lists(notification)
    for title, changes in lists:
        share = (_DISCORD_DESCRIPTION - sum(map(len, parts)) - 10) // (len(lists))
        parts.append(_join(f"**{title}**", changes, line, share))
    is_bad = bool(notification.changes.failing) or notification.report.state in ("failed", "suspect")
    embed = {
        "title": _cut(notification.title, _DISCORD_TITLE),
        "description": _cut("\n".join(parts), _DISCORD_DESCRIPTION),
        "color": _RED if is_bad else _GREEN if notification.changes.recovered else _GRAY,
        **({"url": notification.tick_url} if notification.tick_url else {}),
    }
    return {"embeds": [embed], "allowed_mentions": {"parse": []}}


def _make_fields(notification: Notification) -> Mapping[str, str]:
    report, changes = notification.report, notification.changes
    outcomes = {outcome.value: str(report.outcomes[outcome]) for outcome in Outcome}
    return {
        "region": notification.region,
        "tick": report.tick,
        "trigger": report.trigger,
        "state": report.state,
        "problem": _defang(_clean(report.problem, _MAX_PROBLEM_CHARS)),
        "duration": format_duration((report.finished_at or report.started_at) - report.started_at),
        "planned": str(report.planned),
        "settled": str(report.settled),
        **outcomes,
        "failing_count": str(len(changes.failing)),
        "recovered_count": str(len(changes.recovered)),
        "still_failing_count": str(changes.still_failing),
        "failing": _join("", changes.failing, _write_plain),
        "recovered": _join("", changes.recovered, _write_plain),
        "tick_url": notification.tick_url,
    }


def _write_plain(change: CapabilityChange) -> str:
    names = " ".join(_defang(name) for name in _names(change))
    return f"{shorten_address(change.key.orchestrator)} {names}{': ' if change.reason else ''}{change.reason}"


def _lists(notification: Notification) -> Sequence[tuple[str, Sequence[CapabilityChange]]]:
    lists = (("Newly failing", notification.changes.failing), ("Recovered", notification.changes.recovered))
    return [(title, changes) for title, changes in lists if changes]


def _join(
    title: str, changes: Sequence[CapabilityChange], write: Callable[[CapabilityChange], str], max_chars: int = 4_000
) -> str:
    """Return a line for each change below a title; those that are too many or too long are only counted."""
    lines = [title] if title else []
    for number, change in enumerate(changes):
        line = write(change)
        # Whole lines only: half a line of markup could be read as something else.
        if number == _MAX_LISTED or sum(map(len, lines)) + len(lines) + len(line) > max_chars - 40:
            lines.append(f"and {len(changes) - number} more")
            break
        lines.append(line)
    return "\n".join(lines)


def _names(change: CapabilityChange) -> Iterable[str]:
    return (_clean(name) for name in (change.key.pipeline, change.key.model) if name)


def _clean(text: str, max_chars: int = _MAX_NAME_CHARS) -> str:
    # One line that stays inside of the inline code around it, where neither Slack nor Discord reads markup.
    return _cut(" ".join(clean_label(text).replace("`", "'").split()), max_chars) or "-"


def _escape_slack(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _defang(text: str) -> str:
    """Return a text in which no receiver, whichever it is, finds a mention, markup or an address."""
    return _DOMAIN_DOT.sub("[.]", _MARKUP.sub("\ufffd", text).replace("://", ":/ /"))


def _cut(text: str, max_chars: int) -> str:
    return text if len(text) <= max_chars else text[: max_chars - 1] + "…"
