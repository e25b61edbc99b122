"""Ask an orchestrator to stop a session, and decide when one that it does not stop is given up."""

from __future__ import annotations

import asyncio
from enum import Enum, auto

import aiohttp

from jobtester.live_runner.client import LiveRunnerClient
from jobtester.store.runner_sessions import SessionRow

STOP_TOTAL_S = 5.0
SETTLING_S = 15.0
_TIMEOUT_S = 2.0
_PAUSES_S = (0.0, 0.3, 1.0)
_MAX_BYTES = 4_096
_MIN_ROUNDS = 3
_MAX_AGE_S = 24 * 3600.0
_SESSION_NOT_FOUND = b"runner session not found"
_RUNNER_NOT_FOUND = b"runner not found"


class StopResult(Enum):
    """What an orchestrator says of a session that it was asked to stop."""

    STOPPED = auto()
    UNKNOWN_SESSION = auto()  # it was stopped before, or lost with its runner, or is not reserved yet
    UNKNOWN_RUNNER = auto()  # the runner is unhealthy, so that its sessions end within seconds, or has been removed
    FAILED = auto()


async def stop_session(client: LiveRunnerClient, control_url: str) -> StopResult:
    """Ask the orchestrator to stop a session, several times if need be, for a few seconds at most."""
    try:
        async with asyncio.timeout(STOP_TOTAL_S):
            for pause_s in _PAUSES_S:
                await asyncio.sleep(pause_s)
                try:
                    status, body = await client.post(
                        f"{control_url}/stop", headers={}, timeout_s=_TIMEOUT_S, max_bytes=_MAX_BYTES
                    )
                except (OSError, TimeoutError, ValueError, aiohttp.ClientError):
                    continue
                if 200 <= status < 300:
                    return StopResult.STOPPED
                if status == 404 and body.strip() == _SESSION_NOT_FOUND:
                    return StopResult.UNKNOWN_SESSION
                if status == 404 and body.strip() == _RUNNER_NOT_FOUND:
                    return StopResult.UNKNOWN_RUNNER
    except TimeoutError:
        pass
    return StopResult.FAILED


def has_ended(result: StopResult, *, age_s: float) -> bool:
    """Return True if a session of this age has ended for certain.

    A reservation whose answer was lost may still be under way, and a runner that is unhealthy keeps its sessions for
    some seconds. So for a young session only the orchestrator's own confirmation counts.
    """
    if result is StopResult.STOPPED:
        return True
    return result is not StopResult.FAILED and not is_young(age_s)


def is_young(age_s: float) -> bool:
    """Return True if what an orchestrator does not know of a session may still change."""
    return 0 <= age_s < SETTLING_S  # an age below zero is that of a clock which was set


def is_given_up(row: SessionRow, *, age_s: float) -> bool:
    """Return True if a session that could not be stopped is not tried again."""
    return row.stop_rounds >= _MIN_ROUNDS and not 0 <= age_s <= _MAX_AGE_S
