"""Workers: processes that look at answers, and can be killed."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from jobtester.checks.evaluation import CheckReport, CheckTask, decode_report, read_message, write_message, write_task

_COMMAND = (sys.executable, "-P", "-m", "jobtester.checks")
_KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "TMPDIR")
_GOING_S = 2.0


class WorkerLostError(Exception):
    """The worker ended before it answered: `overrun` tells that it used up its processor time."""

    def __init__(self, message: str, *, exceeded_cpu: bool = False) -> None:
        """Keep both."""
        super().__init__(message)
        self.exceeded_cpu = exceeded_cpu


@dataclass(slots=True, eq=False)
class Worker:
    """One process. All calls block, for at most `wall_s` seconds, so they belong on a thread."""

    process: subprocess.Popen[bytes]
    link: socket.socket
    stream: BinaryIO

    @classmethod
    def start(cls, *, wall_s: float = 20.0) -> Worker:
        """Start a process; it knows our modules but none of our secrets."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                process = subprocess.Popen(  # noqa: S603 - the command is fixed
                    _COMMAND,
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env=_environment(),
                )
        except OSError:
            ours.close()
            raise
        ours.settimeout(wall_s)
        return cls(process, ours, cast("BinaryIO", ours.makefile("rwb")))

    @property
    def is_alive(self) -> bool:
        """Tell whether the process still runs."""
        return self.process.poll() is None

    def evaluate(self, task: CheckTask, *, cpu_s: float) -> CheckReport:
        """Have a task looked at. Raises WorkerLostError, after which the worker is gone."""

        def give(out: BinaryIO) -> None:
            write_task(task, out, cpu_s=cpu_s)

        return decode_report(self._ask(give))

    def inspect(self, content: bytes, kind: str, *, cpu_s: float) -> dict[str, Any]:
        """Have a test input inspected, as checks.inspection says. Raises WorkerLostError."""

        def give(out: BinaryIO) -> None:
            write_message({"inspect": kind, "size": len(content), "cpu_s": cpu_s}, out)
            out.write(content)
            out.flush()

        return self._ask(give)

    def stop(self) -> None:
        """End the process: it goes by itself when its input ends, and is killed where it does not."""
        self._hang_up()
        try:
            self.process.wait(_GOING_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End the process at once, whatever it does."""
        self.process.kill()
        self.process.wait()
        self._hang_up()

    def _ask(self, give: Callable[[BinaryIO], None]) -> dict[str, Any]:
        try:
            give(self.stream)
            answer = read_message(self.stream)
        except TimeoutError:
            self.kill()
            raise WorkerLostError("the worker did not answer in time") from None
        except (OSError, ValueError):
            answer = None
        if answer is None:
            self.kill()
            ended = -(self.process.returncode or 0)
            if ended == signal.SIGPROF:
                raise WorkerLostError("the processor time was used up", exceeded_cpu=True)
            raise WorkerLostError(f"the worker ended with {_named(ended)}")
        return answer

    def _hang_up(self) -> None:
        with contextlib.suppress(OSError):  # what was still to be sent has nobody to go to
            self.stream.close()
        self.link.close()


def _environment() -> dict[str, str]:
    here = os.getcwd()  # noqa: PTH109 - sys.path holds texts
    known = os.pathsep.join(entry or here for entry in sys.path)
    return {**{name: os.environ[name] for name in _KEPT if name in os.environ}, "PYTHONPATH": known}


def _named(ended: int) -> str:
    try:
        return signal.Signals(ended).name
    except ValueError:
        return f"exit code {-ended}"
