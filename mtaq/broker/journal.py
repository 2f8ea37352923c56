"""The delivery journal: what was already done with a queue message, kept through ``kill -9`` and power loss.

The order of safety: the remote host's 250, ``record``, result messages confirmed, ``settle``, outbox ack. Whoever is
given a message that the broker calls redelivered asks ``look_up`` first: an entry that is not settled says what to
publish (again), a settled one that only the ack is missing, none that nothing was done.

One file, shared by the processes of this host. Entries are forgotten after seven days, unsettled ones after sixty, but
none in the first hour: a host that was off for weeks, or got its clock right only after the start, is handed out first
what it had in hand then. A full disk or an I/O error is ``BrokerUnavailable``; writing is tried again by itself.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from mtaq.broker.file_locks import RangeLocks
from mtaq.broker.group_commit import GroupCommit, OnState
from mtaq.broker.sqlite_file import SqliteFile, make_private_folder
from mtaq.model.parcel import BrokerState

FORMAT_VERSION = 1
KEEP_S = 7 * 86400
KEEP_UNSETTLED_S = 60 * 86400
_TIMEOUT_S = 30.0

_SCHEMA = """
CREATE TABLE entries (
    key BLOB PRIMARY KEY,
    data BLOB NOT NULL,            -- JSON
    settled INTEGER NOT NULL,      -- what follows from it is confirmed
    recorded_at INTEGER NOT NULL   -- seconds since 1970
) WITHOUT ROWID;
CREATE INDEX by_age ON entries (recorded_at);
CREATE TABLE probe (content BLOB);
INSERT INTO probe VALUES (zeroblob(65536));
"""
_PRUNE = """
    DELETE FROM entries WHERE key IN (
        SELECT key FROM entries WHERE recorded_at < ? AND (settled OR recorded_at < ?)
        ORDER BY recorded_at LIMIT 1000)"""
_PRUNE_EVERY_S = 10.0
_PRUNE_FIRST_S = 3600.0


class Entry(NamedTuple):
    """What the journal knows of a message.

    Attributes:
        data: What was recorded.
        settled: What follows from it is confirmed too.
    """

    data: dict[str, Any]
    settled: bool


class _Record(NamedTuple):
    key: bytes
    data: bytes
    settled: bool


class _Settle(NamedTuple):
    key: bytes


class _LookUp(NamedTuple):
    key: bytes


_Operation = _Record | _Settle | _LookUp


class Journal:
    """One process's access to the journal in a folder. Open it after forking."""

    def __init__(
        self, folder: Path, *, on_state: OnState | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        """Prepare; nothing is touched before ``start``.

        Args:
            folder: Holds the file; made if missing.
            on_state: Told when writing fails and when it works again.
            clock: Seconds since 1970; ages are counted by it.
        """
        store = _JournalStore(folder, clock)
        self._engine: GroupCommit[_Operation, Entry | None] = GroupCommit(
            store, name=f"delivery journal {folder}", on_state=on_state
        )

    @property
    def state(self) -> BrokerState:
        """UP; or DOWN before the start, after the end, and while the disk refuses to be written."""
        return self._engine.state

    async def start(self) -> None:
        """Open the journal.

        Raises:
            BrokerUnavailable: The folder cannot be written.
            ConfigError: It was written by a newer program.
        """
        await self._engine.start()

    async def record(self, key: bytes, entry: Mapping[str, Any], *, settled: bool = False) -> None:
        """Note under *key* (32 bytes) what was done; when this returns it is on the disk.

        An earlier entry of that key is replaced.

        Args:
            key: Digest that names the attempt.
            entry: What JSON can hold.
            settled: Nothing follows from it.

        Raises:
            BrokerUnavailable: Writing failed.
        """
        await self._engine.ask(_Record(key, orjson.dumps(dict(entry)), settled), timeout_s=_TIMEOUT_S)

    def settle(self, key: bytes) -> None:
        """What follows from *key*'s entry is confirmed. Written some time, without waiting."""
        self._engine.post(_Settle(key))

    async def look_up(self, key: bytes) -> Entry | None:
        """Return the entry of *key*, whichever process recorded it; ``None`` when there is none.

        Raises:
            BrokerUnavailable: Reading failed: it is not known whether there is one.
        """
        return await self._engine.ask(_LookUp(key), timeout_s=_TIMEOUT_S)

    async def close(self) -> None:
        """Write what is owed, and close."""
        await self._engine.close()


class _JournalStore:
    """The journal's thread; fits ``group_commit.Store``."""

    patience_s = _PRUNE_EVERY_S

    def __init__(self, folder: Path, clock: Callable[[], float]) -> None:
        self._folder = folder
        self._clock = clock
        self._locks: RangeLocks | None = None
        self._file: SqliteFile | None = None
        self._prune_at = time.monotonic() + _PRUNE_FIRST_S

    def open(self) -> None:
        if self._locks is None or self._file is None:
            make_private_folder(self._folder)
            self._locks = RangeLocks(self._folder / "locks")
            self._file = SqliteFile(
                self._folder / "journal.db", self._locks, schema=_SCHEMA, format_version=FORMAT_VERSION
            )
        self._file.open()
        with self._file.transaction() as connection:
            connection.execute("UPDATE probe SET content = randomblob(65536)")

    def carry_out(self, operations: Sequence[_Operation]) -> Sequence[Entry | None]:
        assert self._file is not None, "not open"
        if all(isinstance(one, _LookUp) for one in operations):
            return [self._do(self._file.connection, one) for one in operations]
        with self._file.transaction() as connection:
            self._prune(connection)
            return [self._do(connection, one) for one in operations]

    def _do(self, connection: sqlite3.Connection, operation: _Operation) -> Entry | None:
        match operation:
            case _Record(key, data, settled):
                row = (key, data, settled, int(self._clock()))
                connection.execute("INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?)", row)
            case _Settle(key):
                connection.execute("UPDATE entries SET settled = 1 WHERE key = ?", (key,))
            case _LookUp(key):
                found = connection.execute("SELECT data, settled FROM entries WHERE key = ?", (key,)).fetchone()
                return None if found is None else Entry(orjson.loads(found[0]), bool(found[1]))
        return None

    def idle(self) -> None:
        assert self._file is not None, "not open"
        with self._file.transaction() as connection:
            self._prune(connection)

    def _prune(self, connection: sqlite3.Connection) -> None:
        """Forget old entries: a thousand at most, so that nobody waits long."""
        if (now := time.monotonic()) >= self._prune_at:
            today = int(self._clock())
            connection.execute(_PRUNE, (today - KEEP_S, today - KEEP_UNSETTLED_S))
            connection.execute("PRAGMA incremental_vacuum(256)").fetchall()
            self._prune_at = now + _PRUNE_EVERY_S

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def end(self) -> None:
        self.close()
        if self._locks is not None:
            self._locks.close()
