"""Who is at fault decides failed or unscored; a 2xx alone is never a pass."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from jobtester.domain.attribution import Attribution, AttributionKind
from jobtester.domain.exchanges import Ending, Exchange
from jobtester.domain.judgement import judge
from jobtester.domain.reasons import Fault, Finding, Outcome, all_reasons, find_reason

PRESUMED = Attribution(AttributionKind.PRESUMED)
UNAVAILABLE = b'{"error":{"message":"Service Unavailable Error"}}\n'


def answered_exchange(status: int, body: bytes, content_type: str = "application/json", **headers: str) -> Exchange:
    """Return an exchange that was answered after two seconds."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Exchange(Ending.ANSWERED, 1.7e9, 10.0, 12.0, status, body, {"content-type": content_type, **named})


def failed_exchange(ending: Ending) -> Exchange:
    """Return an exchange that ended without an answer."""
    return Exchange(ending, 1.7e9, 10.0, 12.0, detail="as it was")


BATCH: list[tuple[Exchange, str, Outcome]] = [
    (answered_exchange(200, b'{"images":[]}'), "ok", Outcome.PASSED),
    (answered_exchange(200, b""), "empty", Outcome.UNSCORED),
    (answered_exchange(200, b" \n"), "empty", Outcome.UNSCORED),
    (answered_exchange(200, b"null\n"), "null", Outcome.FAILED),
    (answered_exchange(200, b"<html>login</html>", "text/html"), "gateway_fault", Outcome.UNSCORED),
    (answered_exchange(503, b'{"error":{"message":"Service Unavailable Error"}}'), "503", Outcome.FAILED),
    (answered_exchange(503, b"<html>", "text/html"), "gateway_fault", Outcome.UNSCORED),
    (answered_exchange(503, b"upstream connect error", "text/plain"), "gateway_fault", Outcome.UNSCORED),
    (answered_exchange(503, b'{"message":"no Route matched with those values"}'), "gateway_fault", Outcome.UNSCORED),
    (answered_exchange(400, b"<html>", "text/html"), "gateway_fault", Outcome.UNSCORED),
    (answered_exchange(400, b'{"message":": as if it were the runner"}'), "gateway_fault", Outcome.UNSCORED),
    (answered_exchange(200, b"\x1f\x8b\x08", content_encoding="gzip"), "gateway_fault", Outcome.UNSCORED),
    (answered_exchange(202, b'{"id":1}'), "202", Outcome.UNSCORED),
    (replace(failed_exchange(Ending.TOO_LARGE), status=502), "502", Outcome.UNSCORED),
    (replace(failed_exchange(Ending.TIMEOUT), status=404), "404", Outcome.UNSCORED),
    (answered_exchange(500, b'{"error":{"message":"Internal Server Error"}}'), "500", Outcome.UNSCORED),
    (answered_exchange(400, b'{"error":{"message":": Prompt must be provided."}}'), "400", Outcome.FAILED),
    (answered_exchange(400, b'{"error":{"message":"missing required fields"}}'), "tester_fault", Outcome.UNSCORED),
    (answered_exchange(410, b'{"error":{"message":"gone"}}'), "retired", Outcome.UNSCORED),
    (answered_exchange(404, b"404 page not found", "text/plain"), "404", Outcome.UNSCORED),
    (answered_exchange(502, b"<html>", "text/html"), "502", Outcome.UNSCORED),
    (failed_exchange(Ending.TIMEOUT), "timeout", Outcome.FAILED),
    (failed_exchange(Ending.NO_REPLY), "no_reply", Outcome.FAILED),
    (failed_exchange(Ending.TOO_LARGE), "too_large", Outcome.FAILED),
    (failed_exchange(Ending.CUT_SHORT), "gateway_fault", Outcome.UNSCORED),
    (failed_exchange(Ending.REFUSED), "refused", Outcome.UNSCORED),
    (failed_exchange(Ending.ABORTED), "shutdown", Outcome.UNSCORED),
]


@pytest.mark.parametrize(("exchange", "code", "expected"), BATCH, ids=[row[1] for row in BATCH])
def test_batch_answers_are_judged_by_whose_fault_they_are(exchange: Exchange, code: str, expected: Outcome) -> None:
    """The buckets of docs/outcomes.md."""
    verdict = judge(exchange, (), PRESUMED)
    assert (verdict.code, verdict.outcome) == (code, expected)
    assert verdict.message


BYOC: list[tuple[Exchange, str, Outcome]] = [
    (answered_exchange(200, b'{"choices":[]}', x_orchestrator_url="https://a"), "ok", Outcome.PASSED),
    (answered_exchange(200, b""), "byoc_unclear", Outcome.UNSCORED),
    (
        answered_exchange(400, b"Unable to find orchestrators for capability x err=context deadline exceeded\n"),
        "gateway_fault",
        Outcome.UNSCORED,
    ),
    (answered_exchange(400, b'{"error":{"message":"bad field"}}\n'), "worker_4xx", Outcome.FAILED),
    (
        answered_exchange(422, b'{"detail":[{"msg":"missing"}]}', "text/plain; charset=utf-8"),
        "worker_4xx",
        Outcome.FAILED,
    ),
    (
        answered_exchange(400, b'{"message":"Request header too large"}', "application/json"),
        "gateway_fault",
        Outcome.UNSCORED,
    ),
    (answered_exchange(422, b'{"message":"no"}', "application/json; charset=utf-8"), "422", Outcome.UNSCORED),
    (answered_exchange(200, b"\xef\xbb\xbfnull\n", x_orchestrator_url="https://a"), "null", Outcome.FAILED),
    (answered_exchange(200, b"\0null\0", x_orchestrator_url="https://a"), "null", Outcome.FAILED),
    (answered_exchange(200, b"\xef\xbb\xbf\0 ", x_orchestrator_url="https://a"), "check:body", Outcome.FAILED),
    (answered_exchange(200, b"", x_orchestrator_url="https://a"), "check:body", Outcome.FAILED),
    (answered_exchange(400, b"No orchestrators found for capability x\n"), "capacity_unknown", Outcome.UNSCORED),
    (answered_exchange(400, b"Unable to parse job request, err=x\n"), "tester_fault", Outcome.UNSCORED),
    (answered_exchange(400, b"Insufficient balance for request\n"), "gateway_fault", Outcome.UNSCORED),
    (answered_exchange(422, b'{"detail":"no"}\n\n'), "worker_4xx", Outcome.FAILED),
    (answered_exchange(404, b'{"error":{"message":"The model does not exist."}}\n\n'), "worker_4xx", Outcome.FAILED),
    (answered_exchange(429, b"slow down\n\n"), "busy", Outcome.UNSCORED),
    (answered_exchange(429, b"rate limited\n"), "429", Outcome.UNSCORED),
    (answered_exchange(400, b"Some other refusal of the gateway\n"), "gateway_fault", Outcome.UNSCORED),
    (answered_exchange(400, b"<html>", "text/html"), "gateway_fault", Outcome.UNSCORED),
    (answered_exchange(401, b'{"message":"no token"}'), "401", Outcome.UNSCORED),
    (answered_exchange(503, b"upstream connect error"), "gateway_fault", Outcome.UNSCORED),
    (failed_exchange(Ending.NO_REPLY), "gateway_fault", Outcome.UNSCORED),
    (failed_exchange(Ending.TIMEOUT), "gateway_fault", Outcome.UNSCORED),
    (replace(failed_exchange(Ending.TIMEOUT), status=200), "timeout", Outcome.FAILED),
    (answered_exchange(404, b"404 page not found\n", "text/plain"), "gateway_fault", Outcome.UNSCORED),
    (answered_exchange(500, b"boom"), "500", Outcome.UNSCORED),
]

# What a gateway, an orchestrator and a worker write for a job of an external capability. The gateway's own texts end
# with one line feed; what is passed on from an orchestrator or a worker ends with two.
_PARSE = b"Unable to parse job request, err="
BYOC_TEXTS: dict[str, tuple[int, bytes, str, Outcome]] = {
    "not POST": (405, b"Method not allowed\n", "gateway_fault", Outcome.UNSCORED),
    "no header": (400, _PARSE + b"unexpected end of JSON input\n", "tester_fault", Outcome.UNSCORED),
    "bad base64": (400, _PARSE + b"ErrorSegEncoding\n", "tester_fault", Outcome.UNSCORED),
    "no time limit": (
        400,
        _PARSE + b"no timeout_seconds set with request, timeout_seconds is required\n",
        "tester_fault",
        Outcome.UNSCORED,
    ),
    "no request": (
        400,
        b"Unable to unmarshal job request err=unexpected end of JSON input\n",
        "tester_fault",
        Outcome.UNSCORED,
    ),
    "no parameters": (
        400,
        b"Unable to unmarshal job parameters err=unexpected end of JSON input\n",
        "tester_fault",
        Outcome.UNSCORED,
    ),
    "nobody": (400, b"No orchestrators found for capability X\n", "capacity_unknown", Outcome.UNSCORED),
    "too slow to find anybody": (
        400,
        b"Unable to find orchestrators for capability X err=context deadline exceeded\n",
        "gateway_fault",
        Outcome.UNSCORED,
    ),
    "no balance": (400, b"Insufficient balance for request\n", "gateway_fault", Outcome.UNSCORED),
    "no balance, passed on": (400, b"Insufficient balance for request\n\n", "gateway_fault", Outcome.UNSCORED),
    "bad credentials": (400, b"Could not verify job creds\n\n", "gateway_fault", Outcome.UNSCORED),
    "no price": (400, b"Could not get job price\n\n", "gateway_fault", Outcome.UNSCORED),
    "a worker's text": (400, b"prompt is too long\n\n", "worker_4xx", Outcome.FAILED),
    "a worker's text like the gateway's": (400, b"Unable to load the model\n\n", "worker_4xx", Outcome.FAILED),
    "a worker's JSON": (400, b'{"error":"no"}\n\n', "worker_4xx", Outcome.FAILED),
    "a worker that forbids": (403, b"not for you\n\n", "worker_4xx", Outcome.FAILED),
    "a worker without the path": (404, b"404 page not found\n\n\n", "worker_4xx", Outcome.FAILED),
    "a worker without the method": (405, b"Method Not Allowed\n\n", "worker_4xx", Outcome.FAILED),
    "a worker's Go without the method": (405, b"Method not allowed\n\n\n", "worker_4xx", Outcome.FAILED),
    "a worker's too large": (413, b'{"detail":"too large"}\n\n', "worker_4xx", Outcome.FAILED),
    "a worker's type": (415, b"Unsupported Media Type\n\n", "worker_4xx", Outcome.FAILED),
    "a worker that is gone": (410, b"gone\n\n", "worker_4xx", Outcome.FAILED),
    "a worker with much to do": (429, b"slow down\n\n", "busy", Outcome.UNSCORED),
    "reading failed": (500, b"Error reading response\n", "500", Outcome.UNSCORED),
    "reading failed, more follows": (500, b'Error reading response\n{"choices":[]}', "500", Outcome.UNSCORED),
    "every orchestrator failed": (200, b"", "byoc_unclear", Outcome.UNSCORED),
}


@pytest.mark.parametrize("name", BYOC_TEXTS)
def test_every_text_of_an_external_capability_has_its_outcome(name: str) -> None:
    """Refusals of the gateway and of payment are held against nobody; a worker's refusal of good input is its own."""
    status, body, code, expected = BYOC_TEXTS[name]
    verdict = judge(answered_exchange(status, body, "text/plain; charset=utf-8"), (), PRESUMED, byoc=True)
    assert (verdict.code, verdict.outcome) == (code, expected)


@pytest.mark.parametrize(("exchange", "code", "expected"), BYOC, ids=[row[1] for row in BYOC])
def test_byoc_answers_have_their_own_meaning(exchange: Exchange, code: str, expected: Outcome) -> None:
    """200 with nothing in it is the worker's failure; `No orchestrators found` says nothing for certain."""
    verdict = judge(exchange, (), PRESUMED, byoc=True)
    assert (verdict.code, verdict.outcome) == (code, expected)


@pytest.mark.parametrize(
    ("cause", "kind", "code"),
    [
        ("worker returned 500", AttributionKind.PROVEN, "byoc_empty"),
        ("worker returned 500", AttributionKind.PRESUMED, "byoc_unclear"),
        ("insufficient balance", AttributionKind.PROVEN, "byoc_unclear"),
        ("could not sign ticket", AttributionKind.PROVEN, "byoc_unclear"),
        ("failed to get token from orchestrator", AttributionKind.PROVEN, "byoc_unclear"),
        ("ticketparams expired", AttributionKind.PROVEN, "byoc_unclear"),
        ("signature does not match", AttributionKind.PROVEN, "byoc_unclear"),
        ("reserve is too low", AttributionKind.PROVEN, "byoc_unclear"),
        ("worker: tokenizer not found", AttributionKind.PROVEN, "byoc_empty"),
        ("worker: max_tokens is too large", AttributionKind.PROVEN, "byoc_empty"),
        ("worker: Unexpected token < in JSON", AttributionKind.PROVEN, "byoc_empty"),
        ("worker: signal: killed", AttributionKind.PROVEN, "byoc_empty"),
        ("CUDA out of memory: 20 GiB reserved in total", AttributionKind.PROVEN, "byoc_empty"),
        ("502 from the load balancer", AttributionKind.PROVEN, "byoc_empty"),
        ("insufficient capacity", AttributionKind.PROVEN, "busy"),
        ("", AttributionKind.PROVEN, "byoc_unclear"),
    ],
)
def test_an_empty_byoc_answer_fails_only_with_proof(cause: str, kind: AttributionKind, code: str) -> None:
    """Signing, payment and a taken slot look the same on the wire, so it takes evidence that names the worker."""
    verdict = judge(answered_exchange(200, b""), (), Attribution(kind), byoc=True, cause=cause)
    assert verdict.code == code


def test_a_dead_link_of_a_byoc_answer_is_the_workers() -> None:
    """The gateway keeps no files of external capabilities."""
    unreachable = Finding("image", "unreachable", "GET answered 404", Fault.GATEWAY)
    answer = answered_exchange(200, b"{}", x_orchestrator_url="https://a")
    assert judge(answer, (unreachable,), PRESUMED, byoc=True).code == "check:image"
    assert judge(answer, (unreachable,), PRESUMED).code == "artifact_unreachable"


def test_a_byoc_link_that_the_tester_cannot_look_up_is_held_against_nobody() -> None:
    """Without a status or a refusal the fault may be in the tester's own network."""
    unreachable = Finding("image", "unanswered", "GET did not end within 30 s", Fault.GATEWAY)
    answer = answered_exchange(200, b"{}", x_orchestrator_url="https://a")
    assert judge(answer, (unreachable,), PRESUMED, byoc=True).code == "tester_fault"
    assert judge(answer, (unreachable,), PRESUMED).code == "artifact_unreachable"


def test_nobody_is_scored_who_did_not_surely_serve() -> None:
    """Refuted and never-asked answers are unscored, whatever they contain."""
    good = answered_exchange(200, b'{"images":[]}')
    for kind, code in ((AttributionKind.REFUTED, "refuted"), (AttributionKind.MISSING, "not_targeted")):
        for exchange in (good, failed_exchange(Ending.TIMEOUT), answered_exchange(503, UNAVAILABLE)):
            verdict = judge(exchange, (), Attribution(kind, ("line",)))
            assert (verdict.code, verdict.outcome) == (code, Outcome.UNSCORED)


def test_a_gateway_problem_is_not_blamed_on_missing_questions() -> None:
    """A 404 involves no orchestrator, so the gateway did not ask; the status is the better reason."""
    assert judge(answered_exchange(404, b"x"), (), Attribution(AttributionKind.MISSING)).code == "404"


def test_a_lost_gateway_fails_nobody() -> None:
    """A connection that broke because the gateway died is unscored."""
    verdict = judge(failed_exchange(Ending.NO_REPLY), (), PRESUMED, gateway_alive=False)
    assert (verdict.code, verdict.outcome) == ("gateway_lost", Outcome.UNSCORED)


@pytest.mark.parametrize(
    ("cause", "code"),
    [("insufficient capacity", "busy"), ("OrchestratorCapped", "busy"), ("price too high", "price"),
     ("no orchestrators available", "503"), ("CUDA out of memory", "503")],
)  # fmt: skip
def test_a_known_cause_explains_what_http_hides(cause: str, code: str) -> None:
    """Busy is not failed; an explained failure keeps its code and says the cause."""
    verdict = judge(answered_exchange(503, UNAVAILABLE), (), PRESUMED, cause=cause)
    assert verdict.code == code
    assert cause in verdict.message


def test_the_cause_is_a_sentence_of_its_own() -> None:
    """Whatever goes before it ends with a full stop, and with one only."""
    for exchange in (
        failed_exchange(Ending.NO_REPLY),
        answered_exchange(503, UNAVAILABLE),
        answered_exchange(200, b"null"),
    ):
        verdict = judge(exchange, (), PRESUMED, cause="it broke")
        assert re.search(r"[^.]\. The gateway says: it broke$", verdict.message), verdict.message


def test_findings_decide_in_their_order_and_by_fault() -> None:
    """The first finding that did not pass decides the reason."""
    good = answered_exchange(200, b"{}")
    passed, image = Finding("json"), Finding("image", "size", "256x256 instead of 512x512")
    assert judge(good, (passed,), PRESUMED).code == "ok"
    assert judge(good, (passed, image), PRESUMED).code == "check:image"
    unreachable = Finding("image", "unreachable", "404", Fault.GATEWAY)
    assert judge(good, (unreachable, image), PRESUMED).code == "artifact_unreachable"
    own = Finding("image", "limit", "too slow to look at", Fault.TESTER)
    assert judge(good, (own,), PRESUMED).code == "tester_fault"
    assert judge(good, (Finding("json", "bad_json", "x"),), PRESUMED).code == "bad_json"


def test_every_row_of_the_table_can_be_looked_up_and_reads_well() -> None:
    """Codes are found, sentences end with a stop, and unknown codes are errors."""
    for row in all_reasons():
        assert row.meaning.endswith(".")
        assert not row.advice or row.advice.endswith(".")
    assert find_reason("check:image").fault is Fault.ORCHESTRATOR
    assert find_reason("418").fault is Fault.GATEWAY
    with pytest.raises(KeyError):
        find_reason("nonsense")


def test_a_path_that_the_gateway_lacks_is_said_to_be_lacking() -> None:
    """Proves that a slip in a pipeline's path is not blamed on a proxy."""
    verdict = judge(answered_exchange(404, b"404 page not found\n", "text/plain"), (), PRESUMED)
    assert verdict.message == "The gateway has no such path: 404 page not found"
    assert "uri" in find_reason(verdict.code).advice
    assert "proxy" not in find_reason(verdict.code).advice
