"""A SQLite file that several processes of one host write to; what is committed is on the disk.

Decides how it is opened (WAL, full sync), who writes next, and which formats are understood; the tables are its
user's. All of it blocks, so it belongs into a thread of its own (``mtaq.broker.group_commit``).

Writers take turns by two locks of their own beside the file, for three reasons. SQLite's writers sleep and retry, and
whoever just wrote nearly always wins again; here the one who waits is next. Waiting costs half a millisecond, not up
to a hundred. And a write never meets another process's checkpoint, which before SQLite 3.51.3 could damage the file
(https://sqlite.org/wal.html#walresetbug).

Failures come out as ``sqlite3.Error`` or ``OSError``; after one, ``close`` and ``open`` anew. A file written by a newer
program is a ``ConfigError``.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from mtaq.broker.file_locks import RangeLocks, open_private
from mtaq.model.errors import ConfigError

_WRITE, _TURN = 0, 1  # bytes of the lock file; users of the same file lock from FIRST_FREE_BYTE on
FIRST_FREE_BYTE = 2**32

#: What SQLite itself waits for a lock: only an operator's shell or a recovery can hold one against us.
_BUSY_TIMEOUT_MS = 5000
_PRAGMAS = (
    "auto_vacuum = INCREMENTAL",  # counts only before the first table is made
    "journal_mode = WAL",
    "synchronous = FULL",
    "secure_delete = OFF",  # Debian's default is ON: every freed page would be written once more
    "wal_autocheckpoint = 4000",
    "journal_size_limit = 67108864",
    "cache_size = -16384",
)


class SqliteFile:
    """One process's way to one file; only the thread that opened it may use it."""

    def __init__(
        self, path: Path, locks: RangeLocks, *, schema: str, format_version: int, wait_s: float = 10.0
    ) -> None:
        self._path = path
        self._locks = locks
        self._schema = schema
        self._format_version = format_version
        self._wait_s = wait_s
        self._connection: sqlite3.Connection | None = None

    @property
    def connection(self) -> sqlite3.Connection:
        """The open connection, for reading outside a transaction."""
        assert self._connection is not None, "not open"
        return self._connection

    def open(self) -> None:
        """Open the file, made with its tables if missing.

        Raises:
            ConfigError: It was written by a newer program.
            sqlite3.Error, OSError: It cannot be opened.
        """
        os.close(open_private(self._path))
        with self._turn():
            connection = sqlite3.connect(self._path, timeout=_BUSY_TIMEOUT_MS / 1000, isolation_level=None)
            try:
                for pragma in _PRAGMAS:
                    connection.execute(f"PRAGMA {pragma}").fetchall()
                self._check_format(connection)
            except BaseException:
                connection.close()
                raise
        self._connection = connection

    def _check_format(self, connection: sqlite3.Connection) -> None:
        found = connection.execute("PRAGMA user_version").fetchone()[0]
        if found > self._format_version:
            raise ConfigError(
                f"has format {found}, written by a newer mtaq; this one understands formats up to"
                f" {self._format_version}: run the newer program, or another folder",
                source=str(self._path),
            )
        if found == 0:
            connection.executescript(f"BEGIN; {self._schema}; PRAGMA user_version = {self._format_version}; COMMIT")

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Write: what the block does is on the disk when it ends, or, if it raises, never happened.

        A failed commit is the exception: what it held may come to light when the file is opened the next time.
        """
        connection = self.connection
        with self._turn():
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):  # it may have rolled back by itself
                    connection.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """Be the only writer. Who waits holds the turn, so nobody who comes later can overtake."""
        deadline = time.monotonic() + self._wait_s
        self._wait_for(_TURN, deadline)
        try:
            self._wait_for(_WRITE, deadline)
        finally:
            self._locks.unlock(_TURN)
        try:
            yield
        finally:
            self._locks.unlock(_WRITE)

    def _wait_for(self, byte: int, deadline: float) -> None:
        while not self._locks.try_lock(byte):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self._path} has been locked by another process for {self._wait_s:.0f} s")
            time.sleep(0.0005)

    def close(self) -> None:
        """Close; does nothing when it is not open."""
        if self._connection is None:
            return
        connection, self._connection = self._connection, None
        with contextlib.suppress(TimeoutError), self._turn():  # the last one out checkpoints
            connection.close()
            return
        connection.close()


def make_private_folder(path: Path) -> None:
    """Make *path*, and what is missing above it; a new folder is its owner's alone (mode 0700)."""
    try:
        path.mkdir(parents=True, mode=0o700)
    except FileExistsError:
        return
    path.chmod(0o700)
    above = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(above)  # what is synced inside is no use if the folder itself is not
    finally:
        os.close(above)
