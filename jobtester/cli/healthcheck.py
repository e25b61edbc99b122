"""`jobtester healthcheck`: check the daemon on this machine, as containers do every few seconds.

Imports nothing of the product, and reads the few settings that it needs by itself: it must start fast.
"""

from __future__ import annotations

import argparse
import sys
import tomllib
import urllib.error
import urllib.request
from os import environ
from pathlib import Path

_TIMEOUT_S = 5
_BIND_ALL, _DEFAULT_PORT = "0.0.0.0", 7934  # noqa: S104 - the settings' defaults


def healthcheck(options: argparse.Namespace) -> int:
    """Request /healthz; return 0 if the daemon is healthy, else 1 with the reason on stderr."""
    config = Path(options.config)
    host, port = _read_server_setting("host", config, _BIND_ALL), _read_server_setting("port", config, _DEFAULT_PORT)
    url = options.url or f"{local_url(str(host), port)}/healthz"
    try:
        # Without proxies: HTTP_PROXY of the container is meant for the internet, and this is the same machine.
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=_TIMEOUT_S) as response:
            return 0 if response.status == 200 else 1
    except urllib.error.HTTPError as error:
        body = error.read(500).decode("utf-8", "replace")
        print(f"unhealthy: {url} answered {error.code}: {body}", file=sys.stderr)  # noqa: T201
    except (OSError, ValueError) as error:
        print(f"unhealthy: {url}: {error}", file=sys.stderr)  # noqa: T201
    return 1


def local_url(host: str, port: object) -> str:
    """Return the URL at which a daemon that listens on `host` is reached from its own machine."""
    if host in ("", _BIND_ALL, "::", "*"):
        host = "::1" if host == "::" else "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _read_server_setting(name: str, config: Path, default: object) -> object:
    """Return a key of [server] by the precedence of the settings: environment, secret files, file, default."""
    key = f"server__{name}"
    for variable, text in environ.items():
        if variable.lower() == f"jobtester_{key}":
            return text.strip()
    secrets = Path(environ.get("JOBTESTER_SECRETS_DIR", "/run/secrets"))
    for file in (key, f"jobtester_{key}"):
        try:
            return (secrets / file).read_text("utf-8-sig").strip()
        except (OSError, ValueError):
            continue
    try:
        server = tomllib.loads(config.read_text("utf-8-sig")).get("server")
    except (OSError, ValueError):
        return default
    return server.get(name, default) if isinstance(server, dict) else default
