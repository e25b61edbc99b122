"""Run a decoder process: decode one stream from standard input, within limits that the system enforces."""

from __future__ import annotations

import base64
import contextlib
import math
import os
import resource
import signal
import sys
from pathlib import Path

import av.logging
from PIL import JpegImagePlugin  # noqa: F401 - loaded before memory is limited

from jobtester.video.arriving_stream import ArrivingStream
from jobtester.video.decoder_options import DecoderLimits, DecoderOptions
from jobtester.video.decoder_protocol import send_line
from jobtester.video.frame_reader import FrameReader, StreamError
from jobtester.video.stills import StillCollector, make_strip

_NICENESS = 5  # of 19: the event loop, which measures times, goes first


def main() -> None:
    """Decode until the stream ends, breaks a limit, or the daemon is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the daemon, which ends its decoders itself
    os.nice(_NICENESS)
    options = DecoderOptions.from_argument(sys.argv[1])
    _apply_limits(options.limits)
    av.logging.set_level(av.logging.PANIC)
    collector = StillCollector(options.stills)
    reader = FrameReader(ArrivingStream(sys.stdin.buffer), options)
    with contextlib.suppress(BrokenPipeError):
        problem = _decode(reader, collector)
        stills = collector.stills()
        # The strip is made here, where a hostile picture can do no harm.
        strip = make_strip(stills)
        for still in [*stills, strip] if strip is not None else stills:
            jpeg = base64.b64encode(still.jpeg).decode()
            send_line(sys.stdout.buffer, {"still": [still.index, still.arrived, still.why, jpeg]})
        send_line(sys.stdout.buffer, {"end": problem, "damaged": reader.damaged})


def _decode(reader: FrameReader, collector: StillCollector) -> tuple[str, str] | None:
    count = 0
    try:
        for record, frame in reader.frames():
            send_line(sys.stdout.buffer, {"frame": record.as_message()})
            collector.add(record, frame)
            count += 1
    except StreamError as error:
        return error.code, str(error)
    except MemoryError:
        return "too_heavy", "decoding needs more memory than the tester grants"
    return None if count else ("no_video", "the stream has no frame that can be decoded")


def _apply_limits(limits: DecoderLimits) -> None:
    # A decoder that a stream has taken over leaves no core dump, writes no file and opens few.
    for limit, value in ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_NOFILE, 64)):
        resource.setrlimit(limit, (value, value))
    cpu_s = math.ceil(limits.cpu_s)
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))
    # A system without /proc does not limit memory.
    with contextlib.suppress(OSError, ValueError):
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
        size = pages * resource.getpagesize() + limits.memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (size, size))


if __name__ == "__main__":
    main()
