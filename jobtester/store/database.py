"""One SQLite file: a writer thread that commits in groups, and a reader beside it."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import structlog

from jobtester.errors import StoreError
from jobtester.store import schema

log = structlog.get_logger()

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], Any]

_MOST_AT_ONCE = 256
_BUSY_MS = 5_000
_CHECKED_BYTES = 64 * 2**20  # larger files would take too long to check at every start


class Database:
    """The file of one tester. write() returns when its transaction is committed.

    WAL with synchronous=NORMAL: a commit survives the death of the process, which is what kills testers; after a power
    cut the newest commits may be missing, but never half of one.
    """

    def __init__(self, path: Path) -> None:
        """Name the file; nothing is opened yet."""
        self.path = path
        self.set_aside: Path | None = None
        self.problem = ""
        self._queue: queue.SimpleQueue[tuple[Work, asyncio.Future[Any]] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._readers = ThreadPoolExecutor(1, "store-reader")
        self._lock: int | None = None

    @property
    def writable(self) -> bool:
        """Tell whether the newest attempt to write went well."""
        return not self.problem

    async def open(self, *, owner: bool = True) -> None:
        """Open the file, making or migrating it. Raises StoreError with what to do.

        The owner alone may hold it for writing its own ticks; a damaged file is set aside under a dated name.
        """
        self._loop = asyncio.get_running_loop()
        await asyncio.to_thread(self._open, owner)
        self._thread = threading.Thread(target=self._write_on, name="store-writer", daemon=True)
        self._thread.start()

    async def close(self) -> None:
        """Finish what is waiting and close."""
        if self._thread is not None:
            self._queue.put(None)
            await asyncio.to_thread(self._thread.join)
            self._thread = None
        self._readers.shutdown(wait=True)
        for connection in (self._reader, self._writer):
            if connection is not None:
                connection.close()
        self._reader = self._writer = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` inside a transaction and give what it returns once that is committed.

        What else waits is committed with it; if `work` raises, only its own changes are undone. Raises StoreError
        where the file cannot be written, e.g. because the disk is full.
        """
        assert self._loop is not None, "open() comes first"
        if self._thread is None or not self._thread.is_alive():
            raise StoreError("the store is closed")
        future: asyncio.Future[T] = self._loop.create_future()
        self._queue.put((work, future))
        return await asyncio.shield(future)

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` on a connection that can only read, in a thread of its own."""
        assert self._loop is not None, "open() comes first"
        assert self._reader is not None, "open() comes first"
        reader = self._reader
        try:
            return await self._loop.run_in_executor(self._readers, lambda: work(reader))
        except sqlite3.Error as error:
            raise StoreError(f"store.path: {self.path}: cannot be read: {error}") from error

    async def probe(self) -> bool:
        """Try a tiny write, so that a full disk that has room again is noticed; tell whether it went well."""
        try:
            await self.write(_touch)
        except StoreError:
            return False
        return True

    def _open(self, owner: bool) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if owner:
                self._claim()
            self._connect()
        except sqlite3.DatabaseError as error:
            if not _damaged(error) or not owner:
                raise self._unusable(error) from error
            self._put_aside()
            try:
                self._connect()
            except sqlite3.Error as again:
                raise self._unusable(again) from again
        except OSError as error:
            raise self._unusable(error) from error

    def _claim(self) -> None:
        """Hold the file as its only owner, until this process ends however it ends."""
        self._lock = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StoreError(
                f"store.path: {self.path} is in use by another jobtester; stop it, or set another path"
            ) from error

    def _connect(self) -> None:
        writer = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=_BUSY_MS / 1000)
        try:
            writer.execute("PRAGMA auto_vacuum = INCREMENTAL")
            writer.execute("PRAGMA journal_mode = WAL")
            writer.execute("PRAGMA synchronous = NORMAL")
            if self.path.stat().st_size < _CHECKED_BYTES:
                found = writer.execute("PRAGMA quick_check(1)").fetchone()
                if found != ("ok",):
                    raise sqlite3.DatabaseError(f"malformed: {found}")
            schema.migrate(writer)
            writer.execute("INSERT OR REPLACE INTO pulse VALUES (1, ?)", (time.time(),))
        except BaseException:
            writer.close()
            raise
        self._writer = writer
        self._reader = sqlite3.connect(
            f"file:{self.path}?mode=ro", uri=True, check_same_thread=False, isolation_level=None
        )
        self._reader.execute("PRAGMA query_only = 1")

    def _put_aside(self) -> None:
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        self.set_aside = self.path.with_name(f"{self.path.name}.damaged-{stamp}")
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                Path(f"{self.path}{suffix}").rename(f"{self.set_aside}{suffix}")
        log.error("store_damaged", path=str(self.path), kept_as=str(self.set_aside), problem="a new file was begun")

    def _unusable(self, error: Exception) -> StoreError:
        return StoreError(f"store.path: {self.path} cannot be used: {error}")

    def _write_on(self) -> None:
        """Take waiting work in groups until the end is announced."""
        ending = False
        while not ending:
            group = [self._queue.get()]
            with contextlib.suppress(queue.Empty):
                while len(group) < _MOST_AT_ONCE:
                    group.append(self._queue.get_nowait())
            ending = None in group
            work = [item for item in group if item is not None]
            if work:
                self._commit(work)

    def _commit(self, group: list[tuple[Work, asyncio.Future[Any]]]) -> None:
        assert self._writer is not None
        assert self._loop is not None
        writer, outcomes = self._writer, []
        try:
            writer.execute("BEGIN IMMEDIATE")
            for work, _ in group:
                outcomes.append(_attempt(writer, work))
            writer.execute("COMMIT")
            failure = None
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error):
                writer.execute("ROLLBACK")
            failure = StoreError(f"store.path: {self.path}: cannot be written: {error}")
        if failure is not None:
            if not self.problem:
                log.error("store_not_writable", problem=str(failure))
            self.problem = str(failure)
            outcomes = [(None, failure)] * len(group)
        elif self.problem:
            log.info("store_writable_again", path=str(self.path))
            self.problem = ""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(_tell, group, outcomes)


def _attempt(writer: sqlite3.Connection, work: Work) -> tuple[Any, Exception | None]:
    """Run one piece of work under a savepoint; errors of the file itself end the whole group."""
    writer.execute("SAVEPOINT one")
    try:
        value = work(writer)
    except (sqlite3.OperationalError, sqlite3.InternalError):
        raise
    except Exception as error:
        writer.execute("ROLLBACK TO one")
        writer.execute("RELEASE one")
        return None, error
    writer.execute("RELEASE one")
    return value, None


def _tell(group: list[tuple[Work, asyncio.Future[Any]]], outcomes: list[tuple[Any, Exception | None]]) -> None:
    for (_, future), (value, error) in zip(group, outcomes, strict=True):
        if future.done():
            continue
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(value)


def _touch(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE pulse SET at = ? WHERE id = 1", (time.time(),))


def _damaged(error: sqlite3.DatabaseError) -> bool:
    text = str(error)
    return "malformed" in text or "not a database" in text or "corrupt" in text
