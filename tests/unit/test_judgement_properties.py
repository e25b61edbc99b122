"""Nobody is scored on a guess: whatever comes back, a failure has a fact behind it that names the orchestrator.

The facts are written down here a second time, from what gateways do, and not taken from the judge.
"""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import example, given, settings
from hypothesis import strategies as st

from jobtester.domain.attribution import Attribution, AttributionKind
from jobtester.domain.exchanges import Ending, Exchange
from jobtester.domain.judgement import judge
from jobtester.domain.reasons import Fault, Finding, Outcome, find_reason

UNAVAILABLE = b'{"error":{"message":"Service Unavailable Error"}}\n'
RUNNERS = b'{"error":{"message":": Prompt must be provided."}}\n'
BODIES = (
    b"", b" \n", b"null\n", b"{}", b'{"images":[]}\n', b"<html><body>502 Bad Gateway</body></html>", b"\x1f\x8b\x08",
    UNAVAILABLE, RUNNERS, b'{"error":{"message":"missing required fields"}}\n',
    b'{"error":{"message":"Internal Server Error"}}\n',
    b'{"message":": no route"}', b"upstream connect error", b"404 page not found\n", b"Method not allowed\n",
    b"No orchestrators found for capability x\n", b"Insufficient balance for request\n",
    b"Unable to parse job request, err=x\n",
    b'{"detail":"no such model"}\n\n', b"too many requests\n\n", b"busy\n",
)  # fmt: skip
CAUSES = {
    "insufficient capacity": "busy",
    "OrchestratorCapped": "busy",
    "max price exceeded: price 9": "price",
    "no orchestrators available within 2s timeout": "",  # written whenever the tries run out, for whatever reason
    "text-to-image container returned 500: Out of memory error.": "",
    "": "",
}

exchanges = st.builds(
    Exchange,
    ending=st.sampled_from(Ending),
    started_at=st.just(1.7e9),
    sent_monotonic=st.just(10.0),
    ended_monotonic=st.floats(10.0, 100.0),
    status=st.sampled_from(
        [None, 200, 200, 200, 201, 202, 204, 301, 400, 401, 403, 404, 405, 410, 413, 422, 429, 500, 502, 503, 504]
    ),
    body=st.sampled_from(BODIES),
    headers=st.fixed_dictionaries(
        {},
        optional={
            "content-type": st.sampled_from(["application/json", "text/html", "text/plain; charset=utf-8", ""]),
            "x-orchestrator-url": st.sampled_from(["https://a:1", ""]),
            "content-encoding": st.sampled_from(["gzip", "identity", ""]),
        },
    ),
    detail=st.sampled_from(["", "as it was"]),
)  # fmt: skip
finding_lists = st.lists(
    st.builds(
        Finding,
        check=st.sampled_from(["image", "body", "chat"]),
        problem=st.sampled_from(["", "", "size", "bad_json", "too_large", "unreachable", "unchecked"]),
        message=st.sampled_from(["", "256×256 instead of 512×512"]),
        fault=st.sampled_from(Fault),
    ),
    max_size=3,
)
attributions = st.builds(Attribution, st.sampled_from(AttributionKind), st.sampled_from([(), ("a line",)]))


def fact(exchange: Exchange, findings: Sequence[Finding], *, byoc: bool, proof: bool = False) -> str:
    """Return the fact for which an orchestrator may be failed, empty where there is none."""
    body, status = exchange.body, exchange.status
    answered = exchange.ending is Ending.ANSWERED
    if exchange.ending is Ending.TIMEOUT and (status == 200 or (status is None and not byoc)):
        return "it took too long"
    if exchange.ending is Ending.TOO_LARGE and status in (None, 200):
        return "it answers without end"
    if exchange.ending is Ending.NO_REPLY and status is None and not byoc:
        return "every try failed quickly"
    if status is not None and exchange.ending not in (Ending.ABORTED, Ending.REFUSED, Ending.CUT_SHORT):
        refusal = fact_of_status(body, status, byoc=byoc)
        if refusal:
            return refusal
    if not answered or status != 200 or exchange.headers.get("content-encoding") == "gzip":
        return ""
    return fact_of_body(exchange, findings, byoc=byoc, proof=proof)


def fact_of_status(body: bytes, status: int, *, byoc: bool) -> str:
    """Return the fact that a status other than 200 stands for."""
    if status == 503 and not byoc and body.startswith(b'{"error":{"message":'):
        return "every try failed"
    if status == 400 and not byoc and body.startswith(b'{"error":{"message":": '):
        return "the runner refused"
    if 400 <= status < 500 and status != 429 and byoc and body.endswith(b"\n\n"):
        return "the worker refused"
    if status in (400, 422) and byoc and body.lstrip().startswith((b"{", b"[")):
        return "the worker refused in JSON"
    return ""


def fact_of_body(exchange: Exchange, findings: Sequence[Finding], *, byoc: bool, proof: bool) -> str:
    """Return the fact that a whole answer stands for."""
    body = exchange.body
    if body.strip() == b"null":
        return "null"
    if not body.strip():
        named = "x-orchestrator-url" in exchange.headers
        return "empty" if byoc and (named or proof) else ""
    wrong = next((finding for finding in findings if finding.problem), None)
    if wrong is not None and byoc and wrong.fault is Fault.GATEWAY:
        return "the link is dead"
    if wrong is not None and wrong.fault is Fault.ORCHESTRATOR and (byoc or not body.startswith(b"<")):
        return "the answer is wrong"
    return ""


@settings(max_examples=2000, deadline=None)
@given(
    exchange=exchanges, findings=finding_lists, attribution=attributions, byoc=st.booleans(),
    cause=st.sampled_from(sorted(CAUSES)), gateway_alive=st.sampled_from([True, True, True, False]),
    followed=st.sampled_from([True, True, True, False]),
)  # fmt: skip
@example(
    exchange=Exchange(Ending.ANSWERED, 1.7e9, 1, 2, 503, b"upstream connect error"), findings=[],
    attribution=Attribution(AttributionKind.PROVEN), byoc=True, cause="", gateway_alive=True, followed=True,
)  # fmt: skip
@example(
    exchange=Exchange(Ending.ANSWERED, 1.7e9, 1, 2, 400, b"<html>"), findings=[],
    attribution=Attribution(AttributionKind.PROVEN), byoc=False, cause="", gateway_alive=True, followed=True,
)  # fmt: skip
def test_every_score_has_a_fact_behind_it(
    exchange: Exchange, findings: list[Finding], attribution: Attribution, byoc: bool, cause: str, gateway_alive: bool,
    followed: bool,
) -> None:  # fmt: skip
    """Scored only where it is known who served; failed only for a fact; passed only if nothing at all is wrong."""
    verdict = judge(
        exchange, findings, attribution, byoc=byoc, cause=cause, gateway_alive=gateway_alive, gateway_followed=followed
    )
    proof = attribution.kind is AttributionKind.PROVEN and bool(cause)
    row = find_reason(verdict.code)
    assert verdict.outcome is row.outcome
    assert verdict.message
    if verdict.scored:
        assert attribution.kind in (AttributionKind.PROVEN, AttributionKind.PRESUMED)
        assert followed
        assert gateway_alive
        assert exchange.ending not in (Ending.ABORTED, Ending.REFUSED, Ending.CUT_SHORT)
    if verdict.outcome is Outcome.FAILED:
        assert row.fault is Fault.ORCHESTRATOR
        assert fact(exchange, findings, byoc=byoc, proof=proof)
        if verdict.code in ("503", "no_reply", "null", "byoc_empty"):
            assert not CAUSES[cause], "the gateway knows better"
    elif verdict.outcome is Outcome.PASSED:
        assert row.fault is Fault.NOBODY
        assert (exchange.ending, exchange.status) == (Ending.ANSWERED, 200)
        assert exchange.body.strip() not in (b"", b"null")
        assert all(finding.passed for finding in findings)
        assert not fact(exchange, findings, byoc=byoc, proof=proof)
    elif followed and gateway_alive and attribution.is_scorable and not CAUSES[cause]:
        assert not fact(exchange, findings, byoc=byoc, proof=proof), f"{verdict.code} hides a failure"


@given(exchange=exchanges, findings=finding_lists, cause=st.sampled_from(sorted(CAUSES)), byoc=st.booleans())
def test_knowing_less_never_makes_a_score(exchange: Exchange, findings: list[Finding], cause: str, byoc: bool) -> None:
    """What is unscored although it is proven who served is unscored whatever else is not known."""
    proven = judge(exchange, findings, Attribution(AttributionKind.PROVEN), byoc=byoc, cause=cause)
    for kind in AttributionKind:
        for alive in (True, False):
            for followed in (True, False):
                other = judge(
                    exchange,
                    findings,
                    Attribution(kind),
                    byoc=byoc,
                    cause=cause,
                    gateway_alive=alive,
                    gateway_followed=followed,
                )
                assert not other.scored or other == proven
