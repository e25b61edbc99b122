"""Ports that are free when they are looked for."""

from __future__ import annotations

import contextlib
import random
import socket


def free_port() -> int:
    """Return a port that nobody uses."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def free_ports() -> tuple[int, int]:
    """Return a first port for the network, whose neighbors it needs are free too, and one for the daemon."""
    for base in random.Random().sample(range(21_000, 30_000), 200):
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for port in (base, base - 1000, base + 1000, base + 2000, base + 1):
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
            return base, base + 1
    raise AssertionError("no free ports")
