"""Job reports reach the operator's URL, signed, and are posted again after a failure."""

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
from jobtester.settings.operator_sections import NotifySettings
from jobtester.settings.types import SecretUrl
from tests.harness.waiting import until


class Receiver:
    """A server that answers with given statuses, then 200, and keeps what was posted to it."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.posts: list[tuple[bytes, str]] = []
        self.url = ""

    async def receive(self, request: web.Request) -> web.Response:
        """Keep one post and answer it."""
        self.posts.append((await request.read(), request.headers.get("Authorization", "")))
        return web.Response(status=self.statuses.pop(0) if self.statuses else 200)


@asynccontextmanager
async def running_receiver(*statuses: int) -> AsyncIterator[Receiver]:
    """Start a receiver."""
    receiver = Receiver(*statuses)
    app = web.Application()
    app.router.add_post("/hook", receiver.receive)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
        yield receiver
    finally:
        await runner.cleanup()


async def assert_posts(receiver: Receiver, settings: NotifySettings, *, count: int) -> None:
    """Enqueue one report and assert that it is posted `count` times."""
    notifier = Notifier(lambda: settings, first_pause_s=0.01, max_attempts=4)
    running = asyncio.ensure_future(notifier.run())
    notifier.enqueue(TickReport("t1", "test", 1.0))
    await until(lambda: len(receiver.posts) >= count, f"{count} posts")
    await asyncio.sleep(0.1)
    running.cancel()
    assert len(receiver.posts) == count


async def test_a_report_is_signed() -> None:
    """Over the exact bytes, as stats are."""
    async with running_receiver() as receiver:
        await assert_posts(receiver, NotifySettings(url=SecretUrl(receiver.url), secret=SecretStr("key")), count=1)
        body, signature = receiver.posts[0]
        assert orjson.loads(body)["id"] == "t1"
        assert signature == hmac.new(b"key", body, hashlib.sha256).hexdigest()


async def test_a_failed_post_is_repeated() -> None:
    """After 5xx, up to the limit of attempts; not after 403."""
    async with running_receiver(500, 503) as receiver:
        await assert_posts(receiver, NotifySettings(url=SecretUrl(receiver.url)), count=3)
    async with running_receiver(403) as receiver:
        await assert_posts(receiver, NotifySettings(url=SecretUrl(receiver.url)), count=1)
    async with running_receiver(500, 500, 500, 500, 500, 500) as receiver:
        await assert_posts(receiver, NotifySettings(url=SecretUrl(receiver.url)), count=4)


async def test_without_a_url_nothing_is_queued() -> None:
    """The report is dropped at once."""
    notifier = Notifier(NotifySettings)
    notifier.enqueue(TickReport("t1", "test", 1.0))
    assert notifier._reports.empty()
