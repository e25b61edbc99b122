"""Run as `python -m jobtester` or `jobtester`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and leave with its exit code."""
    from jobtester.cli import commands

    sys.exit(commands.run(sys.argv[1:]))


if __name__ == "__main__":
    main()
