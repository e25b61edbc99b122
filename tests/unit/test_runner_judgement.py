"""Who is at fault for a live runner's job: what the orchestrator itself answers is told apart from its app."""

from __future__ import annotations

import pytest

from jobtester.domain.attempts import Connection, ConnectionState
from jobtester.domain.attribution import Attribution, AttributionKind
from jobtester.domain.exchanges import Ending, Exchange
from jobtester.domain.reasons import Fault, Finding, Outcome
from jobtester.domain.runner_judgement import judge_runner, needs_connection

PROVEN = Attribution(AttributionKind.PROVEN, ("direct: it went there",))
GO_HEADERS = {"content-type": "text/plain; charset=utf-8", "x-content-type-options": "nosniff"}
REACHABLE = Connection(ConnectionState.REACHABLE, "the tester can connect")
UNREACHABLE = Connection(ConnectionState.UNREACHABLE, "the tester cannot connect")
UNKNOWN = Connection(ConnectionState.UNKNOWN, "the tester cannot connect to anything")


PAYMENT_ERRORS = (
    (403, "missing auth token"),
    (403, "mismatched manifest and auth token"),
    (403, "mismatched session and payment manifest"),
    (409, "session already exists"),
    (409, "fixed-price live runner sessions do not accept follow-up payments"),
)


def answer(status: int, text: str, **headers: str) -> Exchange:
    """Return an answer, from the app unless the headers are the orchestrator's."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Exchange(Ending.ANSWERED, 1.7e9, 10.0, 12.0, status, text.encode(), named)


def own(status: int, text: str) -> Exchange:
    """Return an error as the orchestrator itself writes it."""
    return Exchange(Ending.ANSWERED, 1.7e9, 10.0, 12.0, status, f"{text}\n".encode(), GO_HEADERS)


@pytest.mark.parametrize(
    ("exchange", "code", "outcome"),
    [
        (answer(200, '{"a":1}'), "ok", Outcome.PASSED),
        (answer(201, '{"a":1}'), "ok", Outcome.PASSED),
        (answer(200, " \n"), "check:body", Outcome.FAILED),
        (answer(200, "x", content_encoding="gzip"), "check:body", Outcome.FAILED),
        (own(404, "runner not found"), "app_gone", Outcome.FAILED),
        (own(404, "runner session not found"), "app_gone", Outcome.FAILED),
        (own(404, "live runner proxy not found"), "app_gone", Outcome.FAILED),
        (own(503, "no capacity available for runner"), "busy", Outcome.UNSCORED),
        (own(503, "live runner price unavailable: no feed"), "app_price_unavailable", Outcome.FAILED),
        (own(502, "dial tcp 10.0.0.1:80: connect: connection refused"), "app_down", Outcome.FAILED),
        (own(400, "only persistent runners have sessions"), "tester_fault", Outcome.UNSCORED),
        (own(400, "runner is not single-shot"), "tester_fault", Outcome.UNSCORED),
        *((own(status, text), "signer_fault", Outcome.UNSCORED) for status, text in PAYMENT_ERRORS),
        (answer(403, "missing auth token"), "app_refused", Outcome.UNSCORED),
        (answer(402, '{"payment_params":"eA=="}'), "payment_required", Outcome.UNSCORED),
        (answer(429, "slow down"), "busy", Outcome.UNSCORED),
        # The app's own: the same status, and even the same words.
        (answer(404, "runner not found"), "app_refused", Outcome.UNSCORED),
        (answer(404, "runner not found\n", content_type="text/plain"), "app_refused", Outcome.UNSCORED),
        (own(404, "runner not found here"), "app_refused", Outcome.UNSCORED),
        (own(404, "runner not found\n"), "app_refused", Outcome.UNSCORED),
        (answer(503, "no capacity available for runner"), "app_error", Outcome.FAILED),
        (own(503, "no capacity available for runner 7"), "app_error", Outcome.FAILED),
        (answer(502, "bad gateway"), "app_error", Outcome.FAILED),
        (answer(500, "boom"), "app_error", Outcome.FAILED),
        (answer(422, '{"detail":"x"}'), "app_refused", Outcome.UNSCORED),
        (answer(307, "", location="/apps/x/app/"), "app_refused", Outcome.UNSCORED),
    ],
)
def test_answers(exchange: Exchange, code: str, outcome: Outcome) -> None:
    """Status, whole text and headers decide."""
    verdict = judge_runner(exchange, (), PROVEN)
    assert (verdict.code, verdict.outcome) == (code, outcome)
    assert not needs_connection(exchange)


@pytest.mark.parametrize(
    ("ending", "connection", "code"),
    [
        (Ending.REFUSED, UNREACHABLE, "unreachable"),
        (Ending.REFUSED, REACHABLE, "unclear"),
        (Ending.REFUSED, UNKNOWN, "unclear"),
        (Ending.TIMEOUT, REACHABLE, "timeout"),
        (Ending.TIMEOUT, UNREACHABLE, "timeout"),
        (Ending.TIMEOUT, UNKNOWN, "unclear"),
        (Ending.NO_REPLY, REACHABLE, "app_cut_short"),
        (Ending.CUT_SHORT, UNREACHABLE, "app_cut_short"),
        (Ending.CUT_SHORT, UNKNOWN, "unclear"),
        (Ending.CUT_SHORT, None, "unclear"),
    ],
)
def test_without_an_answer_the_testers_own_line_decides(
    ending: Ending, connection: Connection | None, code: str
) -> None:
    """Only where the tester reaches others is silence held against an orchestrator."""
    exchange = Exchange(ending, 1.7e9, 10.0, 12.0, detail="as it was")
    assert needs_connection(exchange)
    assert judge_runner(exchange, (), PROVEN, connection).code == code


def test_endings_that_need_no_connection() -> None:
    """The tester's own stop, and an answer that is too large."""
    for ending, code in ((Ending.ABORTED, "shutdown"), (Ending.TOO_LARGE, "too_large")):
        exchange = Exchange(ending, 1.7e9, 10.0, 12.0)
        assert not needs_connection(exchange)
        assert judge_runner(exchange, (), PROVEN).code == code


def test_a_job_that_was_sent_on_scores_nobody() -> None:
    """Whatever the answer was."""
    refuted = Attribution(AttributionKind.REFUTED, ("direct: it was sent on to https://other.example",))
    for exchange in (answer(200, "{}"), answer(307, ""), own(502, "x")):
        verdict = judge_runner(exchange, (), refuted)
        assert verdict.code == "refuted"
        assert "other.example" in verdict.message


def test_findings_decide_on_an_answer() -> None:
    """A check's problem is the app's, unless it is the tester's network or limits."""
    exchange = answer(200, "{}")
    for finding, code in (
        (Finding("chat", "word", "no 42"), "check:chat"),
        (Finding("body", "bad_json", "no JSON"), "bad_json"),
        (Finding("image", "status", "404", Fault.GATEWAY), "check:image"),
        (Finding("image", "unanswered", "no file", Fault.GATEWAY), "tester_fault"),
        (Finding("image", "limit", "too deep", Fault.TESTER), "tester_fault"),
    ):
        assert judge_runner(exchange, (Finding("json"), finding), PROVEN).code == code


@pytest.mark.parametrize(
    ("exchange", "connection", "code"),
    [
        (answer(200, '{"a":1}'), None, "ok"),
        (own(404, "runner not found"), None, "unlisted"),
        (own(502, "dial tcp"), None, "unlisted"),
        (Exchange(Ending.REFUSED, 1.7e9, 10.0, 12.0), UNREACHABLE, "unlisted"),
        (own(503, "no capacity available for runner"), None, "busy"),
        (answer(404, "404 page not found"), None, "app_refused"),
    ],
)
def test_what_only_a_directory_lists_is_never_failed(
    exchange: Exchange, connection: Connection | None, code: str
) -> None:
    """A pass counts; a failure may be the directory's."""
    verdict = judge_runner(exchange, (), PROVEN, connection, is_listed_elsewhere=True)
    assert verdict.code == code


@pytest.mark.parametrize(
    ("exchange", "is_in_session", "code"),
    [
        (answer(409, '{"error": "runner already has an active session"}'), True, "session_conflict"),
        (answer(409, '{"error": "runner already has an active session"}'), False, "app_refused"),
        (answer(409, '{"error": "something else"}'), True, "app_refused"),
        (answer(400, "runner already has an active session"), True, "app_refused"),
        (own(404, "runner session not found"), True, "app_gone"),
        (answer(404, "runner session not found"), True, "app_refused"),
    ],
)
def test_answers_in_a_session(exchange: Exchange, is_in_session: bool, code: str) -> None:
    """An app without room for the session that its orchestrator has just reserved is at fault; the text decides."""
    assert judge_runner(exchange, (), PROVEN, is_in_session=is_in_session).code == code
