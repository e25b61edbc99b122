"""Claim, open, check and migrate the store's file, and move a damaged one out of the way."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import sqlite3
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import structlog

from jobtester.errors import DiskFullError, StoreError
from jobtester.store.migrations import migrate, refuse_newer

log = structlog.get_logger()

# Busy handling. The daemon's writer never competes with itself, but commands such as `outbox retry` write to the same
# file, each for milliseconds. SQLite waits this long for the lock before it reports SQLITE_BUSY; a process that still
# holds it then is another program with an open transaction, which only a person can end.
_BUSY_TIMEOUT_S = 5.0
_MAX_CHECKED_BYTES = 64 * 2**20  # to check a larger file at every start takes too long; see mark_suspect
_FREE_BYTES = 512 * 1024
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
# On a full disk SQLite fails with SQLITE_FULL if the file itself cannot grow, but with one of these if it is the WAL or
# the shared-memory file beside it. They have other causes too, so has_room() decides.
_POSSIBLY_FULL = (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
# The result codes that are the fault of the file or its disk, and what a person can do about each. An error with any
# other code is the fault of one statement.
_ADVICE = {
    sqlite3.SQLITE_FULL: "make room on the disk; recorded results are safe, and writing resumes by itself",
    sqlite3.SQLITE_IOERR: "check the disk; recorded results are safe, and writing resumes by itself",
    sqlite3.SQLITE_READONLY: "the file, its folder or its disk is read-only",
    sqlite3.SQLITE_BUSY: "another program holds it locked; stop that program, or set another path",
    sqlite3.SQLITE_LOCKED: "another program holds it locked; stop that program, or set another path",
    sqlite3.SQLITE_CANTOPEN: "check that its folder exists and is writable",
    sqlite3.SQLITE_CORRUPT: "it is damaged; the next start moves it aside and creates a new one",
    sqlite3.SQLITE_NOTADB: "it is damaged; the next start moves it aside and creates a new one",
    sqlite3.SQLITE_NOMEM: "",
    sqlite3.SQLITE_PROTOCOL: "",
}
_TOUCH = "INSERT OR REPLACE INTO pulse VALUES (1, ?)"


@dataclass(frozen=True, slots=True)
class OpenedDatabase:
    """The writing connection, the device and inode of its file, the owner's lock, and where a damaged file went."""

    writer: sqlite3.Connection
    path: Path
    identity: tuple[int, int]
    lock: int | None
    damaged_copy: Path | None

    def require_in_place(self) -> None:
        """Raise sqlite3.Error if the path no longer leads to the open file: what is written then would be lost."""
        try:
            identity = _identity(self.path)
        except OSError:
            identity = None
        if identity != self.identity:
            error = sqlite3.OperationalError("it was moved, deleted or replaced under the running program")
            error.sqlite_errorcode = sqlite3.SQLITE_READONLY_DBMOVED
            raise error

    def close(self) -> None:
        """Close the connection and release the lock."""
        self.writer.close()
        if self.lock is not None:
            os.close(self.lock)


def open_database(path: Path, *, owner: bool) -> OpenedDatabase:
    """Open the file for writing, and create or migrate it; the owner moves a damaged one aside. Raises StoreError."""
    lock: int | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = _claim(path) if owner else None
        try:
            return OpenedDatabase(_connect(path), path, _identity(path), lock, None)
        except sqlite3.DatabaseError as error:
            if not owner or _code(error) not in _DAMAGED:
                raise
            aside = _move_aside(path, error)
            _suspect_mark(path).unlink(missing_ok=True)
            return OpenedDatabase(_connect(path), path, _identity(path), lock, aside)
    except (sqlite3.Error, OSError, StoreError) as error:
        if lock is not None:
            os.close(lock)
        if isinstance(error, StoreError):
            raise
        raise store_error(path, "used", error) from error


def store_error(path: Path, use: str, error: sqlite3.Error | OSError) -> StoreError:
    """Return the error to raise if the file cannot be `use`d; it is a DiskFullError if the disk is full."""
    message = f"store.path: {path} cannot be {use}: {explain(error)}"
    if isinstance(error, sqlite3.Error):
        full = _code(error) == sqlite3.SQLITE_FULL or (_code(error) in _POSSIBLY_FULL and not has_room(path.parent))
    else:
        full = error.errno in _DISK_FULL
    if not full:
        return StoreError(message)
    return DiskFullError(message if "make room" in message else f"{message}; make room on the disk")


def has_room(folder: Path) -> bool:
    """Return True if a folder takes the few bytes with which a store begins."""
    try:
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            file.write(bytes(_FREE_BYTES))
            os.fsync(file.fileno())
    except OSError as error:
        return error.errno not in _DISK_FULL
    return True


def open_reader(path: Path) -> sqlite3.Connection:
    """Open the file read-only."""
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro",
        uri=True,
        check_same_thread=False,
        isolation_level=None,
        timeout=_BUSY_TIMEOUT_S,
    )
    connection.execute("PRAGMA query_only = 1")
    return connection


def touch(connection: sqlite3.Connection) -> None:
    """Write one small row, to check that writing works."""
    connection.execute(_TOUCH, (time.time(),))


def is_file_error(error: sqlite3.Error) -> bool:
    """Return True if the file or its disk is at fault, rather than one statement."""
    return _code(error) in _ADVICE


def mark_suspect(path: Path, error: sqlite3.Error) -> None:
    """Mark the file if an error is a sign of damage, so that the next start checks it however large it is."""
    if _code(error) in _DAMAGED:
        with contextlib.suppress(OSError):
            _suspect_mark(path).touch()


def explain(error: Exception) -> str:
    """Return an error's text with what to do about it."""
    if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_READONLY_DBMOVED:
        return f"{error}; put it back, or restart the program to use the file that is there now"
    advice = _ADVICE.get(_code(error), "") if isinstance(error, sqlite3.Error) else ""
    return f"{error}; {advice}" if advice else str(error)


def _claim(path: Path) -> int:
    # The kernel releases a flock when the process ends, however it ends, so a crash leaves no stale lock behind.
    lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise StoreError(f"store.path: {path} is in use by another jobtester; stop it, or set another path") from error
    return lock


def _connect(path: Path) -> sqlite3.Connection:
    writer = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=_BUSY_TIMEOUT_S)
    try:
        refuse_newer(writer, str(path))
        # Damage detection comes before anything that may write: a damaged file is kept as it is, for a person to
        # recover results from it. quick_check reads the whole file, hence the limit; damage in a larger file is met
        # by a later read or write, which leaves the mark that makes the next start check it after all.
        if _suspect_mark(path).exists() or path.stat().st_size < _MAX_CHECKED_BYTES:
            (finding,) = writer.execute("PRAGMA quick_check(1)").fetchone()
            if finding != "ok":
                error = sqlite3.DatabaseError(finding)
                error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
                raise error
            _suspect_mark(path).unlink(missing_ok=True)
        writer.execute("PRAGMA auto_vacuum = INCREMENTAL")  # only works before the first table exists
        writer.execute("PRAGMA journal_mode = WAL")  # readers and the writer do not block each other
        writer.execute("PRAGMA synchronous = FULL")  # with WAL, the default would lose commits in a power cut
        migrate(writer)
        touch(writer)
    except BaseException:
        writer.close()
        raise
    return writer


def _move_aside(path: Path, error: Exception) -> Path:
    """Rename a damaged file, its WAL and its shared memory to a dated name that is not taken."""
    name = f"{path.name}.damaged-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    aside, number = path.with_name(name), 1
    while aside.exists():
        number += 1
        aside = path.with_name(f"{name}-{number}")
    for suffix in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            Path(f"{path}{suffix}").rename(f"{aside}{suffix}")
    log.error("store_damaged", path=str(path), kept_as=str(aside), problem=f"{error}; a new file was created")
    return aside


def _suspect_mark(path: Path) -> Path:
    """Return the path of the file whose existence says that damage was met."""
    return path.with_name(f"{path.name}.suspect")


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _code(error: sqlite3.Error) -> int:
    """Return SQLite's primary result code, 0 if there is none."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF
