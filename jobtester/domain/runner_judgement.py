"""Judge a job that an orchestrator's live runner served itself, without a gateway and without any I/O."""

from __future__ import annotations

from collections.abc import Iterable

from jobtester.domain.attempts import Connection, ConnectionState
from jobtester.domain.attribution import Attribution, AttributionKind
from jobtester.domain.exchanges import Ending, Exchange
from jobtester.domain.reasons import Fault, Finding, Outcome, Verdict

_BLANK_BYTES = b" \t\r\n\v\f\0\xef\xbb\xbf"
# What an orchestrator itself answers, by status: the whole text, and the reason code that it stands for. An app may
# answer the same status for reasons of its own.
_OWN_ERRORS: dict[tuple[int, str], str] = {
    (404, "runner not found"): "app_gone",
    (404, "runner session not found"): "app_gone",
    (404, "live runner proxy not found"): "app_gone",
    (400, "only persistent runners have sessions"): "tester_fault",
    (400, "runner is not single-shot"): "tester_fault",
    (503, "no capacity available for runner"): "busy",
    (403, "missing auth token"): "signer_fault",
    (403, "mismatched manifest and auth token"): "signer_fault",
    (403, "mismatched session and payment manifest"): "signer_fault",
    (409, "session already exists"): "signer_fault",
    (409, "fixed-price live runner sessions do not accept follow-up payments"): "signer_fault",
}
_SESSION_CONFLICT = b"runner already has an active session"  # an app's, after the orchestrator has reserved it
_MAX_SEARCHED = 4_096
_PRICE_ERROR = "live runner price unavailable: "
_PLAIN_TEXT = "text/plain; charset=utf-8"


def needs_connection(exchange: Exchange) -> bool:
    """Return True if only a connection of the tester's own tells whose fault the exchange's ending is."""
    return exchange.ending in (Ending.REFUSED, Ending.TIMEOUT, Ending.NO_REPLY, Ending.CUT_SHORT)


def judge_runner(
    exchange: Exchange,
    findings: Iterable[Finding],
    attribution: Attribution,
    connection: Connection | None = None,
    *,
    is_listed_elsewhere: bool = False,
    is_in_session: bool = False,
) -> Verdict:
    """Return the verdict on a job of a live runner. The same arguments always give the same verdict.

    Args:
        exchange: what came back from the orchestrator.
        findings: results of the checks, in their order; the first problem decides.
        attribution: refuted where the orchestrator sent the job on to another host.
        connection: what the tester's own connection to the service URI showed, where needs_connection().
        is_listed_elsewhere: only a directory says that the orchestrator serves the app. It may be out of date, so no
            failure is held against the orchestrator.
        is_in_session: whether the orchestrator had reserved a session of the app for the request.
    """
    verdict = _judge_answer(exchange, findings, attribution, connection, is_in_session=is_in_session)
    return excuse_unlisted(verdict) if is_listed_elsewhere else verdict


def excuse_unlisted(verdict: Verdict) -> Verdict:
    """Return the verdict on an app that only a directory lists: a failure is not held against the orchestrator."""
    if verdict.outcome is not Outcome.FAILED:
        return verdict
    return Verdict.from_code("unlisted", f"{verdict.code}: {verdict.message}")


def _judge_answer(
    exchange: Exchange,
    findings: Iterable[Finding],
    attribution: Attribution,
    connection: Connection | None,
    *,
    is_in_session: bool,
) -> Verdict:
    if exchange.ending is Ending.ABORTED:
        return Verdict.from_code("shutdown")
    if attribution.kind is AttributionKind.REFUTED:
        return Verdict.from_code("refuted", attribution.evidence[-1] if attribution.evidence else "")
    if exchange.ending is Ending.TOO_LARGE:
        return Verdict.from_code("too_large", exchange.detail)
    if exchange.ending is not Ending.ANSWERED or exchange.status is None:
        return _judge_lost(exchange, connection)
    if not 200 <= exchange.status < 300:
        return _judge_status(exchange, exchange.status, is_in_session=is_in_session)
    coding = exchange.headers.get("content-encoding", "").strip().lower()
    if coding not in ("", "identity"):
        return Verdict.from_code(
            "check:body", f"The answer comes as {coding[:20]}, although it was asked for as it is."
        )
    if not exchange.body.strip(_BLANK_BYTES):
        return Verdict.from_code("check:body", "The app's answer is empty.")
    return _judge_findings(findings)


def is_from_orchestrator(exchange: Exchange) -> bool:
    """Return True if an error has the form in which the orchestrator itself writes one, and not its app.

    Go writes its errors as plain text that ends with one line feed, and forbids browsers to guess another type.
    """
    return (
        exchange.headers.get("content-type", "").lower() == _PLAIN_TEXT
        and exchange.headers.get("x-content-type-options", "").lower() == "nosniff"
        and exchange.body.endswith(b"\n")
    )


def _judge_lost(exchange: Exchange, connection: Connection | None) -> Verdict:
    line = connection.summary if connection is not None else "the tester did not try to connect once more"
    message = f"{exchange.detail}; {line}"
    state = connection.state if connection is not None else ConnectionState.UNKNOWN
    if state is ConnectionState.UNKNOWN:  # the tester's own network may be at fault
        return Verdict.from_code("unclear", message)
    if exchange.ending is Ending.REFUSED:
        # A connection that failed and then succeeded was perhaps lost on the way: the job runs once more.
        is_unreachable = state is ConnectionState.UNREACHABLE
        return Verdict.from_code("unreachable" if is_unreachable else "unclear", message)
    return Verdict.from_code("timeout" if exchange.ending is Ending.TIMEOUT else "app_cut_short", message)


def _judge_status(exchange: Exchange, status: int, *, is_in_session: bool) -> Verdict:
    text = exchange.body[:800].decode("utf-8", "replace").strip()[:200]
    message = f"{status} {text}".strip()
    if is_from_orchestrator(exchange):
        # The whole body and not its excerpt: an app may go on where the orchestrator's text ends.
        own_text = exchange.body.removesuffix(b"\n").decode("utf-8", "replace")
        if code := _OWN_ERRORS.get((status, own_text)):
            return Verdict.from_code(code, f"The orchestrator answered {message}")
        if status == 503 and own_text.startswith(_PRICE_ERROR):
            return Verdict.from_code("app_price_unavailable", f"The orchestrator answered {message}")
        if status == 502:
            return Verdict.from_code("app_down", f"The orchestrator answered {message}")
    if status == 409 and is_in_session and _SESSION_CONFLICT in exchange.body[:_MAX_SEARCHED]:
        return Verdict.from_code("session_conflict", f"The app answered {message}")
    if status == 402:
        return Verdict.from_code("payment_required")
    if status == 429:
        return Verdict.from_code("busy", f"The app has too much to do: {message}")
    if status >= 500:
        return Verdict.from_code("app_error", f"The app answered {message}")
    return Verdict.from_code("app_refused", f"The app answered {message}")


def _judge_findings(findings: Iterable[Finding]) -> Verdict:
    for finding in findings:
        if finding.passed:
            continue
        if finding.problem == "unanswered":
            return Verdict.from_code(
                "tester_fault", f"{finding.message}; the fault may be in the tester's own network."
            )
        if finding.fault not in (Fault.ORCHESTRATOR, Fault.GATEWAY):  # no gateway: the app itself keeps its files
            return Verdict.from_code("tester_fault", finding.message)
        code = finding.problem if finding.problem in ("bad_json", "too_large") else f"check:{finding.check}"
        return Verdict.from_code(code, finding.message)
    return Verdict.from_code("ok")
