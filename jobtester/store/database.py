"""One SQLite file: a writer thread that commits in groups, and readers beside it."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import structlog

from jobtester.errors import CrashBoundary, StoreError
from jobtester.store.database_file import (
    OpenedDatabase,
    explain,
    is_file_error,
    mark_suspect,
    open_database,
    open_reader,
    store_error,
    touch,
)

log = structlog.get_logger()

Item = TypeVar("Item")
T = TypeVar("T")
Work = Callable[[sqlite3.Connection, Sequence[Any]], Sequence[Any]]
Ending = tuple[Any, Exception | None]

_MOST_AT_ONCE = 256
_TOLD_AT_ONCE = 16  # those who are told go on at once; the loop turns in between
_GATHER_S = 0.01
_GATHER_LONGER_S = 0.03  # for what can be done together, which gains by it
_ENOUGH = 16  # who has so many company need not wait for more
_READERS = 3


class QueuedWrite(NamedTuple):
    """Work that waits for its transaction, the one thing it is about, and who waits for it."""

    work: Work
    item: Any
    future: asyncio.Future[Any]


class Database:
    """The file of one tester. write() returns when its transaction is on the disk.

    Commits are synchronised with the disk (WAL, synchronous=FULL), so that neither the death of the process nor a power
    cut takes back what write() has returned; committing in groups is what makes that cheap.
    """

    def __init__(self, path: Path, *, crashes: CrashBoundary | None = None) -> None:
        """Name the file; nothing is opened yet. Unexpected errors of the writer are counted as crashes of `store`."""
        self.path = path
        self._crashes = crashes or CrashBoundary()
        self.damaged_copy: Path | None = None
        self.problem = ""
        self._queue: queue.SimpleQueue[list[QueuedWrite] | None] = queue.SimpleQueue()
        self._gathered: list[QueuedWrite] = []
        self._due = float("inf")
        self._crowded = False
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opened: OpenedDatabase | None = None
        self._readers: ThreadPoolExecutor | None = None
        self._reading = threading.local()
        self._reader_connections: list[sqlite3.Connection] = []

    @property
    def is_writable(self) -> bool:
        """Tell whether the newest attempt to write went well."""
        return not self.problem

    async def open(self, *, owner: bool = True) -> None:
        """Open the file, making or migrating it. Raises StoreError with what to do.

        The owner alone may hold it for writing its own ticks; a damaged file is set aside under a dated name.
        """
        self._loop = asyncio.get_running_loop()
        self._opened = await asyncio.to_thread(open_database, self.path, owner=owner)
        self.damaged_copy = self._opened.damaged_copy
        self._readers = ThreadPoolExecutor(_READERS, "store-reader")
        self._thread = threading.Thread(target=self._write_on, args=(self._opened,), name="store-writer", daemon=True)
        self._thread.start()

    async def close(self) -> None:
        """Finish what is waiting and close; what is asked for later raises StoreError."""
        thread, readers, opened = self._thread, self._readers, self._opened
        self._thread = self._readers = self._opened = None
        if thread is not None:
            self._hand_over()
            self._queue.put(None)
            await asyncio.to_thread(thread.join)
        if readers is not None:
            await asyncio.to_thread(readers.shutdown)
        while self._reader_connections:
            self._reader_connections.pop().close()
        if opened is not None:
            opened.close()

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` inside a transaction and give what it returns once that is committed.

        What else waits is committed with it; if `work` raises, only its own changes are undone. It may be run twice, and
        must change nothing but the file. Raises StoreError where the file cannot be written, e.g. because the disk is
        full.
        """
        return await self._written(lambda db, _: (work(db),), None, _GATHER_S)

    async def write_grouped(self, work: Callable[[sqlite3.Connection, Sequence[Item]], Sequence[T]], item: Item) -> T:
        """Do the same, for `item` and what others give to the same `work` at the same time, all of it in one call.

        `work` returns as many things as it was given. If it raises, it is run again with each item alone.
        """
        return await self._written(work, item, _GATHER_LONGER_S)

    async def _written(
        self, work: Callable[[sqlite3.Connection, Sequence[Item]], Sequence[T]], item: Item, patience_s: float
    ) -> T:
        if self._thread is None or self._loop is None:
            raise StoreError(f"store.path: {self.path} is closed")
        future: asyncio.Future[T] = self._loop.create_future()
        self._gathered.append(QueuedWrite(work, item, future))
        due = self._loop.time() + (patience_s if self._crowded else 0.0)
        if len(self._gathered) >= _ENOUGH:
            self._hand_over()
        elif due < self._due:
            self._due = due
            self._loop.call_at(due, self._hand_over)
        return await future

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` on a connection that can only read, in a thread. Raises StoreError if the file is unreadable."""
        if self._readers is None or self._loop is None:
            raise StoreError(f"store.path: {self.path} is closed")
        return await self._loop.run_in_executor(self._readers, self._read, work)

    async def check_writable(self) -> bool:
        """Try a tiny write, so that a full disk that has room again is noticed; tell whether it went well."""
        try:
            await self.write(touch)
        except StoreError:
            return False
        return True

    def _hand_over(self) -> None:
        """Give the writer what has gathered.

        Where several write at a time, a little is waited for more: waking the writer and committing cost more than many
        a statement, and each takes the interpreter from the event loop.
        """
        if self._gathered:
            self._crowded = len(self._gathered) > 1
            self._queue.put(self._gathered)
            self._gathered, self._due = [], float("inf")

    def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            reader: sqlite3.Connection | None = getattr(self._reading, "connection", None)
            if reader is None:
                reader = self._reading.connection = open_reader(self.path)
                self._reader_connections.append(reader)
            return work(reader)
        except sqlite3.Error as error:
            mark_suspect(self.path, error)
            raise StoreError(f"store.path: {self.path} cannot be read: {explain(error)}") from error

    def _write_on(self, opened: OpenedDatabase) -> None:
        """Take waiting work in groups until the end is announced."""
        ending = False
        while not ending:
            waiting: list[QueuedWrite] = []
            given = self._queue.get()
            with contextlib.suppress(queue.Empty):
                while given is not None:
                    waiting += given
                    if len(waiting) >= _MOST_AT_ONCE:
                        break
                    given = self._queue.get_nowait()
            ending = given is None
            for start in range(0, len(waiting), _MOST_AT_ONCE):
                self._commit(opened, waiting[start : start + _MOST_AT_ONCE])

    def _commit(self, opened: OpenedDatabase, group: list[QueuedWrite]) -> None:
        """Write a group of work and tell everybody who waits for it; whatever happens, the writer goes on."""
        assert self._loop is not None
        endings: list[Ending] = []
        failure: StoreError | None = None
        with self._crashes.unit("store") as crash:
            try:
                opened.require_in_place()
                endings = _transaction(opened.writer, group)
            except sqlite3.Error as error:
                mark_suspect(self.path, error)
                failure = store_error(self.path, "written", error)
            except Exception:
                raise
            except BaseException as error:  # e.g. SystemExit, which would end this thread and leave all waiting
                raise RuntimeError(f"{type(error).__name__} in the writer") from error
        if crash.error is not None:
            failure = StoreError(f"store.path: {self.path} cannot be written: {crash.message}")
        if failure is not None:
            endings = [(None, failure)] * len(group)
            if not self.problem:
                log.error("store_not_writable", problem=str(failure))
            self.problem = str(failure)
        else:
            if self.problem:
                log.info("store_writable_again", path=str(self.path))
            self.problem = ""
        with contextlib.suppress(RuntimeError):  # the loop is gone, and with it whoever waited
            self._loop.call_soon_threadsafe(_tell, self._loop, deque(zip(group, endings, strict=True)))


def _transaction(writer: sqlite3.Connection, group: list[QueuedWrite]) -> list[Ending]:
    """Run a group of work in one transaction. Raises sqlite3.Error, everything undone, if the file is at fault.

    Work seldom raises, so it runs without savepoints, and together what can be; where a piece does, all is undone and
    each is run again on its own.
    """
    try:
        return _committed(writer, group, _all)
    except Exception as error:
        if isinstance(error, sqlite3.Error) and is_file_error(error):
            raise
    return _committed(writer, group, _each)


def _committed(
    writer: sqlite3.Connection,
    group: list[QueuedWrite],
    run: Callable[[sqlite3.Connection, Work, list[Any]], Iterable[Ending]],
) -> list[Ending]:
    try:
        writer.execute("BEGIN IMMEDIATE")
        endings: list[Ending] = []
        for work, same in groupby(group, key=lambda one: one.work):
            endings += run(writer, work, [one.item for one in same])
        writer.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            writer.execute("ROLLBACK")
        raise
    return endings


def _all(writer: sqlite3.Connection, work: Work, items: list[Any]) -> list[Ending]:
    """Run work once for all its items. Raises RuntimeError where it does not return one thing for each."""
    endings: list[Ending] = [(value, None) for value in work(writer, items)]
    if len(endings) != len(items):
        raise RuntimeError(f"work on {len(items)} items returned {len(endings)}")
    return endings


def _each(writer: sqlite3.Connection, work: Work, items: list[Any]) -> list[Ending]:
    """Run work for one item at a time, each under a savepoint; only errors of the file itself end the whole group."""
    endings: list[Ending] = []
    for item in items:
        writer.execute("SAVEPOINT one")
        try:
            endings += _all(writer, work, [item])
        except Exception as error:
            if isinstance(error, sqlite3.Error) and is_file_error(error):
                raise
            writer.execute("ROLLBACK TO one")
            endings.append((None, error))
        writer.execute("RELEASE one")
    return endings


def _tell(loop: asyncio.AbstractEventLoop, ended: deque[tuple[QueuedWrite, Ending]]) -> None:
    """Tell a few who wait how it ended, and the rest in the loop's next turns."""
    for _ in range(min(_TOLD_AT_ONCE, len(ended))):
        waiting, (value, error) = ended.popleft()
        if waiting.future.done():  # nobody waits any more
            continue
        if error is not None:
            waiting.future.set_exception(error)
        else:
            waiting.future.set_result(value)
    if ended:
        loop.call_soon(_tell, loop, ended)
