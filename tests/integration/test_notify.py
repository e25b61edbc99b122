"""Job reports reach the address of the operator, signed, and again where it fails at first."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import orjson
from aiohttp import web
from pydantic import SecretStr

from jobtester.daemon.notifier import Notifier
from jobtester.domain.tick_report import TickReport
from jobtester.settings.sections import NotifySettings
from jobtester.settings.types import SecretUrl
from tests.harness.waiting import until


class Bot:
    """A server that answers what it is told to, and keeps what it got."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.got: list[tuple[bytes, str]] = []
        self.url = ""

    async def take(self, request: web.Request) -> web.Response:
        """Take one post."""
        self.got.append((await request.read(), request.headers.get("Authorization", "")))
        return web.Response(status=self.statuses.pop(0) if self.statuses else 200)


@asynccontextmanager
async def bot(*statuses: int) -> AsyncIterator[Bot]:
    """Start such a server."""
    one = Bot(*statuses)
    app = web.Application()
    app.router.add_post("/hook", one.take)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        one.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
        yield one
    finally:
        await runner.cleanup()


async def assert_posts(one: Bot, how: NotifySettings, *, count: int) -> None:
    """Announce one tick and wait until the server has so many posts, and no more."""
    notifier = Notifier(lambda: how, first_pause_s=0.01, max_attempts=4)
    running = asyncio.ensure_future(notifier.run())
    notifier.enqueue(TickReport("t1", "test", 1.0))
    await until(lambda: len(one.got) >= count, f"{count} posts")
    await asyncio.sleep(0.1)
    running.cancel()
    assert len(one.got) == count


async def test_a_report_is_signed() -> None:
    """Over the exact bytes, as stats are."""
    async with bot() as one:
        await assert_posts(one, NotifySettings(url=SecretUrl(one.url), secret=SecretStr("key")), count=1)
        body, signature = one.got[0]
        assert orjson.loads(body)["id"] == "t1"
        assert signature == hmac.new(b"key", body, hashlib.sha256).hexdigest()


async def test_it_is_tried_again() -> None:
    """While the other side fails; not where it refuses; not for ever."""
    async with bot(500, 503) as one:
        await assert_posts(one, NotifySettings(url=SecretUrl(one.url)), count=3)
    async with bot(403) as one:
        await assert_posts(one, NotifySettings(url=SecretUrl(one.url)), count=1)
    async with bot(500, 500, 500, 500, 500, 500) as one:
        await assert_posts(one, NotifySettings(url=SecretUrl(one.url)), count=4)


async def test_without_an_address_nothing_is_kept() -> None:
    """Nobody is told, and nothing waits."""
    notifier = Notifier(NotifySettings)
    notifier.enqueue(TickReport("t1", "test", 1.0))
    assert notifier._reports.empty()
