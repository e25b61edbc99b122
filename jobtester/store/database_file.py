"""The file itself: claimed, opened, brought up to date, and set aside where it is damaged."""

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

_BUSY_S = 5.0
_CHECKED_BYTES = 64 * 2**20  # larger files would take too long to check at every start, unless there is suspicion
_ROOM = 512 * 1024
_FULL = (errno.ENOSPC, errno.EDQUOT)
_FULL_TOO = (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)  # what SQLite says where it is a file beside the store
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_ADVICE = {
    sqlite3.SQLITE_FULL: "make room on the disk; what is recorded stays, and it goes on by itself",
    sqlite3.SQLITE_IOERR: "look at the disk; what is recorded stays, and it goes on by itself",
    sqlite3.SQLITE_READONLY: "the file, its folder or its disk may only be read",
    sqlite3.SQLITE_BUSY: "another program holds it locked; stop that, or set another path",
    sqlite3.SQLITE_LOCKED: "another program holds it locked; stop that, or set another path",
    sqlite3.SQLITE_CANTOPEN: "check that its folder exists and may be written",
    sqlite3.SQLITE_CORRUPT: "it is damaged; at the next start it is set aside and a new one begun",
    sqlite3.SQLITE_NOTADB: "it is damaged; at the next start it is set aside and a new one begun",
    sqlite3.SQLITE_NOMEM: "",
    sqlite3.SQLITE_PROTOCOL: "",
}


@dataclass(frozen=True, slots=True)
class OpenedDatabase:
    """The connection that may write, what file it writes, the owner's lock, and where a damaged file went."""

    writer: sqlite3.Connection
    path: Path
    identity: tuple[int, int]
    lock: int | None
    damaged_copy: Path | None

    def require_in_place(self) -> None:
        """Raise sqlite3.Error where the file's name no longer leads to it: what is written then would be lost."""
        try:
            found = _identity(self.path)
        except OSError:
            found = None
        if found != self.identity:
            error = sqlite3.OperationalError("it was moved, deleted or replaced under the running program")
            error.sqlite_errorcode = sqlite3.SQLITE_READONLY_DBMOVED
            raise error

    def close(self) -> None:
        """Close the connection and let go of the lock."""
        self.writer.close()
        if self.lock is not None:
            os.close(self.lock)


def open_database(path: Path, *, owner: bool) -> OpenedDatabase:
    """Open the file for writing, making or migrating it; the owner sets a damaged one aside. Raises StoreError."""
    lock: int | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = _claim(path) if owner else None
        try:
            return OpenedDatabase(_connect(path), path, _identity(path), lock, None)
        except sqlite3.DatabaseError as error:
            if not owner or _code(error) not in _DAMAGE:
                raise
            aside = _put_aside(path, error)
            _word(path).unlink(missing_ok=True)
            return OpenedDatabase(_connect(path), path, _identity(path), lock, aside)
    except (sqlite3.Error, OSError, StoreError) as error:
        if lock is not None:
            os.close(lock)
        if isinstance(error, StoreError):
            raise
        raise store_error(path, "used", error) from error


def store_error(path: Path, use: str, error: sqlite3.Error | OSError) -> StoreError:
    """Return the error to raise where the file cannot be `use`d: one of its own where the disk is full."""
    message = f"store.path: {path} cannot be {use}: {explain(error)}"
    if isinstance(error, sqlite3.Error):
        full = _code(error) == sqlite3.SQLITE_FULL or (_code(error) in _FULL_TOO and not has_room(path.parent))
    else:
        full = error.errno in _FULL
    if not full:
        return StoreError(message)
    return DiskFullError(message if "make room" in message else f"{message}; make room on the disk")


def has_room(folder: Path) -> bool:
    """Return whether a little can be written in a folder, enough for the store to begin."""
    try:
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            file.write(bytes(_ROOM))
            os.fsync(file.fileno())
    except OSError as error:
        return error.errno not in _FULL
    return True


def open_reader(path: Path) -> sqlite3.Connection:
    """Open the file for reading only."""
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro", uri=True, check_same_thread=False, isolation_level=None, timeout=_BUSY_S
    )
    connection.execute("PRAGMA query_only = 1")
    return connection


def touch(connection: sqlite3.Connection) -> None:
    """Write a little, to see whether writing works."""
    connection.execute("INSERT OR REPLACE INTO pulse VALUES (1, ?)", (time.time(),))


def is_file_error(error: sqlite3.Error) -> bool:
    """Tell whether the file or its disk is the cause, rather than the one statement."""
    return _code(error) in _ADVICE


def mark_suspect(path: Path, error: sqlite3.Error) -> None:
    """Leave word that the file met damage, so that the next start checks all of it, however large it is."""
    if _code(error) in _DAMAGE:
        with contextlib.suppress(OSError):
            _word(path).touch()


def explain(error: Exception) -> str:
    """Say what an error means and what to do about it."""
    if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_READONLY_DBMOVED:
        return f"{error}; put it back, or start the program again to go on with what is there now"
    advice = _ADVICE.get(_code(error), "") if isinstance(error, sqlite3.Error) else ""
    return f"{error}; {advice}" if advice else str(error)


def _claim(path: Path) -> int:
    """Hold the file as its only owner, until this process ends however it ends."""
    lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise StoreError(f"store.path: {path} is in use by another jobtester; stop it, or set another path") from error
    return lock


def _connect(path: Path) -> sqlite3.Connection:
    writer = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=_BUSY_S)
    try:
        refuse_newer(writer, str(path))
        # Checked before anything that may write: a damaged file is kept as it is.
        if _word(path).exists() or path.stat().st_size < _CHECKED_BYTES:
            found = writer.execute("PRAGMA quick_check(1)").fetchone()
            if found != ("ok",):
                raise _damaged(str(found[0]))
            _word(path).unlink(missing_ok=True)
        writer.execute("PRAGMA auto_vacuum = INCREMENTAL")
        writer.execute("PRAGMA journal_mode = WAL")
        writer.execute("PRAGMA synchronous = FULL")
        migrate(writer)
        touch(writer)
    except BaseException:
        writer.close()
        raise
    return writer


def _put_aside(path: Path, error: Exception) -> Path:
    """Rename a damaged file, and what belongs to it, to a dated name that nothing has yet."""
    name = f"{path.name}.damaged-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    aside, again = path.with_name(name), 1
    while aside.exists():
        again += 1
        aside = path.with_name(f"{name}-{again}")
    for suffix in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            Path(f"{path}{suffix}").rename(f"{aside}{suffix}")
    log.error("store_damaged", path=str(path), kept_as=str(aside), problem=f"{error}; a new file was begun")
    return aside


def _damaged(found: str) -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError(found)
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error


def _word(path: Path) -> Path:
    """Name the file beside it that says, by being there, that damage was met."""
    return path.with_name(f"{path.name}.suspect")


def _identity(path: Path) -> tuple[int, int]:
    """Give what tells a file from every other, whatever it is called."""
    found = path.stat()
    return found.st_dev, found.st_ino


def _code(error: sqlite3.Error) -> int:
    """Give SQLite's primary result code, 0 where there is none."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF
