"""Start the program's own modules as child processes that know none of its secrets."""

from __future__ import annotations

import os
import sys

# All that a child inherits. What decodes strangers' bytes must not have the Leaderboard's key in its environment.
_INHERITED_VARIABLES = ("PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "TMPDIR")


def module_command(module: str) -> tuple[str, ...]:
    """Return the command that runs a module; -P keeps the working directory off its path."""
    return (sys.executable, "-P", "-m", module)


def child_environment() -> dict[str, str]:
    """Return an environment with the program's modules and without its secrets."""
    return {
        **{name: os.environ[name] for name in _INHERITED_VARIABLES if name in os.environ},
        # -P keeps the working directory off the path, so where it is wanted it has to be named.
        "PYTHONPATH": os.pathsep.join(entry or os.getcwd() for entry in sys.path),  # noqa: PTH109
    }
