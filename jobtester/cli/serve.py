"""`jobtester serve`: the daemon."""

from __future__ import annotations

import argparse
import asyncio
import signal
from contextlib import AsyncExitStack
from pathlib import Path

import structlog

from jobtester.configuration import Configuration
from jobtester.daemon.bootstrap import open_daemon
from jobtester.errors import DiskFullError
from jobtester.store.database_file import has_room
from jobtester.web.starting import serve_unready

log = structlog.get_logger()

_ROOM_AGAIN_S = 1.0


def serve(options: argparse.Namespace) -> int:
    """Run the daemon until a signal stops it."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # it asks for a reload, and what starts is about to load
    loaded = Configuration.load(options.config)
    loaded.apply_log_settings()
    asyncio.run(_serve(loaded))
    return 0


async def _serve(loaded: Configuration) -> None:
    problem = ""
    while True:
        async with AsyncExitStack() as stack:
            try:
                running = await stack.enter_async_context(open_daemon(loaded, watch_config=True))
            except DiskFullError as error:
                if not problem:
                    log.error("store_full", problem=str(error))
                problem = str(error)
            else:
                if problem:
                    log.info("store_recovered", path=loaded.settings.store.path)
                await running.serve()
                break
        if await _stopped_before_room(loaded, problem):
            break
    log.info("stopped")


async def _stopped_before_room(loaded: Configuration, problem: str) -> bool:
    """Wait for room on the store's disk, and answer meanwhile; return True if a signal came first."""
    stop, loop, server = asyncio.Event(), asyncio.get_running_loop(), loaded.settings.server
    signals = (signal.SIGTERM, signal.SIGINT)
    for number in signals:
        loop.add_signal_handler(number, stop.set)
    try:
        async with serve_unready(server.host, server.port, problem):
            while not stop.is_set():
                try:
                    await asyncio.wait_for(stop.wait(), _ROOM_AGAIN_S)
                except TimeoutError:
                    if await asyncio.to_thread(has_room, Path(loaded.settings.store.path).parent):
                        break
    finally:
        for number in signals:
            loop.remove_signal_handler(number)
    return stop.is_set()
