"""Whatever comes from outside is text on every page, under a policy that would run none of it anyway."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest

from jobtester.domain.reasons import Outcome, Verdict
from jobtester.simulator.generated_scenario import generate
from tests.harness.hostile_texts import HOSTILE, MARKED, TICK, hostile_result, hostile_tester
from tests.harness.simulated import simulated_tester


class Page(HTMLParser):
    """Takes a page apart: its tags with their attributes, and the text that a person sees."""

    def __init__(self, source: str) -> None:
        """Read a whole page."""
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect a tag."""
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        """Collect text."""
        self.text += data


def examine(source: str, path: str) -> Page:
    """Assert that a page holds no tag, attribute or address that came from outside."""
    page = Page(source)
    for tag, attributes in page.tags:
        assert tag not in ("img", "iframe", "object", "embed", "base", "style", "i", "b"), (path, tag)
        assert tag != "script" or re.match(r"/static/(live|page|copy)\.js", attributes.get("src") or ""), path
        assert tag != "form" or attributes.get("method") == "get", path
        for name, value in attributes.items():
            assert not name.startswith("on"), (path, tag, name)
            assert name != "style", (path, tag)
            if name in ("href", "src", "action", "xlink:href"):
                assert re.fullmatch(r"(/(?!/)|\?|#)[^\s<>\"'{}]*", value or ""), (path, tag, value)
                assert (value or "").startswith(("/", "?")) or value in ("#main", "#results"), (path, value)
    assert "<script>alert" not in source
    controls = [char for char in source if (ord(char) < 32 and char not in "\n\t") or 127 <= ord(char) < 160]
    assert not controls, (path, controls[:5])
    assert not re.search("[\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069\ufeff]", source), path
    return page


async def test_hostile_texts_are_only_text_on_every_page(tmp_path: Path) -> None:
    """Tags, quotes, controls, reversed writing and 100 kB from models, errors and answers change no page's make-up."""
    async with hostile_tester(tmp_path) as (tester, ids), aiohttp.ClientSession() as session:
        base = f"http://127.0.0.1:{tester.daemon.port}"
        paths = ["/", "/outbox", f"/t/{TICK}", f"/t/{TICK}?outcome=failed", f"/t/{TICK}?reason=check:json"]
        paths += [f"/r/{result_id}" for result_id in ids.values()]
        paths += [f"/o/0x{number:040x}" for number in range(1, len(MARKED) + 1)]
        pages = {}
        for path in paths:
            async with session.get(base + path) as answer:
                assert answer.status == 200, (path, await answer.text())
                pages[path] = examine(await answer.text(), path)
                assert "Set-Cookie" not in answer.headers
        for name, result_id in ids.items():
            shown = pages[f"/r/{result_id}"].text
            for mark in (f"«{name}»", "«end»"):
                assert shown.count(mark) >= 4, (name, mark)
            if name in ("script", "attribute", "close", "template", "link", "emoji", "entity", "long"):
                assert shown.count(MARKED[name]) >= 3, name
        assert "«script»<script>alert(1)</script>«end»" in pages[f"/t/{TICK}"].text
        assert "{{ 1234567 * 7 }}" in pages["/outbox"].text
        assert "8641969" not in pages[f"/r/{ids['template']}"].text


async def test_a_reason_that_only_another_version_knew_is_shown_as_it_is(tmp_path: Path) -> None:
    """Results outlive updates, and a code may go: its page still shows the rest."""
    old = replace(hostile_result(1, "x"), verdict=Verdict(Outcome.FAILED, "code_of_old", "it was so then"))
    async with hostile_tester(tmp_path) as (tester, _), aiohttp.ClientSession() as session:
        assert await tester.daemon.coordinator.results.record(replace(old, job=replace(old.job, id="old")), None)
        for path in ("/r/old", "/api/results/old"):
            async with session.get(f"http://127.0.0.1:{tester.daemon.port}{path}") as answer:
                source = await answer.text()
                assert answer.status == 200, source
                assert "code_of_old" in source
                assert "it was so then" in source


async def test_addresses_that_are_hostile_lead_nowhere(tmp_path: Path) -> None:
    """What stands in a path is not echoed, and never breaks the server."""
    async with hostile_tester(tmp_path) as (tester, _), aiohttp.ClientSession() as session:
        base = f"http://127.0.0.1:{tester.daemon.port}"
        for name, text in HOSTILE.items():
            quoted = quote(text[:2000], safe="")
            for path in (f"/o/{quoted}", f"/r/{quoted}", f"/t/{quoted}", f"/api/results/{quoted}", f"/{quoted}"):
                async with session.get(base + path) as answer:
                    assert answer.status in (400, 404), (name, path)
                    assert "alert(1)" not in await answer.text()
            for path in (f"/t/{TICK}?reason={quoted}", f"/t/{TICK}?before={quoted}", f"/?x={quoted}"):
                async with session.get(base + path) as answer:
                    assert answer.status == 200, (name, path)
                    examine(await answer.text(), path)


async def test_the_api_returns_hostile_texts_unchanged(tmp_path: Path) -> None:
    """JSON carries them unchanged, under a type that no browser takes for a page."""
    async with hostile_tester(tmp_path) as (tester, ids), aiohttp.ClientSession() as session:
        base = f"http://127.0.0.1:{tester.daemon.port}"
        for name, result_id in ids.items():
            async with session.get(f"{base}/api/results/{result_id}") as answer:
                assert answer.content_type == "application/json"
                assert answer.headers["X-Content-Type-Options"] == "nosniff"
                body: dict[str, Any] = await answer.json()
                assert {body["model"], body["message"], body["response"]} == {MARKED[name]}
                assert body["estimated_price_wei"] == "1" + "0" * 24
        async with session.get(f"{base}/api/results", params={"model": MARKED["direction"]}) as answer:
            assert [result_id["id"] for result_id in (await answer.json())["items"]] == [ids["direction"]]


@pytest.mark.parametrize(
    "path", ["/", "/outbox", "/t/none", "/api/status", "/metrics", "/healthz", "/static/style.css"]
)
async def test_the_policy_is_strict(path: str, tmp_path: Path) -> None:
    """Every answer forbids all but our own files: nothing inline, nothing evaluated, no framing, no foreign address."""
    async with (
        simulated_tester(generate(seed=1, orchestrators=1, pipelines=("llm",)), tmp_path) as tester,
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{tester.daemon.port}{path}") as answer,
    ):
        policy = dict(part.strip().split(" ", 1) for part in answer.headers["Content-Security-Policy"].split(";"))
        assert policy["default-src"] == policy["frame-ancestors"] == "'none'"
        assert set(policy.values()) <= {"'none'", "'self'"}
        if path in ("/", "/outbox"):
            assert (policy["base-uri"], policy["form-action"]) == ("'none'", "'self'")
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"


def test_no_page_needs_anything_from_elsewhere() -> None:
    """Templates, style and script name no foreign address, and no inline style or script."""
    for file in (Path(__file__).parents[2] / "jobtester/web").glob("[ts]*/*.*"):
        text = file.read_text("utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|url\(|@import|(?<![:\w/])//\w", text) or file.suffix == ".js", file.name
        assert not re.search(r"https?://", text), file.name
        assert not re.search(r"\sstyle=|\son\w+=|<style|<script(?! src)|\beval\b|innerHTML", text), file.name
