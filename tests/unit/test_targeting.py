"""How an orchestrator is named in each way of targeting, and what that alone says of a job that has ended."""

from __future__ import annotations

import asyncio
import base64

import orjson
import pytest

from jobtester.domain.attempts import AttemptPattern
from jobtester.domain.attribution import AttributionKind
from jobtester.domain.exchanges import Ending, Exchange
from jobtester.domain.jobs import Job
from jobtester.domain.orchestrators import Capability, Orchestrator
from jobtester.gateway.client import GatewayClient
from jobtester.gateway.lease import Lease, LeaseTiming
from jobtester.gateway.targeting import (
    ByocTargeting,
    QueryTargeting,
    WebhookTargeting,
    byoc_timeout_s,
    byoc_worker_seconds,
    webhook_entries,
)
from jobtester.gateway.trust import TrustCounter

URI = "https://o.example:8935"
OTHER = Orchestrator("0x2", "https://other.example:8935")


def job(*, byoc: bool = False, name: str = "j") -> Job:
    """Return a job of 1.5 s for one orchestrator."""
    capability = Capability("llm", "m", byoc=byoc)
    return Job(name, "t", Orchestrator("0x1", URI, (capability,)), capability, "Llm", 1.5, 1.0)


def exchange(status: int = 200, body: bytes = b'{"ok": true}', ending: Ending = Ending.ANSWERED) -> Exchange:
    """Return an exchange that took two and a half seconds."""
    return Exchange(ending, 1_800_000_000.0, 100.0, 102.5, status, body)


def webhook(*, first_question_s: float = 60.0, min_asks: int = 2) -> WebhookTargeting:
    """Return the targeting of a webhook gateway in a tick."""
    lease = Lease(LeaseTiming(retry_window=0.0, settle=0.0, after_disconnect=60.0, min_asks=min_asks))
    lease.begin_tick()
    client = GatewayClient("g", "http://127.0.0.1:9")
    return WebhookTargeting(lease, client, first_question_s=first_question_s)


async def test_query_names_the_orchestrator_in_the_query() -> None:
    """The time of the answer alone says how far the attempts came."""
    async with QueryTargeting(2.0).acquire(job()) as lease:
        assert (dict(lease.query), dict(lease.headers)) == ({"orchestrator": URI}, {})
        targeted = lease.finish(exchange(503))
    assert targeted.attribution.kind is AttributionKind.PRESUMED
    assert targeted.attempts.pattern is AttemptPattern.UNCLEAR
    assert not targeted.was_overlapped


@pytest.mark.parametrize("targeting", [QueryTargeting(), ByocTargeting()])
async def test_byoc_names_the_orchestrator_in_the_header(targeting: QueryTargeting | ByocTargeting) -> None:
    """On any gateway: both inner objects travel as texts, and the worker gets whole seconds."""
    async with targeting.acquire(job(byoc=True)) as lease:
        assert not lease.query
        header = orjson.loads(base64.b64decode(lease.headers["Livepeer"]))
        targeted = lease.finish(exchange())
    assert orjson.loads(header["parameters"]) == {"orchestrators": {"include": [URI], "exclude": []}}
    assert (header["capability"], header["timeout_seconds"]) == ("llm", 2)
    assert targeted.attempts.pattern is AttemptPattern.UNCLEAR


def test_the_tester_waits_longer_than_a_byoc_worker_may_take() -> None:
    """Hanging up first would cost the orchestrator a slot."""
    assert [byoc_worker_seconds(seconds) for seconds in (0.0, 0.2, 1.0, 1.1)] == [1, 1, 1, 2]
    assert all(byoc_timeout_s(seconds) > byoc_worker_seconds(seconds) for seconds in (0.0, 1.0, 59.9))


async def test_a_webhook_that_was_asked_is_presumed() -> None:
    """The gateway asked while this orchestrator was named; each question counts for one job only."""
    targeting = webhook()
    async with targeting.acquire(job()) as lease:
        assert [named.service_uri for _ in range(7) for named in targeting.answer_webhook()] == [URI] * 7
        targeted = lease.finish(exchange())
    assert targeted.attribution.kind is AttributionKind.PRESUMED
    assert targeted.attribution.evidence == (
        f"webhook: the gateway asked the tester 7 times (2 or more are expected) whom to use, and got {URI}",
    )
    assert targeted.attempts.pattern is AttemptPattern.ANSWERED


async def test_a_webhook_that_was_not_asked_proves_nothing() -> None:
    """The gateway chose from what it remembered."""
    async with webhook().acquire(job()) as lease:
        targeted = lease.finish(exchange())
    assert targeted.attribution.kind is AttributionKind.MISSING
    assert targeted.attempts.pattern is AttemptPattern.NOT_FOLLOWING


async def test_an_exchange_that_we_left_keeps_the_name() -> None:
    """The gateway goes on with it, so nobody else is named for as long as it may ask."""
    targeting = webhook()
    async with targeting.acquire(job()) as lease:
        lease.finish(exchange(ending=Ending.TIMEOUT))
    now = asyncio.get_running_loop().time()
    ready = targeting.lease.ready_at(OTHER, now)
    assert ready is not None
    assert ready > now + 30


async def test_a_job_without_an_exchange_ends_its_lease_too() -> None:
    """An error between acquiring and finishing leaves no job behind, and nobody else named too early."""
    targeting = webhook()
    with pytest.raises(RuntimeError):
        async with targeting.acquire(job()):
            raise RuntimeError("broken on purpose")
    assert not targeting.lease.jobs
    targeting.release()
    assert targeting.lease.holder is not None


def test_webhook_entries_are_what_gateways_expect() -> None:
    """Address and score, as -orchWebhookUrl reads them."""
    assert webhook_entries([OTHER]) == [{"address": OTHER.service_uri, "score": 1.0}]


@pytest.mark.parametrize(
    ("kinds", "is_lost", "is_earned"),
    [
        ([], False, False),
        (["proven"] * 3, False, True),
        (["presumed"] * 11, False, False),
        (["presumed"] * 12, False, True),
        (["missing"] * 2, False, False),
        (["missing"] * 3, True, False),
        (["missing", "refuted", "refuted"], True, False),
        (["missing"] * 3 + ["proven"] * 3, False, True),
        (["missing"] * 4 + ["proven"] * 3, True, True),
    ],
)
def test_trust_is_lost_and_earned_by_counting(kinds: list[str], is_lost: bool, is_earned: bool) -> None:
    """Three strikes that outnumber the rest lose it, three proofs or twelve attributions earn it."""
    trust = TrustCounter()
    for kind in kinds:
        trust.count(AttributionKind(kind))
    assert (trust.is_lost, trust.is_earned) == (is_lost, is_earned)


def test_only_the_first_sign_of_distrust_is_a_first() -> None:
    """It is logged once a tick."""
    trust = TrustCounter()
    kinds = (AttributionKind.PROVEN, AttributionKind.MISSING, AttributionKind.REFUTED, AttributionKind.MISSING)
    assert [trust.count(kind) for kind in kinds] == [False, True, False, False]
