"""Run a tester on a network that has jobs of every kind: batch, external capabilities, live runners, live video."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from benchmarks import tester as bench
from benchmarks.network import Remote, network

_SCENARIO = Path(__file__).with_name("every_kind.toml")
_VIDEO = {"width": 192, "height": 192, "duration": "4s", "max_gap": "2s", "max_reaction": "3s", "passes_through": True}
_TIMEOUTS = {"timeout": "20s", "cold_timeout": "20s"}
ECHO: dict[str, Any] = {
    "runner": True, "apps": ["*/echo"], "uri": "/say", **_TIMEOUTS, "parameters": {"text": "hello"},
    "checks": [{"check": "json", "path": "text"}],
}  # fmt: skip
_PIPELINES = (
    "llm", "text-to-image", "image-to-text", "audio-to-text", "text-to-speech", "upscale", "hello-world",
    "openai-chat-completions", "openai-text-embeddings", "runner-chat-completions",
)  # fmt: skip


def live_runner_tables(remote: Remote) -> dict[str, Any]:
    """Return the table [live_runner] for the simulated orchestrators of this machine."""
    return {
        "enabled": True,
        "networks": ["127.0.0.0/8"],
        "probe": "reserve",
        "payment": {"signer_url": remote.signer, "max_price_per_job": "0.001 ETH"},
    }


@asynccontextmanager
async def tester(**options: Any) -> AsyncIterator[tuple[Remote, bench.Tester]]:
    """Start the network, and a tester for it. `options` are keys of [limits]."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = int(listener.getsockname()[1])
    async with network(file=str(_SCENARIO), live_callback=port) as remote:
        sections = {
            "delivery": {"miss_after": "5s"},
            "discovery": {"patience": "5s"},
            "live_runner": live_runner_tables(remote),
            "live_video": {
                "callback_host": "127.0.0.1", "host": "127.0.0.1", "port": port, "spacing": "1s",
                "pool_refresh": "36s",
            },
        }  # fmt: skip
        pipelines = {
            **dict.fromkeys(_PIPELINES, _TIMEOUTS),
            "echo": ECHO,
            "live-video-to-video": {"timeout": "8s", "cold_timeout": "8s", "video": _VIDEO},
        }
        options = {"jobs": 32, "busy_backoff": "50ms", **options}
        async with bench.tester(remote, sections=sections, pipelines=pipelines, **options) as running:
            yield remote, running
