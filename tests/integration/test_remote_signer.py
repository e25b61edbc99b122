"""The remote signer over real sockets: whatever it answers, the tester gets a payment or a plain reason."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from jobtester.live_runner.signer import Challenge, RemoteSigner, SignerError
from tests.harness.ports import free_port

PAYER = "0x9a9e000000000000000000000000000000000001"
CHALLENGE = Challenge("eA==", "session_1", "https://node.example/pay", "https://node.example")
PAYMENT = {"payment": "cGF5", "segCreds": "Y3JlZHM=", "state": {"any": ["thing"]}}


@asynccontextmanager
async def signer_with(payment: Any, payer: Any = None) -> AsyncIterator[tuple[RemoteSigner, list[Any]]]:
    """Run a signer that answers so, and yield a client of it and the bodies that it got."""
    bodies: list[Any] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        is_payment = request.path == "/secret/generate-live-payment"
        bodies.append((request.path, await request.json()))
        answer = payment if is_payment else payer if payer is not None else {"address": PAYER, "signature": "0x"}
        if isinstance(answer, tuple):
            return web.Response(status=answer[0], text=answer[1])
        return web.Response(body=answer) if isinstance(answer, bytes) else web.json_response(answer)

    app = web.Application()
    app.router.add_post("/secret/{path}", handle)
    server, port = web.AppRunner(app), free_port()
    await server.setup()
    await web.TCPSite(server, "127.0.0.1", port).start()
    signer = RemoteSigner(f"http://127.0.0.1:{port}/secret/")
    await signer.open()
    try:
        yield signer, bodies
    finally:
        await signer.close()
        await server.cleanup()


async def sign(signer: RemoteSigner, **changes: Any) -> Any:
    """Ask for a payment."""
    return await signer.sign(CHALLENGE, **{"app": "x/app", "price_wei": 7, "unit": "seconds", **changes})


async def test_values_go_through_as_they_are() -> None:
    """The challenge and the state are opaque; the price is the most that may be paid; the payer is asked for once."""
    async with signer_with(PAYMENT) as (signer, bodies):
        first = await sign(signer)
        second = await sign(signer, state=first.state)
    assert first.headers == {
        "Livepeer-Payment": "cGF5", "Livepeer-Segment": "Y3JlZHM=", "Livepeer-Payer-Address": PAYER,
    }  # fmt: skip
    assert second.state == {"any": ["thing"]}
    expected = {
        "orchestrator": "eA==", "type": "live", "ManifestID": "session_1", "app": "x/app",
        "maxPrice": {"price": 7, "currency": "wei", "unit": "seconds"},
    }  # fmt: skip
    assert bodies == [
        ("/secret/sign-orchestrator-info", {}),
        ("/secret/generate-live-payment", expected),
        ("/secret/generate-live-payment", {**expected, "state": {"any": ["thing"]}}),
    ]


@pytest.mark.parametrize(("unit", "kind"), [("fixed", "fixed"), ("seconds", "live"), ("720p-pixel-seconds", "lv2v")])
async def test_the_type_follows_the_unit(unit: str, kind: str) -> None:
    """Each unit has the type that the signer knows it by."""
    async with signer_with(PAYMENT) as (signer, bodies):
        await sign(signer, unit=unit)
    assert bodies[-1][1]["type"] == kind


@pytest.mark.parametrize(
    "answer",
    [
        b"", b"<html>", b"[]", b"null", b"\xff", b"{" * 100_000, b" " * 300_000, (500, "boom"), (302, ""), (204, ""),
        {}, {**PAYMENT, "payment": None}, {**PAYMENT, "payment": "a\r\nHost: evil"}, {**PAYMENT, "segCreds": ""},
        {**PAYMENT, "payment": "x" * 70_000},
    ],
)  # fmt: skip
async def test_an_answer_without_a_payment_is_an_error(answer: Any) -> None:
    """The message names the signer's host, and never the rest of its address."""
    async with signer_with(answer) as (signer, _):
        with pytest.raises(SignerError) as caught:
            await sign(signer)
    assert "127.0.0.1" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("address", [None, 7, "", "0x12", PAYER + "0", "0x" + "g" * 40])
async def test_a_payer_that_is_no_address_is_an_error(address: Any) -> None:
    """It goes into a header of every request, so it has to be what it says."""
    async with signer_with(PAYMENT, {"address": address}) as (signer, bodies):
        with pytest.raises(SignerError):
            await signer.payer()
    assert len(bodies) == 1


@pytest.mark.parametrize(
    ("status", "flag"), [(480, "wants_new_parameters"), (481, "refuses_price"), (482, "is_nothing_due"), (400, "")]
)
async def test_codes_are_told_apart(status: int, flag: str) -> None:
    """Each code of the protocol says what to do next; any other says nothing but that there is no payment."""
    async with signer_with((status, "why")) as (signer, _):
        with pytest.raises(SignerError, match="why") as caught:
            await sign(signer)
    flags = [
        name for name in ("wants_new_parameters", "refuses_price", "is_nothing_due") if getattr(caught.value, name)
    ]
    assert flags == ([flag] if flag else [])


async def test_nobody_there_is_an_error() -> None:
    """A signer that does not run is told of in plain words."""
    signer = RemoteSigner(f"http://127.0.0.1:{free_port()}")
    await signer.open()
    try:
        with pytest.raises(SignerError, match="cannot be reached"):
            await signer.payer()
    finally:
        await signer.close()
