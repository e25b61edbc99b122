"""HTTP: bodies are read up to a bound, and signatures are those that the Leaderboard expects."""

from __future__ import annotations

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer

from jobtester.http import BodyTooLargeError, is_signature_valid, read_bounded, sign_body


@pytest.mark.parametrize("is_chunked", [True, False])
async def test_a_body_is_read_up_to_its_bound_whether_its_length_is_announced_or_not(is_chunked: bool) -> None:
    """The bytes are counted, not what the sender claims."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        if not is_chunked:
            response.content_length = 100
        await response.prepare(request)
        for _ in range(10):
            await response.write(b"x" * 10)
        return response

    app = web.Application()
    app.router.add_get("/", answer)
    async with TestServer(app) as server, ClientSession() as session:
        async with session.get(server.make_url("/")) as response:
            assert await read_bounded(response.content, 100) == b"x" * 100
        async with session.get(server.make_url("/")) as response:
            with pytest.raises(BodyTooLargeError, match="larger than 99 bytes"):
                await read_bounded(response.content, 99)


def test_a_signature_is_bare_hexadecimal_hmac_sha256() -> None:
    """The vector is RFC 4231's second test case."""
    signature = sign_body("Jefe", b"what do ya want for nothing?")
    assert signature == "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"


@pytest.mark.parametrize("signature", ["", "\udc80", "ü", "0" * 64])
def test_only_the_right_signature_is_valid(signature: str) -> None:
    """Whatever a header may hold, it is compared and not an error."""
    assert is_signature_valid("secret", b"body", sign_body("secret", b"body"))
    assert not is_signature_valid("secret", b"body", signature)
    assert not is_signature_valid("other", b"body", sign_body("secret", b"body"))
