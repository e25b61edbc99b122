"""`jobtester healthcheck`: for the container."""

from __future__ import annotations

import argparse
import sys
import tomllib
import urllib.error
import urllib.request
from os import environ
from pathlib import Path


def healthcheck(options: argparse.Namespace) -> int:
    """Ask the daemon on this machine; 0 if it is healthy. Imports little, since it is run every few seconds."""
    url = options.url or f"http://127.0.0.1:{_port(Path(options.config))}/healthz"
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=5) as answer:
            healthy = bool(answer.status == 200)
    except urllib.error.HTTPError as error:
        print(f"unhealthy: {url} answered {error.code}: {error.read(500).decode('utf-8', 'replace')}", file=sys.stderr)  # noqa: T201
        return 1
    except (OSError, ValueError) as error:
        print(f"unhealthy: {url}: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0 if healthy else 1


def _port(path: Path) -> int:
    """Find the port as the daemon does: the environment first, then the file, then the default."""
    given = environ.get("JOBTESTER_SERVER__PORT")
    if given and given.isdecimal():
        return int(given)
    try:
        port = tomllib.loads(path.read_text("utf-8")).get("server", {}).get("port", 7934)
    except (OSError, ValueError):
        port = 7934
    return port if isinstance(port, int) else 7934
