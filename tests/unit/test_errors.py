"""A crash of one unit of work is logged and counted, and ends nothing else."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from jobtester.crash_boundary import CrashBoundary
from jobtester.errors import ConfigError, JobTesterError, StoreError


def test_an_error_is_held_back_logged_and_counted() -> None:
    """What people see names the error's type alone: its text may hold a secret."""
    counted: list[str] = []
    with capture_logs() as events, CrashBoundary(counted.append).unit("job", job="j1") as crash:
        raise KeyError("secret")
    assert counted == ["job"]
    assert [(event["event"], event["job"]) for event in events] == [("job_crashed", "j1")]
    assert "KeyError" in crash.message
    assert "secret" not in crash.message


def test_work_that_goes_well_leaves_no_trace() -> None:
    """No event, no error and no message."""
    with capture_logs() as events, CrashBoundary().unit("job") as crash:
        pass
    assert (events, crash.error, crash.message) == ([], None, "")


def test_an_expected_error_passes_through() -> None:
    """The caller has its own answer to it."""
    with pytest.raises(StoreError), CrashBoundary().unit("job", expected=(StoreError,)):
        raise StoreError


async def test_a_cancellation_that_nobody_asked_for_is_a_crash() -> None:
    """It comes from a library, or from another task that was waited for."""
    with capture_logs(), CrashBoundary().unit("job") as crash:
        raise asyncio.CancelledError
    assert isinstance(crash.error, asyncio.CancelledError)


async def test_a_cancelled_task_ends() -> None:
    """A boundary must not keep a task alive that is to stop."""
    entered = asyncio.Event()

    async def work() -> None:
        with CrashBoundary().unit("job"):
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_an_error_without_detail_says_what_its_class_says() -> None:
    """The docstring of the class is the message."""
    assert str(JobTesterError()) == "Something is wrong with the tester."
    assert str(StoreError("disk")) == "disk"


def test_a_configuration_error_lists_every_problem() -> None:
    """One line for each, so that all can be mended at once."""
    error = ConfigError.from_problems("config.toml is not usable", ["a: x", "b: y"])
    assert str(error) == "config.toml is not usable:\n  a: x\n  b: y"
    assert error.problems == ("a: x", "b: y")
    assert error.exit_code == 2
