"""Judgement: from what came back, what the checks found and what is known of who served it to a verdict. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

from jobtester.domain.attempts import AttemptPattern, Attempts, Connection, ConnectionState
from jobtester.domain.attribution import Attribution, AttributionKind
from jobtester.domain.exchanges import Ending, Exchange
from jobtester.domain.reasons import REASONS, Fault, Finding, Verdict, find_reason


def judge(
    exchange: Exchange,
    findings: Iterable[Finding],
    attribution: Attribution,
    *,
    byoc: bool = False,
    cause: str = "",
    gateway_alive: bool = True,
    gateway_followed: bool = True,
    attempts: Attempts | None = None,
    connection: Connection | None = None,
) -> Verdict:
    """Judge a job from what came back, what the checks found and what is known of who served it.

    `cause` is what the gateway's metrics or events say of the failure, where they do: it tells a busy or an unlisted
    orchestrator from a failing one. `gateway_alive` False means that the gateway did not answer even a health request
    when asked just after a lost connection. `followed` False means that it chose the orchestrator by itself.
    `attempts` is how far the gateway came with the job, None where that is not known and does not matter;
    `connection` what the tester found at the service URI, None before it has looked: where that could decide, the
    verdict is `unclear`.
    """
    early = _before_content(exchange, gateway_alive)
    if early is not None:
        return early
    status = exchange.status
    if status is None or exchange.ending is Ending.CUT_SHORT:
        found = _lost(exchange, byoc)
    elif status != 200:
        found = _byoc_status(exchange, status) if byoc else _batch_status(exchange, status)
    elif exchange.ending is not Ending.ANSWERED:
        found = _lost(exchange, byoc)
    else:
        found = _content(exchange, findings, byoc)
    found = _explained(found, cause, proven=attribution.kind is AttributionKind.PROVEN)
    if attempts is not None:
        found = _by_attempts(found, attempts, connection, proven=attribution.kind is AttributionKind.PROVEN)
    if not found.scored:
        return found
    last_line = attribution.evidence[-1] if attribution.evidence else ""
    if not gateway_followed or attribution.kind is AttributionKind.MISSING:
        return Verdict.from_code("not_targeted", last_line)
    if attribution.kind is AttributionKind.REFUTED:
        return Verdict.from_code("refuted", last_line)
    return found


_TRIES_RAN_OUT = ("503", "no_reply", "null")


def _by_attempts(found: Verdict, attempts: Attempts, connection: Connection | None, *, proven: bool) -> Verdict:
    """Hold a failure against an orchestrator only if the job reached it, or nobody can reach it."""
    left_early = found.code == "timeout" and attempts.never_reached
    if proven or not (found.code in _TRIES_RAN_OUT or left_early):
        return found
    state = connection.state if connection is not None else None
    line = connection.summary if connection is not None else ""
    match attempts.pattern:
        case AttemptPattern.NOT_FOLLOWING:
            return Verdict.from_code("not_targeted", attempts.summary)
        case AttemptPattern.BUSY:
            return Verdict.from_code("busy", _sentences(find_reason("busy").meaning, attempts.summary))
        case AttemptPattern.REACHED if state is not ConnectionState.UNREACHABLE:
            return Verdict(found.outcome, found.code, _sentences(found.message, attempts.summary))
        case _ if state is ConnectionState.UNREACHABLE:
            return Verdict.from_code("unreachable", _sentences(line, attempts.summary))
        case AttemptPattern.NOBODY | AttemptPattern.DOWN if state is ConnectionState.REACHABLE:
            return Verdict.from_code("not_selected", _sentences(find_reason("not_selected").meaning, attempts.summary))
    return Verdict.from_code("unclear", _sentences(find_reason("unclear").meaning, attempts.summary, line))


def _sentences(*texts: str) -> str:
    """Return texts as sentences, each with its capital and its full stop."""
    return " ".join(f"{text[:1].upper()}{text[1:].rstrip('.')}." for text in texts if text)


def _before_content(exchange: Exchange, gateway_alive: bool) -> Verdict | None:
    """Judge what needs no look at the answer; None where there is one to look at."""
    ending = exchange.ending
    if ending is Ending.ABORTED:
        return Verdict.from_code("shutdown")
    if ending is Ending.REFUSED:
        return Verdict.from_code("refused", exchange.detail)
    if not gateway_alive:
        return Verdict.from_code("gateway_lost", exchange.detail)
    return None


def _lost(exchange: Exchange, byoc: bool) -> Verdict:
    """Judge an exchange that ended without a whole answer.

    For an external capability the gateway has a limit of its own, below ours, and always answers: silence is its fault.
    """
    match exchange.ending:
        case Ending.TIMEOUT if byoc and exchange.status is None:
            return Verdict.from_code("gateway_fault", f"The gateway did not keep its own time limit: {exchange.detail}")
        case Ending.TIMEOUT:
            return Verdict.from_code("timeout", exchange.detail)
        case Ending.TOO_LARGE:
            return Verdict.from_code("too_large", exchange.detail)
        case Ending.NO_REPLY if not byoc and exchange.status is None:
            return Verdict.from_code("no_reply", exchange.detail)
        case _:
            return Verdict.from_code("gateway_fault", f"There is no whole answer: {exchange.detail}")


def _content(exchange: Exchange, findings: Iterable[Finding], byoc: bool) -> Verdict:
    coding = exchange.headers.get("content-encoding", "").strip().lower()
    if coding not in ("", "identity"):
        return Verdict.from_code(
            "gateway_fault", f"The answer comes as {coding[:20]}, although it was asked for as it is."
        )
    body = exchange.body.strip(_AROUND)
    if not body:
        if byoc and "x-orchestrator-url" not in exchange.headers:
            return Verdict.from_code("byoc_unclear")
        return Verdict.from_code("check:body", "The worker's answer is empty.") if byoc else Verdict.from_code("empty")
    if body == b"null":
        return Verdict.from_code("null")
    if not byoc and body[:1] == b"<":
        return Verdict.from_code("gateway_fault", f"HTML instead of an answer: {_excerpt(exchange)}")
    for finding in findings:
        if finding.passed:
            continue
        if finding.fault is Fault.GATEWAY and not byoc:  # of an external capability the gateway keeps no files
            return Verdict.from_code("artifact_unreachable", finding.message)
        if finding.problem == "unanswered":
            return Verdict.from_code(
                "tester_fault", f"{finding.message}; the fault may be in the tester's own network."
            )
        if finding.fault not in (Fault.ORCHESTRATOR, Fault.GATEWAY):
            return Verdict.from_code("tester_fault", finding.message)
        code = finding.problem if finding.problem in ("bad_json", "too_large") else f"check:{finding.check}"
        return Verdict.from_code(code, finding.message)
    return Verdict.from_code("ok")


def _batch_status(exchange: Exchange, status: int) -> Verdict:
    text = _excerpt(exchange)
    if status == 410:
        return Verdict.from_code("retired")
    if status in (400, 503) and _GATEWAYS_OWN.match(exchange.body) is None:
        return Verdict.from_code("gateway_fault", f"{status} from a proxy: {text}")
    if status == 503:
        return Verdict.from_code("503")
    if status == 400:
        if _RUNNERS_OWN.match(exchange.body):
            return Verdict.from_code("400", f"The runner refused the input: {text}")
        return Verdict.from_code("tester_fault", f"The gateway refused the request: {text}")
    return Verdict.from_code(str(status), f"The gateway answered {status}: {text}")


def _byoc_status(exchange: Exchange, status: int) -> Verdict:
    text = _excerpt(exchange)
    passed_on = exchange.body.endswith(_PASSED_ON)
    if status == 410 and not passed_on:
        return Verdict.from_code("retired")
    if status == 400 and text.startswith("No orchestrators found"):
        return Verdict.from_code("capacity_unknown", text)
    if status == 400 and text.startswith(
        ("Insufficient balance", "Could not verify job creds", "Could not get job price")
    ):
        return Verdict.from_code("gateway_fault", text)
    if status == 400 and text.startswith("Unable to find orchestrators"):
        return Verdict.from_code("gateway_fault", f"The gateway did not find out in time who there is: {text}")
    if status == 400 and text.startswith("Unable to ") and not passed_on:
        return Verdict.from_code("tester_fault", text)
    own = status in (404, 405) and not passed_on
    if own and text.startswith(("404 page not found", "Method not allowed")):
        return Verdict.from_code("gateway_fault", f"The gateway has no BYOC route: {text}")
    # Go passes a worker's refusal on as plain text that ends with a line feed; what a proxy writes is typed as JSON.
    typed = exchange.headers.get("content-type", "").lower().startswith("application/json")
    plain = exchange.body.endswith(b"\n") or not typed
    refused = status in (400, 422) and plain and exchange.body.lstrip().startswith((b"{", b"["))
    if 400 <= status < 500 and (refused or passed_on):
        if status == 429:
            return Verdict.from_code("busy", f"The worker has too much to do: {text}")
        return Verdict.from_code("worker_4xx", f"The worker answered {status}: {text}")
    if str(status) in REASONS:  # those rows are about batch pipelines
        return Verdict.from_code("gateway_fault", f"{status} is no answer of the gateway's: {text}")
    return Verdict.from_code(str(status), f"The gateway answered {status}: {text}")


_CAUSES: tuple[tuple[str, str], ...] = (
    ("insufficient capacity", "busy"),
    ("no capacity", "busy"),
    ("orchestratorcapped", "busy"),
    ("orchestratorbusy", "busy"),
    ("price", "price"),
)


# Whole words: workers speak of tokenizers, of max_tokens, of memory that is reserved and of signals that killed them.
_PAYMENT = re.compile(
    r"(?<!load )\bbalances?\b|payment|\bticket|\bsign(?:ing|er|ed|atures?)?\b|\bcred(?:s|entials?)\b"
    r"|\b(?:job|payment|get|getting) token|\bdeposit\b|\breserve\b"
)


def _explained(found: Verdict, cause: str, *, proven: bool) -> Verdict:
    """Let a known cause change the reason of a failure that the HTTP answer leaves open (503, closed, null).

    `proven` says that evidence names the orchestrator: then a cause that is no matter of payment is its worker's.
    """
    if not cause or found.code not in ("503", "no_reply", "null", "byoc_unclear", "capacity_unknown"):
        return found
    low = cause.lower()
    for needle, code in _CAUSES:
        if needle in low:
            return Verdict.from_code(code, f"{find_reason(code).meaning} The gateway says: {cause}")
    if found.code == "byoc_unclear" and proven and _PAYMENT.search(low) is None:
        found = Verdict.from_code("byoc_empty")
    return Verdict(found.outcome, found.code, f"{found.message.rstrip('.')}. The gateway says: {cause}")


# What only the gateway writes: a proxy before it has errors of its own.
_GATEWAYS_OWN = re.compile(rb'\s*\{\s*"error"\s*:\s*\{\s*"message"\s*:\s*"')
_RUNNERS_OWN = re.compile(_GATEWAYS_OWN.pattern + rb": ")
_AROUND = b" \t\r\n\v\f\0\xef\xbb\xbf"  # white space, NUL and the byte order mark say nothing
_PASSED_ON = b"\n\n"  # one for the orchestrator, one for the gateway; what is the gateway's own ends with one


def _excerpt(exchange: Exchange, length: int = 200) -> str:
    return exchange.body[: length * 4].decode("utf-8", "replace").strip()[:length]
