"""Run a worker: evaluate the answers that arrive on standard input, within limits that the system enforces.

The worker ends when the daemon is gone, and outlives no task by more than the processor time that the task may take.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from jobtester.checks import audio, image
from jobtester.checks.base import CheckFailedError
from jobtester.checks.evaluation import CheckReport, CheckTask, evaluate
from jobtester.checks.preview import make_preview
from jobtester.checks.registry import load_decoders
from jobtester.checks.sound import decode_sound
from jobtester.checks.worker_protocol import encode_received, encode_report, receive_message, receive_task, send_message
from jobtester.domain.reasons import Fault, Finding

_MEMORY_BYTES = 160 * 2**20  # for one task, beyond what the worker itself has loaded
_NICENESS = 5  # of 19: the event loop, which measures times, goes first; a check can wait a little
_PICTURE_FORMATS = ("PNG", "JPEG", "GIF")
_SOUND_FORMATS = ("wav", "flac", "mp3", "ogg")
_MIN_SOUND_S = 1.0


def main() -> None:
    """Work on tasks until the daemon is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the daemon, which ends its workers itself
    os.nice(_NICENESS)
    # A decoder that a file has taken over leaves no core dump, writes no file and opens few.
    for limit, value in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_NOFILE, 64)):
        resource.setrlimit(limit, (value, value))
    with Connection(sys.stdin.fileno()) as link, contextlib.suppress(EOFError, OSError):
        handler = _Handler(link)
        while True:
            send_message(link, handler.handle(receive_message(link)))


class _Handler:
    """Answers the daemon's messages; keeps the latest task until the next message, which may ask for its preview."""

    def __init__(self, link: Connection) -> None:
        self._link = link
        self._limits = _TaskLimits()
        self._latest: CheckTask | None = None

    def handle(self, message: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to a message."""
        # Decoders are loaded before the limits apply: loading them is not the answer's doing.
        latest, self._latest = self._latest, None
        if "preview" in message:
            return self._preview(latest, message["preview"], message["cpu_s"])
        latest = None  # its memory is needed for what comes now
        if "inspect" in message:
            content = self._link.recv_bytes()
            (image if message["inspect"] == "image" else audio).load_decoders()
            with self._limits.applied(message["cpu_s"], len(content)):
                return inspect_media(content, message["inspect"])
        self._latest = task = receive_task(self._link, message["task"])
        load_decoders(task.expectation.checks)
        try:
            with self._limits.applied(message["cpu_s"], task.size):
                report = evaluate(task)
        except MemoryError:
            finding = Finding(
                "body", "too_heavy", "the answer needs more memory to read than the tester grants", Fault.TESTER
            )
            report = CheckReport((finding,))
        return encode_report(report)

    def _preview(self, task: CheckTask | None, max_bytes: int, cpu_s: float) -> dict[str, Any]:
        # Whatever stands in the way, the answer is judged already: then there is no preview.
        if task is not None:
            image.load_decoders()
            with contextlib.suppress(Exception), self._limits.applied(cpu_s, task.size):
                return encode_received(make_preview(task, max_bytes))
        return encode_received(None)


def inspect_media(content: bytes, kind: str) -> dict[str, Any]:
    """Return the facts of a test input, an `image` or `audio` file, before it is sent to anybody.

    They are its size in pixels or its duration in seconds, or under `problem` why it must not be sent.
    """
    try:
        if kind == "image":
            picture = image.decode_image(content)
            if (picture.format or "").replace("MPO", "JPEG") not in _PICTURE_FORMATS:
                return {"problem": f"is {picture.format}; gateways take PNG, JPEG and GIF only"}
            return {"width": picture.width, "height": picture.height, "pixels": image.pixel_digest(picture)}
        sound = decode_sound(content)
    except CheckFailedError as error:
        return {"problem": error.message}
    if sound.form not in _SOUND_FORMATS:
        return {"problem": f"is {sound.form}; gateways are safe with WAV, FLAC and MP3 only"}
    if sound.seconds < _MIN_SOUND_S:
        return {"problem": f"lasts {sound.seconds:.2f} s; gateways take nothing below {_MIN_SOUND_S:g} s"}
    return {"duration_s": round(sound.seconds, 3)}


class _TaskLimits:
    """Limits of one task on processor time, which ends the worker, and on memory, which raises MemoryError."""

    def __init__(self) -> None:
        self._module_count = 0
        self._base_bytes = 0

    @contextlib.contextmanager
    def applied(self, cpu_s: float, size: int) -> Iterator[None]:
        """Limit what runs inside; `size` bytes of the task are in memory already."""
        # The worker's own size is measured again only after it has loaded modules: what earlier tasks left in the
        # allocator would otherwise raise the limit from task to task.
        if self._module_count != len(sys.modules):
            self._module_count = len(sys.modules)
            try:
                pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
                self._base_bytes = pages * resource.getpagesize() - size
            except (OSError, ValueError):  # a system without /proc: then memory is not limited
                self._base_bytes = 0
        if self._base_bytes > 0:
            resource.setrlimit(resource.RLIMIT_AS, (self._base_bytes + _MEMORY_BYTES, resource.RLIM_INFINITY))
        # ITIMER_PROF counts processor time, not wall time, so a busy machine is held against nobody. Nothing handles
        # its signal: a decoder deep inside a C loop could not be interrupted in any other way.
        signal.setitimer(signal.ITIMER_PROF, cpu_s)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


if __name__ == "__main__":
    main()
