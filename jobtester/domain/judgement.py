"""Judge a job: turn the answer, the checks' findings and the evidence into one verdict, without any I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable

from jobtester.domain.attempts import AttemptPattern, Attempts, ConnectionState
from jobtester.domain.attribution import Attribution, AttributionKind
from jobtester.domain.exchanges import Ending, Exchange
from jobtester.domain.reasons import REASONS, Fault, Finding, Verdict, find_reason

# Ways in which a gateway ends a job when its tries run out, whatever the reason was.
_TRIES_EXHAUSTED_CODES = ("503", "no_reply", "null")
# Codes that the HTTP answer leaves open, so that a cause from metrics or events may change them.
_OPEN_CODES = (*_TRIES_EXHAUSTED_CODES, "byoc_unclear", "capacity_unknown")
_CODES_BY_CAUSE: tuple[tuple[str, str], ...] = (
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
# Only the gateway writes this: a proxy before it has errors of its own.
_GATEWAY_ERROR = re.compile(rb'\s*\{\s*"error"\s*:\s*\{\s*"message"\s*:\s*"')
_RUNNER_ERROR = re.compile(_GATEWAY_ERROR.pattern + rb": ")
_BLANK_BYTES = b" \t\r\n\v\f\0\xef\xbb\xbf"  # white space, NUL and the byte order mark are no content
# One line feed is the orchestrator's, one the gateway's; what the gateway itself writes ends with one alone.
_PASSED_ON_SUFFIX = b"\n\n"


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
) -> Verdict:
    """Return the verdict on a job. The same arguments always give the same verdict.

    Args:
        exchange: what came back from the gateway.
        findings: results of the checks, in their order; the first problem decides.
        attribution: who served the job, and how sure that is.
        byoc: whether the job is one of an external capability, whose answers have other forms.
        cause: the failure's cause by the gateway's metrics or events, empty where they name none. It tells a busy or
            an unlisted orchestrator from a failing one.
        gateway_alive: False if the gateway did not answer even a health request just after a lost connection.
        gateway_followed: False if the gateway chose the orchestrator by itself.
        attempts: how far the gateway came with the job; None where that is not known and does not matter. Where a
            connection of the tester's own could decide and there was none yet, the verdict is `unclear`.
    """
    if (early := _judge_without_answer(exchange, gateway_alive)) is not None:
        return early
    # From the strongest statement to the weakest: what the answer itself is, then what its cause was, then whether
    # the job reached the orchestrator at all. Each step may only explain or soften the one before.
    is_proven = attribution.kind is AttributionKind.PROVEN
    verdict = _judge_answer(exchange, findings, byoc)
    verdict = _apply_cause(verdict, cause, is_proven=is_proven)
    if attempts is not None:
        verdict = _apply_attempts(verdict, attempts, is_proven=is_proven)
    if not verdict.scored:
        return verdict
    # A score needs an orchestrator that it belongs to.
    last_line = attribution.evidence[-1] if attribution.evidence else ""
    if not gateway_followed or attribution.kind is AttributionKind.MISSING:
        return Verdict.from_code("not_targeted", last_line)
    if attribution.kind is AttributionKind.REFUTED:
        return Verdict.from_code("refuted", last_line)
    return verdict


def _judge_without_answer(exchange: Exchange, gateway_alive: bool) -> Verdict | None:
    """Return the verdict on a job whose answer need not be read; None if it has to be."""
    if exchange.ending is Ending.ABORTED:
        return Verdict.from_code("shutdown")
    if exchange.ending is Ending.REFUSED:
        return Verdict.from_code("refused", exchange.detail)
    if not gateway_alive:
        return Verdict.from_code("gateway_lost", exchange.detail)
    return None


def _judge_answer(exchange: Exchange, findings: Iterable[Finding], byoc: bool) -> Verdict:
    status = exchange.status
    if status is None or exchange.ending is Ending.CUT_SHORT:
        return _judge_lost(exchange, byoc)
    if status != 200:
        return _judge_byoc_status(exchange, status) if byoc else _judge_batch_status(exchange, status)
    if exchange.ending is not Ending.ANSWERED:
        return _judge_lost(exchange, byoc)
    return _judge_body(exchange, byoc) or _judge_findings(findings, byoc)


def _judge_lost(exchange: Exchange, byoc: bool) -> Verdict:
    # For an external capability the gateway has a time limit of its own, below ours, and always answers: silence is
    # its fault. For a batch pipeline it waits for the orchestrator as long as we do.
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


def _judge_body(exchange: Exchange, byoc: bool) -> Verdict | None:
    """Return the verdict on a body that is no answer at all, None for one that the checks have judged."""
    coding = exchange.headers.get("content-encoding", "").strip().lower()
    if coding not in ("", "identity"):
        return Verdict.from_code(
            "gateway_fault", f"The answer comes as {coding[:20]}, although it was asked for as it is."
        )
    body = exchange.body.strip(_BLANK_BYTES)
    if not body:
        if byoc and "x-orchestrator-url" not in exchange.headers:
            return Verdict.from_code("byoc_unclear")
        return Verdict.from_code("check:body", "The worker's answer is empty.") if byoc else Verdict.from_code("empty")
    if body == b"null":
        return Verdict.from_code("null")
    if not byoc and body[:1] == b"<":
        return Verdict.from_code("gateway_fault", f"HTML instead of an answer: {_excerpt(exchange)}")
    return None


def _judge_findings(findings: Iterable[Finding], byoc: bool) -> Verdict:
    for finding in findings:
        if finding.passed:
            continue
        if finding.fault is Fault.GATEWAY and not byoc:  # the gateway stores no files of external capabilities
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


def _judge_batch_status(exchange: Exchange, status: int) -> Verdict:
    text = _excerpt(exchange)
    if status == 410:
        return Verdict.from_code("retired")
    if status in (400, 503) and _GATEWAY_ERROR.match(exchange.body) is None:
        return Verdict.from_code("gateway_fault", f"{status} from a proxy: {text}")
    if status == 503:
        return Verdict.from_code("503")
    if status == 400:
        if _RUNNER_ERROR.match(exchange.body):
            return Verdict.from_code("400", f"The runner refused the input: {text}")
        return Verdict.from_code("tester_fault", f"The gateway refused the request: {text}")
    if status == 404 and text.startswith("404 page not found"):
        return Verdict.from_code("404", f"The gateway has no such path: {text}")
    return Verdict.from_code(str(status), f"The gateway answered {status}: {text}")


def _judge_byoc_status(exchange: Exchange, status: int) -> Verdict:
    text = _excerpt(exchange)
    is_passed_on = exchange.body.endswith(_PASSED_ON_SUFFIX)
    if (verdict := _judge_byoc_gateway_error(status, text, is_passed_on=is_passed_on)) is not None:
        return verdict
    # Go passes a worker's refusal on as plain text that ends with a line feed; what a proxy writes is typed as JSON.
    is_json = exchange.headers.get("content-type", "").lower().startswith("application/json")
    is_plain = exchange.body.endswith(b"\n") or not is_json
    is_refusal = status in (400, 422) and is_plain and exchange.body.lstrip().startswith((b"{", b"["))
    if 400 <= status < 500 and (is_refusal or is_passed_on):
        if status == 429:
            return Verdict.from_code("busy", f"The worker has too much to do: {text}")
        return Verdict.from_code("worker_4xx", f"The worker answered {status}: {text}")
    if str(status) in REASONS:  # those rows are about batch pipelines
        return Verdict.from_code("gateway_fault", f"{status} is no answer of the gateway's: {text}")
    return Verdict.from_code(str(status), f"The gateway answered {status}: {text}")


def _judge_byoc_gateway_error(status: int, text: str, *, is_passed_on: bool) -> Verdict | None:
    """Return the verdict on an error that the gateway itself wrote, None for any other."""
    if status == 410 and not is_passed_on:
        return Verdict.from_code("retired")
    if status == 400 and text.startswith("No orchestrators found"):
        return Verdict.from_code("capacity_unknown", text)
    if status == 400 and text.startswith(
        ("Insufficient balance", "Could not verify job creds", "Could not get job price")
    ):
        return Verdict.from_code("gateway_fault", text)
    if status == 400 and text.startswith("Unable to find orchestrators"):
        return Verdict.from_code("gateway_fault", f"The gateway did not find out in time who there is: {text}")
    if status == 400 and text.startswith("Unable to ") and not is_passed_on:
        return Verdict.from_code("tester_fault", text)
    is_own = status in (404, 405) and not is_passed_on
    if is_own and text.startswith(("404 page not found", "Method not allowed")):
        return Verdict.from_code("gateway_fault", f"The gateway has no BYOC route: {text}")
    return None


def _apply_cause(verdict: Verdict, cause: str, *, is_proven: bool) -> Verdict:
    """Return the verdict with the cause of a failure that the HTTP answer leaves open, and by it another reason.

    `is_proven` means that evidence names the orchestrator: then a cause that is no matter of payment is its worker's.
    """
    if not cause or verdict.code not in _OPEN_CODES:
        return verdict
    lower = cause.lower()
    for phrase, code in _CODES_BY_CAUSE:
        if phrase in lower:
            return Verdict.from_code(code, f"{find_reason(code).meaning} The gateway says: {cause}")
    if verdict.code == "byoc_unclear" and is_proven and _PAYMENT.search(lower) is None:
        verdict = Verdict.from_code("byoc_empty")
    return Verdict(verdict.outcome, verdict.code, f"{verdict.message.rstrip('.')}. The gateway says: {cause}")


def _apply_attempts(verdict: Verdict, attempts: Attempts, *, is_proven: bool) -> Verdict:
    """Return the verdict, unscored where a failure cannot be held against the orchestrator.

    It can only if the job reached the orchestrator, or if nobody can reach it.
    """
    left_too_early = verdict.code == "timeout" and attempts.never_reached
    if is_proven or not (verdict.code in _TRIES_EXHAUSTED_CODES or left_too_early):
        return verdict
    connection = attempts.connection
    state = connection.state if connection is not None else None
    line = connection.summary if connection is not None else ""
    match attempts.pattern:
        case AttemptPattern.NOT_FOLLOWING:
            return Verdict.from_code("not_targeted", attempts.summary)
        case AttemptPattern.BUSY:
            return Verdict.from_code("busy", _join_sentences(find_reason("busy").meaning, attempts.summary))
        case AttemptPattern.REACHED if state is not ConnectionState.UNREACHABLE:
            return Verdict(verdict.outcome, verdict.code, _join_sentences(verdict.message, attempts.summary))
        case _ if state is ConnectionState.UNREACHABLE:
            return Verdict.from_code("unreachable", _join_sentences(line, attempts.summary))
        case AttemptPattern.NOBODY | AttemptPattern.DOWN if state is ConnectionState.REACHABLE:
            meaning = find_reason("not_selected").meaning
            return Verdict.from_code("not_selected", _join_sentences(meaning, attempts.summary))
    return Verdict.from_code("unclear", _join_sentences(find_reason("unclear").meaning, attempts.summary, line))


def _join_sentences(*texts: str) -> str:
    return " ".join(f"{text[:1].upper()}{text[1:].rstrip('.')}." for text in texts if text)


def _excerpt(exchange: Exchange, length: int = 200) -> str:
    # Four bytes is the longest character in UTF-8, so this many are enough for `length` characters.
    return exchange.body[: length * 4].decode("utf-8", "replace").strip()[:length]
