"""`jobtester serve`: run the daemon, and wait for room where the disk is full."""

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

_DISK_CHECK_INTERVAL_S = 1.0


def serve(options: argparse.Namespace) -> int:
    """Run the daemon until a signal stops it."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # asks for a reload, and the file is about to be loaded anyway
    configuration = Configuration.load(options.config)
    configuration.apply_log_settings()
    asyncio.run(_serve(configuration))
    return 0


async def _serve(configuration: Configuration) -> None:
    """Run the daemon; while the store's disk is full, answer requests and wait instead of ending.

    A container that ended would be started again at once, over and over, and nobody could ask it why.
    """
    problem = ""
    while True:
        async with AsyncExitStack() as stack:
            try:
                daemon = await stack.enter_async_context(open_daemon(configuration, watch_config=True))
            except DiskFullError as error:
                if not problem:
                    log.error("store_full", problem=str(error))
                problem = str(error)
            else:
                if problem:
                    log.info("store_recovered", path=configuration.settings.store.path)
                await daemon.serve()
                break
        if await _is_stopped_before_room(configuration, problem):
            break
    log.info("stopped")


async def _is_stopped_before_room(configuration: Configuration, problem: str) -> bool:
    """Answer requests until the store's disk has room; return True if a signal came first."""
    stop, loop, server = asyncio.Event(), asyncio.get_running_loop(), configuration.settings.server
    signals = (signal.SIGTERM, signal.SIGINT)
    for number in signals:
        loop.add_signal_handler(number, stop.set)
    try:
        async with serve_unready(server.host, server.port, problem):
            while not stop.is_set():
                try:
                    await asyncio.wait_for(stop.wait(), _DISK_CHECK_INTERVAL_S)
                except TimeoutError:
                    if await asyncio.to_thread(has_room, Path(configuration.settings.store.path).parent):
                        break
    finally:
        for number in signals:
            loop.remove_signal_handler(number)
    return stop.is_set()
