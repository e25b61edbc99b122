"""Write to one SQLite file from one thread that commits in groups, and read it from others."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import structlog

from jobtester.crash_boundary import CrashBoundary
from jobtester.errors import StoreError
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

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]

_MAX_GROUP = 256
_READERS = 3


class QueuedWrite(NamedTuple):
    """Work that waits for its transaction, and the future of who waits for it."""

    work: Work[Any]
    future: asyncio.Future[Any]


class Database:
    """The file of one tester. write() returns when its transaction is on the disk.

    Commits are synchronized with the disk (WAL, synchronous=FULL), so that neither the death of the process nor a power
    cut takes back what write() has returned; committing in groups is what makes that cheap.
    """

    def __init__(self, path: Path, *, crashes: CrashBoundary | None = None) -> None:
        """Name the file; nothing is opened yet. Unexpected errors of the writer are counted as crashes of `store`."""
        self.path = path
        self._crashes = crashes or CrashBoundary()
        self.damaged_copy: Path | None = None
        self.problem = ""
        self._queue: queue.SimpleQueue[QueuedWrite | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opened: OpenedDatabase | None = None
        self._readers: ThreadPoolExecutor | None = None
        self._reading = threading.local()
        self._reader_connections: list[sqlite3.Connection] = []

    @property
    def is_writable(self) -> bool:
        """Return True if the latest attempt to write succeeded."""
        return not self.problem

    async def open(self, *, owner: bool = True) -> None:
        """Open the file and create or migrate it. Raises StoreError with what to do.

        Only one process may own the file, and only the owner runs ticks; it moves a damaged file to a dated name.
        """
        self._loop = asyncio.get_running_loop()
        self._opened = await asyncio.to_thread(open_database, self.path, owner=owner)
        self.damaged_copy = self._opened.damaged_copy
        self._readers = ThreadPoolExecutor(_READERS, "store-reader")
        self._thread = threading.Thread(
            target=self._run_writer, args=(self._opened, self._loop), name="store-writer", daemon=True
        )
        self._thread.start()

    async def close(self) -> None:
        """Finish the queued writes and close the file; later reads and writes raise StoreError."""
        thread, readers, opened = self._thread, self._readers, self._opened
        self._thread = self._readers = self._opened = None
        if thread is not None:
            self._queue.put(None)
            await asyncio.to_thread(thread.join)
        if readers is not None:
            await asyncio.to_thread(readers.shutdown)
        while self._reader_connections:
            self._reader_connections.pop().close()
        if opened is not None:
            opened.close()

    async def write(self, work: Work[T]) -> T:
        """Run `work` in a transaction and return its value once that is committed.

        Queued writes share a transaction. `work` may therefore run twice, and must change nothing but the file; if it
        raises, only its own changes are undone and the error is raised here. A cursor that it returns becomes None.
        Raises StoreError if the file cannot be written, e.g. because the disk is full.
        """
        if self._thread is None or self._loop is None:
            raise StoreError(f"store.path: {self.path} is closed")
        future: asyncio.Future[T] = self._loop.create_future()
        self._queue.put(QueuedWrite(work, future))
        return await future

    async def read(self, work: Work[T]) -> T:
        """Run `work` in a thread, on a read-only connection. Raises StoreError if the file is unreadable."""
        if self._readers is None or self._loop is None:
            raise StoreError(f"store.path: {self.path} is closed")
        return await self._loop.run_in_executor(self._readers, self._read, work)

    async def read_rows(self, statement: str, values: Sequence[Any] | dict[str, Any] = ()) -> list[tuple[Any, ...]]:
        """Return all rows of one statement. Raises StoreError if the file is unreadable."""
        return await self.read(lambda db: db.execute(statement, values).fetchall())

    async def check_writable(self) -> bool:
        """Write a little and return True if that succeeded. It is how a full disk that has room again is noticed."""
        try:
            await self.write(touch)
        except StoreError:
            return False
        return True

    def _read(self, work: Work[T]) -> T:
        try:
            reader: sqlite3.Connection | None = getattr(self._reading, "connection", None)
            if reader is None:
                reader = self._reading.connection = open_reader(self.path)
                self._reader_connections.append(reader)
            return work(reader)
        except sqlite3.Error as error:
            mark_suspect(self.path, error)
            raise StoreError(f"store.path: {self.path} cannot be read: {explain(error)}") from error

    # Group commit. Almost the whole cost of a durable write is the wait for the disk at COMMIT, and it is the same for
    # one row and for two hundred. So the writer takes everything that is queued when it becomes free and commits it
    # together; what is queued meanwhile is the next group. Groups grow with the load by themselves: a single write is
    # committed at once, and nothing waits for company.

    def _run_writer(self, opened: OpenedDatabase, loop: asyncio.AbstractEventLoop) -> None:
        closing = False
        while not closing:
            group: list[QueuedWrite] = []
            queued = self._queue.get()
            with contextlib.suppress(queue.Empty):
                while queued is not None:
                    group.append(queued)
                    if len(group) == _MAX_GROUP:
                        break
                    queued = self._queue.get_nowait()
            closing = queued is None
            if group:
                self._write_group(opened, loop, group)

    def _write_group(self, opened: OpenedDatabase, loop: asyncio.AbstractEventLoop, group: list[QueuedWrite]) -> None:
        """Commit a group and wake those who wait for it; if one write of it is at fault, commit each one alone."""
        result = self._commit(opened, [write.work for write in group])
        if isinstance(result, Exception):
            # One value that SQLite cannot store must not fail the other writes of its group. Which write it was shows
            # only when each runs alone; that is so rare that savepoints for all would cost more.
            if len(group) > 1 and not isinstance(result, StoreError):
                for write in group:
                    self._write_group(opened, loop, [write])
                return
            if isinstance(result, StoreError):
                if not self.problem:
                    log.error("store_write_blocked", problem=str(result))
                self.problem = str(result)
        elif self.problem:
            log.info("store_write_recovered", path=str(self.path))
            self.problem = ""
        with contextlib.suppress(RuntimeError):  # the loop is closed, so nobody waits any more
            loop.call_soon_threadsafe(_resolve, group, result)

    def _commit(self, opened: OpenedDatabase, works: list[Work[Any]]) -> list[Any] | Exception:
        """Return the values of the works of one transaction; or, all undone, the error of the file or of a work."""
        with self._crashes.unit("store") as crash:
            try:
                opened.require_in_place()
                return _run_transaction(opened.writer, works)
            except sqlite3.Error as error:
                if not is_file_error(error):
                    return error
                mark_suspect(self.path, error)
                return store_error(self.path, "written", error)
            except Exception as error:
                return error
            except BaseException as error:  # e.g. SystemExit, which would end this thread while others wait for it
                raise RuntimeError(f"{type(error).__name__} in the writer") from error
        return StoreError(f"store.path: {self.path} cannot be written: {crash.message}")


def select_statement(columns: Sequence[str], table: str) -> str:
    """Return the SELECT of a table's columns, so that no statement repeats the list of them."""
    return " ".join(("SELECT", ", ".join(columns), "FROM", table))


def insert_statement(table: str, columns: Sequence[str]) -> str:
    """Return the INSERT of one row, its values named like the columns."""
    return " ".join(
        ("INSERT INTO", table, f"({', '.join(columns)})", "VALUES", f"({', '.join(f':{name}' for name in columns)})")
    )


def _run_transaction(writer: sqlite3.Connection, works: list[Work[Any]]) -> list[Any]:
    try:
        writer.execute("BEGIN IMMEDIATE")
        values = [_close_cursor(work(writer)) for work in works]
        writer.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            writer.execute("ROLLBACK")
        raise
    return values


def _close_cursor(value: Any) -> Any:
    """Return a work's value, None in place of a cursor.

    A cursor resets its statement when it is deleted, in whichever thread that happens. The connection has the statement
    cached, and may just be running it again: that write would fail as a misuse of SQLite.
    """
    if not isinstance(value, sqlite3.Cursor):
        return value
    value.close()
    return None


def _resolve(group: list[QueuedWrite], result: list[Any] | Exception) -> None:
    for place, write in enumerate(group):
        if write.future.done():  # its task was canceled
            continue
        if isinstance(result, Exception):
            write.future.set_exception(result)
        else:
            write.future.set_result(result[place])
