"""Outcomes: the one table of reasons, and the judgement that picks from it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from jobtester.domain.attempts import Attempts, Connection, ConnectionState, Pattern
from jobtester.domain.attribution import Attribution, Kind
from jobtester.domain.exchanges import Ending, Exchange
from jobtester.domain.foreign_text import clean_prose
from jobtester.domain.notes import Note


class Outcome(StrEnum):
    """What a result says of the orchestrator; `unscored` says nothing of it."""

    PASSED = "passed"
    FAILED = "failed"
    UNSCORED = "unscored"


class Fault(StrEnum):
    """At whose door the outcome lies."""

    NOBODY = "nobody"
    ORCHESTRATOR = "orchestrator"
    GATEWAY = "gateway"
    TESTER = "tester"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Reason:
    """One row of the table: `code` as stored and posted, a plain sentence, and what an operator can do about it."""

    code: str
    outcome: Outcome
    fault: Fault
    meaning: str
    advice: str = ""

    @property
    def scored(self) -> bool:
        """Tell whether a result with this reason counts at the Leaderboard."""
        return self.outcome is not Outcome.UNSCORED


_P, _F, _U = Outcome.PASSED, Outcome.FAILED, Outcome.UNSCORED
_ORCH, _GATEWAY, _TESTER, _UNKNOWN = Fault.ORCHESTRATOR, Fault.GATEWAY, Fault.TESTER, Fault.UNKNOWN

REASONS: Mapping[str, Reason] = {
    row.code: row
    for row in (
        Reason("ok", _P, Fault.NOBODY, "The answer came in time and every check of it passed."),
        Reason(
            "timeout", _F, _ORCH, "No complete answer came within the pipeline's time limit.",
            "Look for a queue, a cold model or a GPU that is too slow; the limit is pipelines.<name>.timeout.",
        ),
        Reason(
            "no_reply", _F, _ORCH, "The gateway closed the connection without an answer, as it does when every try failed quickly.",
            "Look into the orchestrator's and the runner's log at the time of the job; check that the price is not above the gateway's maximum.",
        ),
        Reason(
            "503", _F, _ORCH, "Every try at the orchestrator failed until the gateway's retry window was over.",
            "Look into the orchestrator's log: out of memory, a crashed runner, a refused payment or an unreachable port.",
        ),
        Reason(
            "400", _F, _ORCH, "The runner refused an input that is known to be good.",
            "Compare the runner's version with the pipeline's contract; the message names the field.",
        ),
        Reason(
            "null", _F, _ORCH, "The answer was `null`: every try failed quickly.",
            "Look into the runner's log at the time of the job.",
        ),
        Reason(
            "bad_json", _F, _ORCH, "The answer is not the JSON it has to be.",
            "Check the runner's version and whatever stands between it and the orchestrator.",
        ),
        Reason(
            "check:*", _F, _ORCH, "The answer arrived but the named check of its content did not pass.",
            "The message says what was expected and what came; request and answer are kept with the result.",
        ),
        Reason(
            "byoc_empty", _F, _ORCH, "The BYOC answer was empty, and there is proof that the worker failed or did not answer in time.",
            "Look into the worker's log at the time of the job.",
        ),
        Reason(
            "byoc_unclear", _U, _UNKNOWN, "The BYOC answer was empty and names no orchestrator: the worker failed, its slot was taken, or signing or payment failed.",
            "Give the gateway an event sink, which tells them apart; look into the gateway's and the worker's log.",
        ),
        Reason(
            "worker_4xx", _F, _ORCH, "The BYOC worker refused an input that is known to be good.",
            "Look into the worker's log; the message carries its answer.",
        ),
        Reason(
            "too_large", _F, _ORCH, "The answer was larger than limits.max_response.",
            "Answer with what was asked for; the limit is far above any right answer.",
        ),
        Reason(
            "empty", _U, _GATEWAY, "The gateway answered 200 with an empty body, which no pipeline route does for a right request.",
            "Nothing to do for the orchestrator: look for a proxy before the gateway.",
        ),
        Reason(
            "busy", _U, Fault.NOBODY, "Every slot of the orchestrator was taken, again and again until the tick ended.",
            "Not a failure. If it stays so for many ticks, advertise a capacity that is really free.",
        ),
        Reason(
            "capacity_unknown", _U, _UNKNOWN, "The gateway found nobody to give the job to and does not say whether the orchestrator was busy, down or unknown to it.",
            "Compare the service URI in the gateway's pool with the one advertised.",
        ),
        Reason(
            "unreachable", _F, _ORCH, "Nothing answers at the service URI: the gateway never reached the orchestrator, and neither could the tester, which reaches others.",
            "Check that the orchestrator runs, and that its port is open to the Internet.",
        ),
        Reason(
            "not_selected", _U, _UNKNOWN, "The gateway never gave the job to the orchestrator, though its service URI can be connected to.",
            "It may be the price, a model that is advertised and not loaded, or a gateway's -discoveryTimeout that is too short.",
        ),
        Reason(
            "unclear", _U, _UNKNOWN, "The job failed, and nothing shows whether it reached the orchestrator, also not when it was sent again alone.",
            "Give the gateway an event sink; a webhook gateway shows more than one that is aimed by query.",
        ),
        Reason(
            "price", _U, _UNKNOWN, "The orchestrator's price is above what the gateway pays, so it was never asked.",
            "Compare the price with the gateway's -maxPricePerUnit.",
        ),
        Reason(
            "not_targeted", _U, _GATEWAY, "The gateway did not let us say which orchestrator it uses, so nobody knows who served the job.",
            "Run a tester gateway with -aiTesterGateway=true -aiSessionTimeout=0 -webhookRefreshInterval=0.",
        ),
        Reason(
            "refuted", _U, _GATEWAY, "Evidence names another orchestrator as the one that served the job.",
            "Check that the gateway serves this tester alone.",
        ),
        Reason(
            "unproven", _U, _UNKNOWN, "Nothing proved who served the job, though it ran beside others, or its gateway has used another orchestrator than the named one in this tick.",
            "Give the gateway an evidence source: -monitor=true, or an event sink.",
        ),
        Reason(
            "retired", _U, Fault.NOBODY, "The gateway no longer serves this pipeline (410).",
            "Nothing: batch pipelines are being retired from go-livepeer.",
        ),
        Reason(
            "refused", _U, _GATEWAY, "No connection to the gateway could be made.",
            "Check gateways.url and that the gateway runs.",
        ),
        Reason(
            "gateway_lost", _U, _GATEWAY, "The gateway went away while the job was running.",
            "Look into the gateway's log.",
        ),
        Reason(
            "gateway_fault", _U, _GATEWAY, "The gateway, or a proxy before it, answered with something that no pipeline answers.",
            "The message carries the status and the beginning of the body.",
        ),
        Reason(
            "artefact_unreachable", _U, _GATEWAY, "The answer names a file that the gateway, which keeps it, did not give out.",
            "Look into the gateway's log and its object store.",
        ),
        Reason(
            "tester_fault", _U, _TESTER, "The request itself was refused: it was malformed, or a test input is damaged.",
            "A defect of the tester or of a pipeline's definition; please report it with the message.",
        ),
        Reason(
            "tick_suspect", _U, _TESTER, "Nearly everything failed for one reason in this tick, and a later one passed: the path was broken, not the orchestrators.",
        ),
        Reason("shutdown", _U, _TESTER, "The tester was stopped while the job was running."),
    )
}  # fmt: skip

_LONGEST_MESSAGE = 4_000  # characters
_OTHER_STATUS = Reason(
    "4xx, 5xx", _U, _GATEWAY, "The gateway, or a proxy before it, answered with this HTTP status.",
    "500 means that the gateway could not fetch or keep the result; the others come from a proxy.",
)  # fmt: skip


def reason(code: str) -> Reason:
    """Give the table's row for a code, `check:<name>` and other HTTP statuses included.

    Raises KeyError for a code that is in no row.
    """
    if code in REASONS:
        return REASONS[code]
    if code.startswith("check:"):
        return REASONS["check:*"]
    if len(code) == 3 and code.isdecimal():
        return _OTHER_STATUS
    raise KeyError(code)


def table() -> tuple[Reason, ...]:
    """Give every row, for documentation."""
    return (*REASONS.values(), _OTHER_STATUS)


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check says of an answer: `problem` is a short code within the check, empty when it passed.

    `fault` is the orchestrator's but for artefacts that the gateway does not give out and for the tester's own limits.
    `notes` are oddities, which change no outcome.
    """

    check: str
    problem: str = ""
    message: str = ""
    fault: Fault = Fault.ORCHESTRATOR
    notes: tuple[Note, ...] = ()

    @property
    def passed(self) -> bool:
        """Tell whether the check found nothing wrong."""
        return not self.problem


@dataclass(frozen=True, slots=True)
class Verdict:
    """An outcome with its reason code and a sentence for people."""

    outcome: Outcome
    code: str
    message: str

    @property
    def scored(self) -> bool:
        """Tell whether the verdict counts at the Leaderboard."""
        return self.outcome is not Outcome.UNSCORED

    @property
    def fault(self) -> Fault:
        """Tell at whose door the outcome lies."""
        return reason(self.code).fault


def verdict(code: str, message: str = "") -> Verdict:
    """Return the verdict that the table has for a code; without a message the table's sentence is used.

    What a message quotes comes from outside; here it is made fit to be shown.
    """
    row = reason(code)
    return Verdict(row.outcome, code, clean_prose(message, _LONGEST_MESSAGE) or row.meaning)


def judge(
    exchange: Exchange,
    findings: Iterable[Finding],
    attribution: Attribution,
    *,
    byoc: bool = False,
    cause: str = "",
    gateway_alive: bool = True,
    followed: bool = True,
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
    found = _explained(found, cause, proven=attribution.kind is Kind.PROVEN)
    if attempts is not None:
        found = _by_attempts(found, attempts, connection, proven=attribution.kind is Kind.PROVEN)
    if not found.scored:
        return found
    last_line = attribution.evidence[-1] if attribution.evidence else ""
    if not followed or attribution.kind is Kind.MISSING:
        return verdict("not_targeted", last_line)
    if attribution.kind is Kind.REFUTED:
        return verdict("refuted", last_line)
    return found


_TRIES_RAN_OUT = ("503", "no_reply", "null")


def _by_attempts(found: Verdict, attempts: Attempts, connection: Connection | None, *, proven: bool) -> Verdict:
    """Hold a failure against an orchestrator only if the job reached it, or nobody can reach it."""
    left_early = found.code == "timeout" and attempts.never_reached
    if proven or not (found.code in _TRIES_RAN_OUT or left_early):
        return found
    state = connection.state if connection is not None else None
    line = connection.line if connection is not None else ""
    match attempts.pattern:
        case Pattern.NOT_FOLLOWING:
            return verdict("not_targeted", attempts.line)
        case Pattern.BUSY:
            return verdict("busy", _sentences(reason("busy").meaning, attempts.line))
        case Pattern.REACHED if state is not ConnectionState.UNREACHABLE:
            return Verdict(found.outcome, found.code, _sentences(found.message, attempts.line))
        case _ if state is ConnectionState.UNREACHABLE:
            return verdict("unreachable", _sentences(line, attempts.line))
        case Pattern.NOBODY | Pattern.DOWN if state is ConnectionState.STANDS:
            return verdict("not_selected", _sentences(reason("not_selected").meaning, attempts.line))
    return verdict("unclear", _sentences(reason("unclear").meaning, attempts.line, line))


def _sentences(*texts: str) -> str:
    """Return texts as sentences, each with its capital and its full stop."""
    return " ".join(f"{text[:1].upper()}{text[1:].rstrip('.')}." for text in texts if text)


def _before_content(exchange: Exchange, gateway_alive: bool) -> Verdict | None:
    """Judge what needs no look at the answer; None where there is one to look at."""
    ending = exchange.ending
    if ending is Ending.ABORTED:
        return verdict("shutdown")
    if ending is Ending.REFUSED:
        return verdict("refused", exchange.detail)
    if not gateway_alive:
        return verdict("gateway_lost", exchange.detail)
    return None


def _lost(exchange: Exchange, byoc: bool) -> Verdict:
    """Judge an exchange that ended without a whole answer.

    For an external capability the gateway has a limit of its own, below ours, and always answers: silence is its fault.
    """
    match exchange.ending:
        case Ending.TIMEOUT if byoc and exchange.status is None:
            return verdict("gateway_fault", f"The gateway did not keep its own time limit: {exchange.detail}")
        case Ending.TIMEOUT:
            return verdict("timeout", exchange.detail)
        case Ending.TOO_LARGE:
            return verdict("too_large", exchange.detail)
        case Ending.NO_REPLY if not byoc and exchange.status is None:
            return verdict("no_reply", exchange.detail)
        case _:
            return verdict("gateway_fault", f"There is no whole answer: {exchange.detail}")


def _content(exchange: Exchange, findings: Iterable[Finding], byoc: bool) -> Verdict:
    coding = exchange.headers.get("content-encoding", "").strip().lower()
    if coding not in ("", "identity"):
        return verdict("gateway_fault", f"The answer comes as {coding[:20]}, although it was asked for as it is.")
    body = exchange.body.strip(_AROUND)
    if not body:
        if byoc and "x-orchestrator-url" not in exchange.headers:
            return verdict("byoc_unclear")
        return verdict("check:body", "The worker's answer is empty.") if byoc else verdict("empty")
    if body == b"null":
        return verdict("null")
    if not byoc and body[:1] == b"<":
        return verdict("gateway_fault", f"HTML instead of an answer: {_excerpt(exchange)}")
    for finding in findings:
        if finding.passed:
            continue
        if finding.fault is Fault.GATEWAY and not byoc:  # of an external capability the gateway keeps no files
            return verdict("artefact_unreachable", finding.message)
        if finding.problem == "unanswered":
            return verdict("tester_fault", f"{finding.message}; the fault may be in the tester's own network.")
        if finding.fault not in (Fault.ORCHESTRATOR, Fault.GATEWAY):
            return verdict("tester_fault", finding.message)
        code = finding.problem if finding.problem in ("bad_json", "too_large") else f"check:{finding.check}"
        return verdict(code, finding.message)
    return verdict("ok")


def _batch_status(exchange: Exchange, status: int) -> Verdict:
    text = _excerpt(exchange)
    if status == 410:
        return verdict("retired")
    if status in (400, 503) and _GATEWAYS_OWN.match(exchange.body) is None:
        return verdict("gateway_fault", f"{status} from a proxy: {text}")
    if status == 503:
        return verdict("503")
    if status == 400:
        if _RUNNERS_OWN.match(exchange.body):
            return verdict("400", f"The runner refused the input: {text}")
        return verdict("tester_fault", f"The gateway refused the request: {text}")
    return verdict(str(status), f"The gateway answered {status}: {text}")


def _byoc_status(exchange: Exchange, status: int) -> Verdict:
    text = _excerpt(exchange)
    passed_on = exchange.body.endswith(_PASSED_ON)
    if status == 410 and not passed_on:
        return verdict("retired")
    if status == 400 and text.startswith("No orchestrators found"):
        return verdict("capacity_unknown", text)
    if status == 400 and text.startswith(
        ("Insufficient balance", "Could not verify job creds", "Could not get job price")
    ):
        return verdict("gateway_fault", text)
    if status == 400 and text.startswith("Unable to find orchestrators"):
        return verdict("gateway_fault", f"The gateway did not find out in time who there is: {text}")
    if status == 400 and text.startswith("Unable to ") and not passed_on:
        return verdict("tester_fault", text)
    own = status in (404, 405) and not passed_on
    if own and text.startswith(("404 page not found", "Method not allowed")):
        return verdict("gateway_fault", f"The gateway has no BYOC route: {text}")
    # Go passes a worker's refusal on as plain text that ends with a line feed; what a proxy writes is typed as JSON.
    typed = exchange.headers.get("content-type", "").lower().startswith("application/json")
    plain = exchange.body.endswith(b"\n") or not typed
    refused = status in (400, 422) and plain and exchange.body.lstrip().startswith((b"{", b"["))
    if 400 <= status < 500 and (refused or passed_on):
        if status == 429:
            return verdict("busy", f"The worker has too much to do: {text}")
        return verdict("worker_4xx", f"The worker answered {status}: {text}")
    if str(status) in REASONS:  # those rows are about batch pipelines
        return verdict("gateway_fault", f"{status} is no answer of the gateway's: {text}")
    return verdict(str(status), f"The gateway answered {status}: {text}")


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
            return verdict(code, f"{reason(code).meaning} The gateway says: {cause}")
    if found.code == "byoc_unclear" and proven and _PAYMENT.search(low) is None:
        found = verdict("byoc_empty")
    return Verdict(found.outcome, found.code, f"{found.message.rstrip('.')}. The gateway says: {cause}")


# What only the gateway writes: a proxy before it has errors of its own.
_GATEWAYS_OWN = re.compile(rb'\s*\{\s*"error"\s*:\s*\{\s*"message"\s*:\s*"')
_RUNNERS_OWN = re.compile(_GATEWAYS_OWN.pattern + rb": ")
_AROUND = b" \t\r\n\v\f\0\xef\xbb\xbf"  # white space, NUL and the byte order mark say nothing
_PASSED_ON = b"\n\n"  # one for the orchestrator, one for the gateway; what is the gateway's own ends with one


def _excerpt(exchange: Exchange, length: int = 200) -> str:
    return exchange.body[: length * 4].decode("utf-8", "replace").strip()[:length]
