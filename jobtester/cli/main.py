"""Run one command and turn what goes wrong into one message and an exit code."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence

from jobtester.cli.parser import make_parser
from jobtester.errors import JobTesterError

USAGE_ERROR = 2
INTERRUPTED = 130


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; errors are one message on stderr."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal's encoding may lack what a name from outside contains
    parser = make_parser()
    try:
        options = parser.parse_args(arguments)
        if not hasattr(options, "handler"):
            parser.print_help()
            return USAGE_ERROR
        if options.verbosity != "normal":
            # Imported only here: loading it takes longer than all that the health check of a container needs.
            from jobtester.logs import set_verbosity

            set_verbosity(options.verbosity)
        with _interruptible():
            code: int = options.handler(options)
        # Here and not at exit, so that a reader that is gone is noticed while it can still be handled.
        sys.stdout.flush()
        return code
    except JobTesterError as error:
        print(f"jobtester: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _discard_output()
        return 1


def _discard_output() -> None:
    """Redirect streams whose reader is gone, so that Python does not complain about them at exit."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError):
                os.dup2(nothing, stream.fileno())


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Raise KeyboardInterrupt at Ctrl-C inside the block, unless SIGINT is ignored as under nohup."""
    previous = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(previous):
        yield
        return
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
