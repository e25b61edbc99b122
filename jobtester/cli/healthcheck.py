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
    url = options.url or f"{_configured_url(Path(options.config))}/healthz"
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


def local_url(host: str, port: object) -> str:
    """Return the URL at which a daemon that listens on `host` is reached from its own machine."""
    if host in ("", "0.0.0.0", "::", "*"):  # noqa: S104 - every address, and so the local one too
        host = "::1" if host == "::" else "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _configured_url(path: Path) -> str:
    """Return where the daemon listens, found as the daemon finds it: environment, secret files, file, default."""
    return local_url(str(_value("host", path, "0.0.0.0")), _value("port", path, 7934))  # noqa: S104 - as settings has it


def _value(name: str, path: Path, default: object) -> object:
    key = f"server__{name}"
    for variable, text in environ.items():
        if variable.lower() == f"jobtester_{key}":
            return text.strip()
    for file in (f"{key}", f"jobtester_{key}"):
        try:
            return (Path(environ.get("JOBTESTER_SECRETS_DIR", "/run/secrets")) / file).read_text("utf-8-sig").strip()
        except (OSError, ValueError):
            continue
    try:
        server = tomllib.loads(path.read_text("utf-8-sig")).get("server")
    except (OSError, ValueError):
        return default
    return server.get(name, default) if isinstance(server, dict) else default
