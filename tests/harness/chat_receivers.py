"""Receivers that accept what Slack's and Discord's webhooks document, and refuse everything else."""

from __future__ import annotations

import re
from typing import Any

_SLACK_ENTITY = re.compile(r"<([^<>]*)>")


def problems_for_slack(body: Any) -> list[str]:
    """Return what an incoming webhook of Slack would refuse or change, by its documentation of blocks."""
    problems = []
    if not isinstance(body, dict) or not isinstance(body.get("text"), str) or not body["text"]:
        problems.append("no_text")
        return problems
    unknown = body.keys() - {"text", "blocks", "unfurl_links", "unfurl_media"}
    problems += [f"unknown {name}" for name in unknown]
    blocks = body.get("blocks", [])
    if not 1 <= len(blocks) <= 50:
        problems.append("invalid_blocks: 1 to 50")
    for block in blocks:
        text = block.get("text", {})
        limit = {"header": 150, "section": 3_000}.get(block.get("type"))
        kind = {"header": "plain_text", "section": "mrkdwn"}.get(block.get("type"))
        if limit is None or text.get("type") != kind:
            problems.append(f"invalid_blocks: {block.get('type')} with {text.get('type')}")
        elif not 1 <= len(text.get("text", "")) <= limit:
            problems.append(f"invalid_blocks: text of {len(text.get('text', ''))} characters")
        if kind == "mrkdwn":
            problems += [f"mrkdwn: {problem}" for problem in problems_in_mrkdwn(text["text"])]
    return problems


def problems_in_mrkdwn(text: str) -> list[str]:
    """Return what is no escaped text and no plain link: stray brackets, mentions, unescaped ampersands."""
    expected_link = r"https://tester\.example/[\w./%-]+\|[^<>|]+"
    problems = [entity for entity in _SLACK_ENTITY.findall(text) if not re.fullmatch(expected_link, entity)]
    plain = _SLACK_ENTITY.sub("", text)
    if "<" in plain or ">" in plain:
        problems.append("stray bracket")
    if re.search(r"&(?!amp;|lt;|gt;)", plain):
        problems.append("unescaped &")
    if any(line.count("`") % 2 for line in plain.split("\n")):
        problems.append("code that is not closed")
    return problems


def problems_for_discord(body: Any) -> list[str]:
    """Return what a webhook of Discord would refuse, or where it would mention somebody."""
    problems = []
    unknown = body.keys() - {"content", "embeds", "allowed_mentions"}
    problems += [f"unknown {name}" for name in unknown]
    if len(body.get("content", "")) > 2_000:
        problems.append("content: 2000 or fewer in length")
    if body.get("allowed_mentions") != {"parse": []}:
        problems.append("mentions are parsed")
    embeds = body.get("embeds", [])
    if not (body.get("content") or embeds) or len(embeds) > 10:
        problems.append("empty message, or too many embeds")
    total = 0
    for embed in embeds:
        problems += [f"unknown {name}" for name in embed.keys() - {"title", "description", "color", "url"}]
        for name, limit in (("title", 256), ("description", 4_096)):
            total += len(embed[name])
            if not 1 <= len(embed[name]) <= limit:
                problems.append(f"{name}: {len(embed[name])} characters")
        if not 0 <= embed["color"] <= 0xFFFFFF:
            problems.append("color")
        problems += problems_in_markdown(embed["description"])
    if total > 6_000:
        problems.append("embeds: 6000 or fewer in length")
    return problems


def problems_in_markdown(text: str) -> list[str]:
    """Return links and mentions in Discord's markdown outside of inline code that are not the tester's own."""
    problems = []
    if any(line.count("`") % 2 for line in text.split("\n")):
        problems.append("code that is not closed")
    outside = re.sub(r"`[^`\n]*`", "", text)
    outside = re.sub(r"\[[^\[\]]+\]\(https://tester\.example/[\w./%-]+\)", "", outside)
    if re.search(r"[<>@\[\]()]|://|\w\.[a-z]{2}", outside):
        problems.append(f"outside of code: {outside}")
    return problems
