"""Run the command line, as `python -m jobtester` or `jobtester`."""

from __future__ import annotations

import os
import signal
import sys

INTERRUPTED = 130


def main() -> None:
    """Run the command line and exit with its code."""
    # Ctrl-C ends the process at once while modules are imported and when the command is over: nothing has to be
    # cleaned up then, and a traceback out of an import helps nobody. The command itself is interrupted as usual.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored, as under nohup
        signal.signal(signal.SIGINT, _exit_now)
    from jobtester.cli import main

    sys.exit(main.run(sys.argv[1:]))


def _exit_now(*_: object) -> None:
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    main()
