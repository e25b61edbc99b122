"""`jobtester serve`: the daemon."""

from __future__ import annotations

import argparse
import asyncio

import structlog

from jobtester import __version__, configuration, daemon
from jobtester.configuration import Configuration

log = structlog.get_logger()


def serve(options: argparse.Namespace) -> int:
    """Run the daemon until a signal stops it."""
    loaded = configuration.with_logs(configuration.load(options.config))
    asyncio.run(_serve(loaded))
    return 0


async def _serve(loaded: Configuration) -> None:
    async with daemon.opened(loaded, follow=True) as running:
        log.info("serving", version=__version__, port=running.port, config=loaded.origin, region=loaded.settings.region)
        await running.serve()
    log.info("stopped")
