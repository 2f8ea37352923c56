"""Who claimed an ``idempotency-key`` first? Exact for all processes of a host, and kept through ``kill -9``.

A claim is on the disk before ``claim`` returns, so before anything is sent. It lasts as long as its claimant said; the
file is made when the first key is asked about, so whoever uses none pays nothing. The machinery is the journal's. A
full disk or an I/O error is ``BrokerUnavailable``; writing is tried again by itself.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from mtaq.broker.file_locks import RangeLocks
from mtaq.broker.group_commit import GroupCommit
from mtaq.broker.sqlite_file import SqliteFile, make_private_folder

FORMAT_VERSION = 1
_TIMEOUT_S = 30.0
_FILE = "claims.db"

_SCHEMA = """
CREATE TABLE claims (
    key BLOB PRIMARY KEY,
    owner TEXT NOT NULL,
    expires_at INTEGER NOT NULL   -- seconds since 1970
) WITHOUT ROWID;
CREATE INDEX by_end ON claims (expires_at);
"""
_PRUNE = "DELETE FROM claims WHERE key IN (SELECT key FROM claims WHERE expires_at <= ? ORDER BY expires_at LIMIT 1000)"
_PRUNE_EVERY_S = 10.0


class _Claim(NamedTuple):
    key: bytes
    owner: str
    expires_at: int


class IdempotencyKeys:
    """One process's access to the claims in a folder. Make it after forking."""

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.time) -> None:
        """Prepare; nothing is touched before the first claim.

        Args:
            folder: Holds the file; made if missing.
            clock: Seconds since 1970.
        """
        self._folder = folder
        self._clock = clock
        store = _ClaimStore(folder, clock)
        self._engine: GroupCommit[_Claim, str] = GroupCommit(store, name=f"idempotency keys {folder}")
        self._starting: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Open the file, if there is one: what is wrong with it shows now.

        Raises:
            BrokerUnavailable: It cannot be opened.
            ConfigError: It was written by a newer program.
        """
        if (self._folder / _FILE).exists():
            await self._started()

    async def claim(self, key: bytes, owner: str, *, ttl_s: int) -> str:
        """
        Claim *key* (32 bytes, a digest) for *owner*, unless it is claimed; return whose it is.

        Args:
            ttl_s: How long a new claim lasts; one that is there keeps its own time.

        Raises:
            BrokerUnavailable: It is not known whether it is claimed.
            ConfigError: The file was written by a newer program.
        """
        await self._started()
        return await self._engine.ask(_Claim(key, owner, int(self._clock()) + ttl_s), timeout_s=_TIMEOUT_S)

    async def _started(self) -> None:
        if self._starting is None or (self._starting.done() and self._starting.exception() is not None):
            self._starting = asyncio.ensure_future(self._engine.start())
        await asyncio.shield(self._starting)

    async def close(self) -> None:
        """Let go of the file."""
        if self._starting is not None:
            await asyncio.wait([self._starting])
        await self._engine.close()


class _ClaimStore:
    """The thread of the claims; fits ``group_commit.Store``."""

    patience_s = _PRUNE_EVERY_S

    def __init__(self, folder: Path, clock: Callable[[], float]) -> None:
        self._folder = folder
        self._clock = clock
        self._locks: RangeLocks | None = None
        self._file: SqliteFile | None = None
        self._prune_at = 0.0

    def open(self) -> None:
        if self._locks is None or self._file is None:
            make_private_folder(self._folder)
            self._locks = RangeLocks(self._folder / "locks")
            self._file = SqliteFile(self._folder / _FILE, self._locks, schema=_SCHEMA, format_version=FORMAT_VERSION)
        self._file.open()
        self.idle()

    def carry_out(self, operations: Sequence[_Claim]) -> Sequence[str]:
        assert self._file is not None, "not open"
        with self._file.transaction() as connection:
            self._prune(connection)
            return [self._claim(connection, one) for one in operations]

    def _claim(self, connection: sqlite3.Connection, claim: _Claim) -> str:
        query = "SELECT owner FROM claims WHERE key = ? AND expires_at > ?"
        found = connection.execute(query, (claim.key, int(self._clock()))).fetchone()
        if found is not None:
            return str(found[0])
        connection.execute("INSERT OR REPLACE INTO claims VALUES (?, ?, ?)", claim)
        return claim.owner

    def idle(self) -> None:
        assert self._file is not None, "not open"
        with self._file.transaction() as connection:
            self._prune(connection)

    def _prune(self, connection: sqlite3.Connection) -> None:
        """Forget claims that are over: a thousand at most, so that nobody waits long."""
        if (now := time.monotonic()) >= self._prune_at:
            connection.execute(_PRUNE, (int(self._clock()),))
            connection.execute("PRAGMA incremental_vacuum(256)").fetchall()
            self._prune_at = now + _PRUNE_EVERY_S

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def end(self) -> None:
        self.close()
        if self._locks is not None:
            self._locks.close()
            self._locks = self._file = None
