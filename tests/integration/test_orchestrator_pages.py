"""Pages over a long history: who fails and why, who is not tested and why, the feed, the badge and all ticks."""

from __future__ import annotations

import html
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree as ET

import aiohttp

from jobtester.simulator.generated_scenario import generate
from tests.harness.history import LongHistory, write_long_history
from tests.harness.hostile_texts import MARKED, hostile_tester
from tests.harness.simulated import simulated_tester

ATOM = "{http://www.w3.org/2005/Atom}"


class Pages:
    """Reads pages of a tester."""

    def __init__(self, session: aiohttp.ClientSession, base: str) -> None:
        """Read from an address."""
        self._session, self._base = session, base

    async def get(self, path: str, *, status: int = 200) -> str:
        """Return the text of a page."""
        async with self._session.get(self._base + path) as answer:
            assert answer.status == status, path
            return await answer.text()


@asynccontextmanager
async def long_history(folder: Path, **size: int) -> AsyncIterator[tuple[Pages, LongHistory]]:
    """Start a tester whose store has a long history."""
    async with (
        simulated_tester(generate(seed=1, orchestrators=1, pipelines=("llm",)), folder) as tester,
        aiohttp.ClientSession() as session,
    ):
        history = await write_long_history(tester.daemon.database, **size)
        yield Pages(session, f"http://127.0.0.1:{tester.daemon.port}"), history


def assert_is_atom(text: str) -> list[dict[str, str]]:
    """Assert what RFC 4287 asks of a feed, and return its entries."""
    feed = ET.fromstring(text)
    assert feed.tag == f"{ATOM}feed"
    elements = [feed, *feed.findall(f"{ATOM}entry")]
    for element in elements:
        for name in ("id", "title", "updated"):
            assert len(element.findall(f"{ATOM}{name}")) == 1, name
            assert (element.findtext(f"{ATOM}{name}") or "").strip(), name
        moment = element.findtext(f"{ATOM}updated") or ""
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", moment)
        assert datetime.fromisoformat(moment) <= datetime.now(UTC)
        links = [link.attrib for link in element.findall(f"{ATOM}link")]
        assert all(re.match("https?://", link["href"]) for link in links)
        assert [link["rel"] for link in links].count("alternate") == 1
    assert [link.attrib["rel"] for link in feed.findall(f"{ATOM}link")].count("self") == 1
    assert feed.findtext(f"{ATOM}author/{ATOM}name"), "entries without an author need one of the feed"
    ids = [element.findtext(f"{ATOM}id") or "" for element in elements]
    assert len(set(ids)) == len(ids)
    assert all(re.match("urn:uuid:[0-9a-f-]{36}$", one) for one in ids)
    return [
        {child.tag.removeprefix(ATOM): child.text or "" for child in entry} for entry in feed.findall(f"{ATOM}entry")
    ]


async def test_the_feed_has_failures_and_recoveries(tmp_path: Path) -> None:
    """Each once, newest first, with its reason; the feed is valid, stays the same, and its page links to it."""
    async with long_history(tmp_path, orchestrators=25, ticks=60) as (pages, history):
        address = history.failing["timeout"]
        text = await pages.get(f"/o/{address}.atom")
        entries = assert_is_atom(text)
        assert entries[0]["title"].startswith("Failed: ")
        assert entries[0]["content"].startswith("timeout: ")
        kinds = [entry["title"].partition(":")[0] for entry in entries]
        assert kinds == ["Failed", "Recovered"] * (len(kinds) // 2) + ["Failed"] * (len(kinds) % 2)
        moments = [entry["updated"] for entry in entries]
        assert moments == sorted(moments, reverse=True)
        assert await pages.get(f"/o/{address}.atom") == text
        page = await pages.get(f"/o/{address}")
        assert page.count(f'href="/o/{address}.atom"') == 2
        assert f'href="/o/{address}.svg"' in page
        quiet = assert_is_atom(await pages.get(f"/o/{history.skipped}.atom"))
        assert quiet == []
        for suffix in (".atom", ".svg", ""):
            await pages.get(f"/o/0x{7:040x}{suffix}", status=404)


async def test_the_badge_says_the_rate_or_that_it_is_unknown(tmp_path: Path) -> None:
    """A well-formed picture with a title and without script; unknown is not the color of well."""
    async with long_history(tmp_path, orchestrators=25, ticks=30) as (pages, history):
        badges = [await pages.get(f"/o/{address}.svg") for address in (history.failing["timeout"], history.skipped)]
        for badge in badges:
            svg = ET.fromstring(badge)
            assert svg.tag == "{http://www.w3.org/2000/svg}svg"
            assert (svg.findtext("{http://www.w3.org/2000/svg}title") or "").startswith("Livepeer FRA: ")
            assert not re.search("script|href|on[a-z]+=|@import|url", badge)
        assert re.search(r"9\d(\.\d)? % of 24 h", badges[0])
        assert "unknown" in badges[1]
        assert "#14713f" not in badges[1]


async def test_hostile_texts_break_neither_feed_nor_badge(tmp_path: Path) -> None:
    """Markup and controls of models and messages are text in them, and what XML cannot hold is left out."""
    async with hostile_tester(tmp_path) as (tester, _), aiohttp.ClientSession() as session:
        pages = Pages(session, f"http://127.0.0.1:{tester.daemon.port}")
        for number, name in enumerate(MARKED, 1):
            entries = assert_is_atom(await pages.get(f"/o/0x{number:040x}.atom"))
            assert f"«{name}»" in entries[0]["title"]
            ET.fromstring(await pages.get(f"/o/0x{number:040x}.svg"))


async def test_an_untested_orchestrator_says_who_skips_it_and_why(tmp_path: Path) -> None:
    """On its own page, in the overview and on the tick's page, with the reason's meaning and since when."""
    async with long_history(tmp_path, orchestrators=25, ticks=30) as (pages, history):
        page = await pages.get(f"/o/{history.skipped}")
        assert "skipped by this tester" in page
        assert "pipelines.&lt;name&gt;.enabled is false" in page
        assert ">unknown</dd>" in page
        since = re.search(r'<td><time datetime="([^"]+)">', page)
        assert since is not None
        assert since[1].replace("-", "").replace(":", "")[:11] == history.ticks[0][:11]
        assert f'href="/o/{history.skipped}"' in await pages.get("/")
        assert f'href="/o/{history.skipped}"' in await pages.get("/?outcome=skipped")
        assert f'href="/o/{history.skipped}"' in await pages.get(f"/t/{history.ticks[3]}")


async def test_the_overview_shows_the_worst_first_and_what_matches(tmp_path: Path) -> None:
    """All that fail, then what is unknown, untested, and well; filters leave rows and columns that match."""
    async with long_history(tmp_path, orchestrators=40, ticks=2) as (pages, history):
        text = await pages.get("/")
        rows = re.findall(r'<th scope="row"><a class="address" href="/o/(\w+)"', text)
        assert set(rows[: len(history.failing)]) == set(history.failing.values())
        assert len(rows) == len(set(rows)) == 41
        states = {
            name: int(count) for count, name in re.findall(r">(\d+) (failing|unknown|untested|passing)</span>", text)
        }
        assert states["failing"] == len(history.failing)
        assert states["untested"] == 1
        assert rows[states["failing"] + states["unknown"]] == history.skipped
        heads = re.findall(
            r'<th scope="col">([^<]+)</th>', text.partition('<table class="matrix">')[2].partition("</thead>")[0]
        )
        assert heads[-2:] == ["BYOC", "live runner"]
        filtered = await pages.get("/?q=TIMEOUT+gpu-0.&outcome=failed")
        assert re.findall(r'<th scope="row"><a class="address" href="/o/(\w+)"', filtered) == [
            history.failing["timeout"]
        ]
        table = filtered.partition('<table class="matrix">')[2].partition("</thead>")[0]
        assert len(re.findall('<th scope="col">', table)) == 2, "a column that would be empty is not shown"
        assert "Nothing matches the filter." in await pages.get("/?q=nosuch")
        assert ">Last tick</h2>" in text


async def test_a_failure_of_yesterday_is_found_by_one_filter(tmp_path: Path) -> None:
    """The hour's results of an orchestrator, by typing it or by the hour's bar; a time that is none is explained."""
    async with long_history(tmp_path, orchestrators=25, ticks=30) as (pages, history):
        address = history.failing["timeout"]
        failed = re.findall(
            r'<a href="/r/([\w-]+)"',
            (await pages.get(f"/o/{address}?outcome=failed&since=24.5h&until=24h")).partition('id="results"')[2],
        )
        assert failed == [f"{0:08x}-24"]
        page = await pages.get(f"/o/{address}?window=7d")
        bars = [
            html.unescape(link)
            for link in re.findall(r'<a href="([^"]+)#results" tabindex="-1" aria-label="[^"]*failed', page)
        ]
        shown = [await pages.get(f"/o/{address}{bar}") for bar in bars]
        assert any(f"/r/{failed[0]}" in text.partition('id="results"')[2] for text in shown)
        wrong = await pages.get(f"/o/{address}?since=yesterday")
        assert 'value="yesterday"' in wrong
        assert "UTC, or with an offset" in wrong


async def test_all_ticks_are_listed_page_by_page(tmp_path: Path) -> None:
    """Each once, from the newest to the oldest; and only those of a time that is asked for."""
    async with long_history(tmp_path, orchestrators=2, ticks=120) as (pages, history):
        seen: list[str] = []
        path = "/ticks"
        while path:
            text = await pages.get(path)
            seen += re.findall(r'<td><a href="/t/(\w+)"', text)
            older = re.search(r'<a href="([^"]+)">older ticks</a>', text)
            path = f"/ticks{html.unescape(older[1])}" if older else ""
        assert seen == list(reversed(history.ticks))
        some = re.findall(r'<td><a href="/t/(\w+)"', await pages.get("/ticks?since=10h&until=5h"))
        assert some == list(reversed(history.ticks))[5:10]
        tick = await pages.get(f"/t/{history.ticks[-1]}")
        assert re.search(r"<dt[^>]*>discovery took</dt><dd>1\.5s</dd>", tick)


async def test_links_that_leave_the_pages_name_the_public_address(tmp_path: Path) -> None:
    """Feed, badge and the links in the feed lead where server.public_url says, also behind a proxy."""
    scenario = generate(seed=1, orchestrators=1, pipelines=("llm",))
    async with (
        simulated_tester(scenario, tmp_path, server={"public_url": "https://tester.example/jobs"}) as tester,
        aiohttp.ClientSession() as session,
    ):
        history = await write_long_history(tester.daemon.database, orchestrators=2, ticks=30)
        pages, address = Pages(session, f"http://127.0.0.1:{tester.daemon.port}"), history.failing["timeout"]
        feed = ET.fromstring(await pages.get(f"/o/{address}.atom"))
        links = [link.attrib["href"] for link in feed.iter(f"{ATOM}link")]
        assert len(links) > 2
        assert all(link.startswith("https://tester.example/jobs/") for link in links)
        page = await pages.get(f"/o/{address}")
        for suffix in (".atom", ".svg"):
            assert f'href="https://tester.example/jobs/o/{address}{suffix}"' in page
