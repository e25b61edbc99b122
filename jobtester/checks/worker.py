"""Start, use and stop the processes that decode untrusted files."""

from __future__ import annotations

import signal
import socket
import struct
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from jobtester.checks.evaluation import CheckReport, CheckTask
from jobtester.checks.worker_protocol import decode_received, decode_report, receive_message, send_message, send_task
from jobtester.child_process import child_environment, module_command
from jobtester.domain.result_details import ReceivedFile

_EXIT_TIMEOUT_S = 2.0


class WorkerLostError(Exception):
    """The worker ended before it answered; `exceeded_cpu` is true if it used up its processor time."""

    def __init__(self, message: str, *, exceeded_cpu: bool = False) -> None:
        super().__init__(message)
        self.exceeded_cpu = exceeded_cpu


@dataclass(slots=True, eq=False)
class Worker:
    """One process. Every call blocks, for at most `wall_s` seconds without progress, so it belongs on a thread."""

    process: subprocess.Popen[bytes]
    link: Connection

    @classmethod
    def start(cls, *, wall_s: float = 20.0) -> Worker:
        """Start a process, which knows the program's modules but none of its secrets. Raises OSError."""
        ours, theirs = socket.socketpair()
        # A connection has no timeout of its own, and a stopped worker would block a send as well as a receive. The
        # kernel's timeouts hold for both.
        timeout = struct.pack("ll", int(wall_s), int(wall_s % 1 * 1e6))
        for option in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
            ours.setsockopt(socket.SOL_SOCKET, option, timeout)
        try:
            with theirs:
                process = subprocess.Popen(  # noqa: S603 - the command is fixed
                    module_command("jobtester.checks"),
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env=child_environment(),
                )
        except OSError:
            ours.close()
            raise
        return cls(process, Connection(ours.detach()))

    @property
    def is_alive(self) -> bool:
        """Return True if the process still runs."""
        return self.process.poll() is None

    def evaluate(self, task: CheckTask, *, cpu_s: float) -> CheckReport:
        """Return the report on a task. Raises WorkerLostError, after which the worker is gone."""
        return decode_report(self._request(lambda: send_task(self.link, task, cpu_s=cpu_s)))

    def preview(self, *, max_bytes: int, cpu_s: float) -> ReceivedFile | None:
        """Return the file of the task that was evaluated last, made small. Raises WorkerLostError."""
        message = self._request(lambda: send_message(self.link, {"preview": max_bytes, "cpu_s": cpu_s}))
        try:
            file = decode_received(message)
        except (KeyError, TypeError, ValueError) as error:
            self.kill()
            raise WorkerLostError("the worker sent no preview") from error
        return file if file is not None and len(file.content) <= max_bytes else None

    def inspect(self, content: bytes, kind: str, *, cpu_s: float) -> dict[str, Any]:
        """Return what `inspect_media` finds out about a test input. Raises WorkerLostError."""

        def send() -> None:
            send_message(self.link, {"inspect": kind, "cpu_s": cpu_s})
            self.link.send_bytes(content)

        return self._request(send)

    def stop(self) -> None:
        """End the process: it exits when its input ends, and is killed if it does not."""
        self.link.close()
        try:
            self.process.wait(_EXIT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End the process at once, whatever it does."""
        self.process.kill()
        self.process.wait()
        self.link.close()

    def _request(self, send: Callable[[], None]) -> dict[str, Any]:
        try:
            send()
            return receive_message(self.link)
        except BlockingIOError:
            self.kill()
            raise WorkerLostError("the worker did not answer in time") from None
        except (OSError, EOFError, ValueError) as error:
            self.kill()
            returncode = self.process.returncode
            if returncode == -signal.SIGPROF:
                raise WorkerLostError("the processor time was used up", exceeded_cpu=True) from error
            cause = signal.Signals(-returncode).name if returncode < 0 else f"exit code {returncode}"
            raise WorkerLostError(f"the worker ended with {cause}") from error
