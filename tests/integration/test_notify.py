"""Job reports reach the operator's URL, signed, and are posted again after a failure."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web
from pydantic import SecretStr

from jobtester.daemon.notification import Notification
from jobtester.daemon.notifier import Notifier
from jobtester.domain.orchestrators import CapabilityKey
from jobtester.domain.tick_changes import CapabilityChange, TickChanges
from jobtester.domain.tick_report import TickReport
from jobtester.settings.operator_sections import NotifySettings
from jobtester.settings.types import SecretUrl
from jobtester.simulator.generated_scenario import generate
from jobtester.simulator.scenario import GatewaySpec
from tests.harness.chat_receivers import problems_for_discord, problems_for_slack
from tests.harness.simulated import simulated_tester
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
    notifier.enqueue(Notification(TickReport("t1", "test", 1.0)))
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
    notifier.enqueue(Notification(TickReport("t1", "test", 1.0)))
    assert notifier._reports.empty()


async def test_on_change_quiet_ticks_are_not_posted() -> None:
    """What newly fails is posted; a tick like the one before it is not."""
    async with running_receiver() as receiver:
        settings = NotifySettings(url=SecretUrl(receiver.url), when="change")
        notifier = Notifier(lambda: settings)
        change = CapabilityChange(CapabilityKey("0x1", "https://o", "llm", "m"), "r1", "timeout")
        notifier.enqueue(Notification(TickReport("quiet", "test", 1.0, state="finished")))
        notifier.enqueue(Notification(TickReport("news", "test", 1.0, state="finished"), TickChanges((change,))))
        running = asyncio.ensure_future(notifier.run())
        await until(lambda: receiver.posts, "a post")
        running.cancel()
        assert [orjson.loads(body)["id"] for body, _ in receiver.posts] == ["news"]


@pytest.mark.parametrize(("name", "problems"), [("slack", problems_for_slack), ("discord", problems_for_discord)])
async def test_a_real_tick_is_taken_by_the_chat(
    name: str, problems: Callable[[Any], list[str]], tmp_path: Path
) -> None:
    """A tick with failures reaches a receiver of the chat's shape, with links to the pages."""
    scenario = generate(
        seed=3, orchestrators=4, pipelines=("llm",), latency_s=(0.0, 0.01), fault_share=0.5,
        fault_names=("garbage_json",), gateways=(GatewaySpec("one"),),
    )  # fmt: skip
    async with running_receiver() as receiver:
        sections: dict[str, Any] = {
            "notify": {"url": receiver.url, "format": name, "when": "change"},
            "server": {"public_url": "https://tester.example"},
        }
        async with simulated_tester(scenario, tmp_path, **sections) as tester, tester.serving(tick=True):
            await until(lambda: receiver.posts, "a notification", timeout_s=60)
            await tester.first_report()
            outcomes = {row.outcome for row in await tester.results()}
        assert outcomes == {"passed", "failed"}
        body = receiver.posts[0][0]
        assert problems(orjson.loads(body)) == []
        assert b"FRA: " in body
        assert b"newly failing" in body
        assert b"https://tester.example/r/" in body
