"""Reasons: the one table of reason codes, and the findings and verdicts that refer to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from jobtester.domain.untrusted_text import clean_prose


class Outcome(StrEnum):
    """Whether the orchestrator did the job; `unscored` results do not count for or against it."""

    PASSED = "passed"
    FAILED = "failed"
    UNSCORED = "unscored"


class Fault(StrEnum):
    """Who caused the outcome."""

    NOBODY = "nobody"
    ORCHESTRATOR = "orchestrator"
    GATEWAY = "gateway"
    TESTER = "tester"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Reason:
    """One row of the table: `code` as stored and posted, its meaning in a sentence, and advice for the operator."""

    code: str
    outcome: Outcome
    fault: Fault
    meaning: str
    advice: str = ""

    @property
    def scored(self) -> bool:
        """Return True if a result with this reason counts at the Leaderboard."""
        return self.outcome is not Outcome.UNSCORED


_P, _F, _U = Outcome.PASSED, Outcome.FAILED, Outcome.UNSCORED
_ORCH, _GATEWAY, _TESTER, _UNKNOWN = Fault.ORCHESTRATOR, Fault.GATEWAY, Fault.TESTER, Fault.UNKNOWN

REASONS: Mapping[str, Reason] = {
    row.code: row
    for row in (
        Reason("ok", _P, Fault.NOBODY, "The answer came in time and every check passed."),
        Reason(
            "timeout", _F, _ORCH, "No complete answer came within the pipeline's time limit.",
            "Look for a queue, a cold model or a GPU that is too slow; the limit is pipelines.<name>.timeout.",
        ),
        Reason(
            "no_reply", _F, _ORCH, "The gateway closed the connection without an answer, as it does when every attempt failed quickly.",
            "Look into the orchestrator's and the runner's log at the time of the job; check that the price is not above the gateway's maximum.",
        ),
        Reason(
            "503", _F, _ORCH, "Every attempt at the orchestrator failed until the gateway's retry window ended.",
            "Look into the orchestrator's log: out of memory, a crashed runner, a refused payment or an unreachable port.",
        ),
        Reason(
            "400", _F, _ORCH, "The runner rejected a valid input.",
            "Compare the runner's version with the pipeline's contract; the message names the field.",
        ),
        Reason(
            "null", _F, _ORCH, "The answer was `null`: every attempt failed quickly.",
            "Look into the runner's log at the time of the job.",
        ),
        Reason(
            "bad_json", _F, _ORCH, "The answer is not valid JSON.",
            "Check the runner's version and any proxy between it and the orchestrator.",
        ),
        Reason(
            "check:*", _F, _ORCH, "The answer arrived, but the named check of its content failed.",
            "The message has the expected and the actual value; the result has request and answer.",
        ),
        Reason(
            "byoc_empty", _F, _ORCH, "The BYOC answer was empty, and there is proof that the worker failed or did not answer in time.",
            "Look into the worker's log at the time of the job.",
        ),
        Reason(
            "byoc_unclear", _U, _UNKNOWN, "The BYOC answer was empty and names no orchestrator: the worker failed, its slot was taken, or signing or payment failed.",
            "Configure an event sink, which distinguishes these causes; look into the gateway's and the worker's log.",
        ),
        Reason(
            "worker_4xx", _F, _ORCH, "The BYOC worker rejected a valid input.",
            "Look into the worker's log; the message contains its answer.",
        ),
        Reason(
            "app_gone", _F, _ORCH, "The orchestrator listed the live runner's app or reserved its session just before, and then knew no such runner or session.",
            "Look into the orchestrator's log: the runner was unhealthy, or its registration ran out.",
        ),
        Reason(
            "app_down", _F, _ORCH, "The orchestrator lists the live runner's app and could not reach it (502).",
            "Check that the app runs at the URL that the runner registered.",
        ),
        Reason(
            "app_error", _F, _ORCH, "The live runner's app answered with a server error.",
            "Look into the app's log at the time of the job; the message contains its answer.",
        ),
        Reason(
            "app_cut_short", _F, _ORCH, "The orchestrator closed the connection before the whole answer of the live runner's app had come.",
            "Look into the orchestrator's and the app's log at the time of the job.",
        ),
        Reason(
            "app_price_unavailable", _F, _ORCH, "The orchestrator had no price for the live runner's app.",
            "Check the orchestrator's price feed.",
        ),
        Reason(
            "session_conflict", _F, _ORCH, "The orchestrator reserved a session, and the live runner's app reported that another one is active.",
            "Check the app's and the orchestrator's count of sessions: a slot that is advertised as free cannot be used.",
        ),
        Reason(
            "session_left_open", _U, _UNKNOWN, "An earlier session at the live runner could not be stopped, so no other one was reserved.",
            "Look at what the orchestrator answers to POST <session>/stop; a restart of the runner ends its sessions.",
        ),
        Reason(
            "app_refused", _U, _UNKNOWN, "The live runner's app refused the request, which may be one that it does not take.",
            "Compare the pipeline's definition with the app's own description; apps and uri choose what is sent to whom.",
        ),
        Reason(
            "unlisted", _U, _UNKNOWN, "The job failed, and only a directory lists the live runner's app: the orchestrator did not return a list of its own.",
            "Look at the orchestrator's /discovery; the directory may be out of date.",
        ),
        Reason(
            "payment_required", _U, _UNKNOWN, "The orchestrator wants payment for an app that it lists without a price, or once more for a request that was paid, or without the data that a payment needs.",
            "Advertise the price, and accept a payment that answers the challenge.",
        ),
        Reason(
            "price_refused", _U, _UNKNOWN, "The signer does not pay the price: the orchestrator asks for more than it lists, or the signer's own limit is lower.",
            "Advertise the price that is asked for; compare the signer's own limit with it.",
        ),
        Reason(
            "signer_fault", _U, _TESTER, "The remote signer did not make a payment that the orchestrator takes.",
            "Run `jobtester check`; look into the signer's log. Nothing counts against the orchestrator.",
        ),
        Reason(
            "no_frames", _F, _ORCH, "The orchestrator had the stream, and no frame of output came within the start limit.",
            "Look into the runner's log: a model that is not loaded, or a container that takes the stream and sends nothing.",
        ),
        Reason(
            "stream_ended", _F, _ORCH, "The output of the stream ended while its input went on.",
            "Look into the orchestrator's and the container's log at the time of the job.",
        ),
        Reason(
            "stream_error", _F, _ORCH, "The runner reported an error or restarted during the stream.",
            "Look into the container's log; the result has the states and errors that the gateway showed.",
        ),
        Reason(
            "not_started", _U, _UNKNOWN, "The gateway found no orchestrator for the stream: a container that fails, one that is full and a wrong pin look alike.",
            "Look into the gateway's log, which has the reason; compare the service URI in its pool with the one advertised.",
        ),
        Reason(
            "out_of_pool", _U, _GATEWAY, "The gateway found no orchestrator for the stream, and may have left this one out since an earlier stream to it failed.",
            "Nothing: a gateway takes it back within live_video.pool_refresh.",
        ),
        Reason(
            "too_many_candidates", _U, _GATEWAY, "More orchestrators offer the model than the gateway tries for one stream, so it may never have tried this one.",
            "Give the gateway a shorter list (-orchAddr or -orchWebhookUrl), or use one gateway for each group of 20.",
        ),
        Reason(
            "too_large", _F, _ORCH, "The answer was larger than limits.max_response.",
            "Return only what was requested; the limit is far above any valid answer.",
        ),
        Reason(
            "empty", _U, _GATEWAY, "The gateway answered 200 with an empty body, which no pipeline does for a valid request.",
            "Nothing to do for the orchestrator; look for a proxy in front of the gateway.",
        ),
        Reason(
            "busy", _U, Fault.NOBODY, "Every slot of the orchestrator was in use at every attempt until the tick ended.",
            "Not a failure. If this lasts for many ticks, advertise only capacity that is free.",
        ),
        Reason(
            "capacity_unknown", _U, _UNKNOWN, "The gateway found no orchestrator for the job and does not report whether this one was busy, down or unknown.",
            "Compare the service URI in the gateway's pool with the one advertised.",
        ),
        Reason(
            "unreachable", _F, _ORCH, "The service URI does not respond: neither the gateway nor the tester reached the orchestrator, while the tester reaches others.",
            "Check that the orchestrator runs, and that its port is open to the Internet.",
        ),
        Reason(
            "not_selected", _U, _UNKNOWN, "The gateway never sent the job to the orchestrator, although its service URI is reachable.",
            "It may be the price, a model that is advertised and not loaded, or a gateway's -discoveryTimeout that is too short.",
        ),
        Reason(
            "unclear", _U, _UNKNOWN, "The job failed, and no evidence shows whether it reached the orchestrator, even when it was sent again alone.",
            "Configure an event sink; a webhook gateway shows more than a query gateway.",
        ),
        Reason(
            "price", _U, _UNKNOWN, "The orchestrator's price is above the gateway's maximum, so it got no job.",
            "Compare the price with the gateway's -maxPricePerUnit.",
        ),
        Reason(
            "not_targeted", _U, _GATEWAY, "The gateway selected an orchestrator itself, so it is unknown who served the job.",
            "Run a tester gateway with -aiTesterGateway=true -aiSessionTimeout=0 -webhookRefreshInterval=0.",
        ),
        Reason(
            "refuted", _U, _GATEWAY, "Evidence names another orchestrator as the one that served the job.",
            "Check that only this tester uses the gateway.",
        ),
        Reason(
            "unproven", _U, _UNKNOWN, "No evidence proves who served the job, which overlapped others, or the gateway used a wrong orchestrator earlier in this tick.",
            "Enable an evidence source at the gateway: -monitor=true, or an event sink.",
        ),
        Reason(
            "retired", _U, Fault.NOBODY, "The gateway no longer serves this pipeline (410).",
            "Nothing: batch pipelines are being retired from go-livepeer.",
        ),
        Reason(
            "refused", _U, _GATEWAY, "The gateway refused the connection.",
            "Check gateways.url and that the gateway runs.",
        ),
        Reason(
            "gateway_lost", _U, _GATEWAY, "The gateway went away while the job was running.",
            "Look into the gateway's log.",
        ),
        Reason(
            "gateway_fault", _U, _GATEWAY, "The gateway, or a proxy in front of it, returned something that no pipeline returns.",
            "The message contains the status and the beginning of the body.",
        ),
        Reason(
            "artifact_unreachable", _U, _GATEWAY, "The answer names a file that the gateway stores but did not serve.",
            "Look into the gateway's log and its object store.",
        ),
        Reason(
            "tester_fault", _U, _TESTER, "The request was malformed, or a test input is damaged.",
            "A defect of the tester or of a pipeline's definition; please report it with the message.",
        ),
        Reason(
            "tick_suspect", _U, _TESTER, "Nearly everything failed for one reason in this tick, and a later one passed: the path was broken, not the orchestrators.",
        ),
        Reason("shutdown", _U, _TESTER, "The tester was stopped while the job was running."),
    )
}  # fmt: skip

_MAX_MESSAGE_CHARS = 4_000
# Apart from the others: for an external capability no such status has a row of its own.
_NO_PATH = Reason(
    "404", _U, _GATEWAY, "The gateway, or a proxy in front of it, has no such path.",
    "Compare pipelines.<name>.uri with the gateway's paths; an external capability needs byoc = true, a live runner's app runner = true.",
)  # fmt: skip
_OTHER_STATUS = Reason(
    "4xx, 5xx", _U, _GATEWAY, "The gateway, or a proxy in front of it, returned this HTTP status.",
    "500 means that the gateway could not fetch or store the result; the others come from a proxy.",
)  # fmt: skip


def find_reason(code: str) -> Reason:
    """Return the table's row for a code, `check:<name>` and other HTTP statuses included.

    Raises KeyError for a code that is in no row.
    """
    if code in REASONS:
        return REASONS[code]
    if code.startswith("check:"):
        return REASONS["check:*"]
    if code == _NO_PATH.code:
        return _NO_PATH
    if len(code) == 3 and code.isdecimal():
        return _OTHER_STATUS
    raise KeyError(code)


def all_reasons() -> tuple[Reason, ...]:
    """Return every row, for documentation."""
    return (*REASONS.values(), _NO_PATH, _OTHER_STATUS)


@dataclass(frozen=True, slots=True)
class Note:
    """An oddity of an answer that changes no outcome, such as token counts that do not add up.

    `check` is the check that found it, `code` one of a bounded set, `message` a sentence for people.

    The code is a label of the metrics, so it is written in the program and never taken from an answer.
    """

    check: str
    code: str
    message: str

    def as_json(self) -> dict[str, str]:
        """Return the note as plain values, as the store keeps it and the API shows it."""
        return {"check": self.check, "note": self.code, "message": self.message}


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check of an answer: `problem` is a short code within the check, empty when it passed.

    `fault` is the orchestrator's but for result files that the gateway does not serve and for the tester's own limits.
    """

    check: str
    problem: str = ""
    message: str = ""
    fault: Fault = Fault.ORCHESTRATOR
    notes: tuple[Note, ...] = ()

    @property
    def passed(self) -> bool:
        """Return True if the check found no problem."""
        return not self.problem


@dataclass(frozen=True, slots=True)
class Verdict:
    """An outcome with its reason code and a sentence for people."""

    outcome: Outcome
    code: str
    message: str

    @classmethod
    def from_code(cls, code: str, message: str = "") -> Self:
        """Return the verdict that the table has for a code; without a message the row's meaning is used."""
        # A message may quote an answer from the network: here it is made fit to be shown, once for every page and log.
        row = find_reason(code)
        return cls(row.outcome, code, clean_prose(message, _MAX_MESSAGE_CHARS) or row.meaning)

    @property
    def scored(self) -> bool:
        """Return True if the verdict counts at the Leaderboard."""
        return self.outcome is not Outcome.UNSCORED

    @property
    def fault(self) -> Fault:
        """Return who caused the outcome."""
        return find_reason(self.code).fault
