"""The runtime state on disk: SQLite for one host, PostgreSQL for several instances.

Knows tables and transactions; what the entries mean is ``entries``' and the look-ups' work. Everything here blocks, so
a service calls it in a thread. Each table has a counter, increased in the transaction that changes the table: whoever
keeps the contents in memory compares counters and reads what changed. Writers wait for each other at the counter, so
counters are in the order of the commits.

Fails with ``StateUnavailable`` for what may pass, with ``ConfigError`` for what an operator must mend.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Table, bindparam, delete, func, insert, inspect, select, text, update
from sqlalchemy.exc import SQLAlchemyError

from mtaq.model.control import Entry
from mtaq.model.errors import ConfigError, MtaqError
from mtaq.model.times import format_time, parse_time
from mtaq.state import control_store, tables
from mtaq.state.engine import explain, is_passing, make_file, open_engine, sqlite_path
from mtaq.state.entries import Block, Kind, LocalAddress, Source
from mtaq.state.rows import KINDS
from mtaq.state.tables import MIGRATIONS, Migration

#: Most automatic entries of the blocked list; beyond it, those that end first give way.
MOST_AUTOMATIC = 10_000

_MIGRATION_TIMEOUT_S = 60
_MIGRATION_LOCK = 0x6D746171  # "mtaq"; any number that everybody else leaves alone

Versions = Mapping[str, int]
"""Table, without its prefix → its counter."""


class StateUnavailable(MtaqError):
    """The database does not answer or does not take a change; later it may."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What was read.

    Attributes:
        versions: The counters it belongs to.
        local_addresses: All of them, or ``None``: as before.
        blocks: All of them, ended ones included, or ``None``: as before.
        sources: All of them, or ``None``: as before.
        control: Of each kind of entries about delivery all of them; a kind that is not there is as before.
    """

    versions: Versions
    local_addresses: Sequence[LocalAddress] | None
    blocks: Sequence[Block] | None
    sources: Sequence[Source] | None
    control: Mapping[str, Sequence[Entry]]


class Database:
    """One process's way to the runtime state. Not for several threads at once."""

    def __init__(self, address: str, *, migrations: Sequence[Migration] = MIGRATIONS) -> None:
        """Prepare; *address* is a value of ``database-address``, *migrations* what this program knows."""
        self._address = address
        self._path = sqlite_path(address)
        self._migrations = migrations
        self._inode = 0
        self._engine: Engine | None = None

    def __str__(self) -> str:
        return str(self._path) if self._path is not None else "the PostgreSQL database"

    def open(self) -> None:
        """Connect, and bring the tables into this program's format; several may do so at once.

        Raises:
            ConfigError: It cannot be used, or a newer program has been there.
            StateUnavailable: It does not answer. Call again later.
        """
        self.close()
        try:
            if self._path is not None:
                make_file(self._path)
                self._inode = _inode_of(self._path)
            engine = self._engine = open_engine(self._address)
            with engine.connect() as connection, connection.begin():
                found = _format_of(connection)
            if found != len(self._migrations):
                self._migrate(engine)
        except (SQLAlchemyError, OSError) as error:
            self.close()
            if is_passing(error):
                raise StateUnavailable(f"{self}: {explain(error)}") from error
            raise ConfigError(f"{self} cannot be used: {explain(error)}", key="database-address") from error
        except BaseException:
            self.close()
            raise

    def renewed(self) -> Database:
        """Return another way to the same database, not open."""
        return Database(self._address, migrations=self._migrations)

    def close(self) -> None:
        """Let go of it; ``open`` may follow."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.dispose()

    def _migrate(self, engine: Engine) -> None:
        options = {"writes": True, "timeout_s": _MIGRATION_TIMEOUT_S}
        with engine.connect().execution_options(**options) as connection, connection.begin():
            if engine.dialect.name == "postgresql":
                connection.execute(select(func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
            found = _format_of(connection)
            if found > len(self._migrations):
                raise ConfigError(
                    f"{self} has format {found}, written by a newer mtaq; this one understands formats up to"
                    f" {len(self._migrations)}: run the newer program, or another database",
                    key="database-address",
                )
            if found == 0:
                connection.execute(text(tables.CREATE_FORMAT))
                connection.execute(insert(tables.format_table).values(format=0))
            for statements in self._migrations[found:]:
                for statement in statements:
                    connection.execute(text(statement))
            connection.execute(update(tables.format_table).values(format=len(self._migrations)))

    def read(self, known: Versions | None = None, *, kinds: Iterable[str] = KINDS) -> Contents:
        """Return what is there; of tables whose counter is as in *known*, nothing; of entries about delivery *kinds*.

        Raises:
            StateUnavailable: It does not answer.
        """
        with self.connected() as connection:
            # Counters first: a change in between is then read twice, never missed.
            versions = {row.name: row.version for row in connection.execute(select(tables.changes))}
            known = known or {}

            def rows(table: Table) -> Iterator[Any] | None:
                name = _name(table)
                return (
                    None
                    if name in known and known[name] == versions.get(name)
                    else iter(connection.execute(select(table)))
                )

            changed = [kind for kind in kinds if kind not in known or known[kind] != versions.get(kind)]
            local_addresses, blocks, sources = map(rows, (tables.local_addresses, tables.blocks, tables.sources))
            return Contents(
                versions=versions,
                local_addresses=None if local_addresses is None else [_local_address(row) for row in local_addresses],
                blocks=None if blocks is None else [_block(row) for row in blocks],
                sources=None if sources is None else [_source(row) for row in sources],
                control={kind: control_store.read(connection, kind) for kind in changed},
            )

    def add_local_addresses(self, entries: Sequence[LocalAddress]) -> list[LocalAddress]:
        """Add entries; one that is there already gets the new comment. Return those that were not there.

        Raises:
            StateUnavailable: Nothing was written.
        """
        table = tables.local_addresses
        with self._changing(table) as connection:
            new = [entry for entry in entries if not _delete(connection, table, kind=entry.kind, pattern=entry.pattern)]
            _insert(connection, table, entries)
        return new

    def remove_local_addresses(self, keys: Sequence[tuple[Kind, str]]) -> list[tuple[Kind, str]]:
        """Remove the entries with these kinds and patterns; return those that were there.

        Raises:
            StateUnavailable: Nothing was written.
        """
        table = tables.local_addresses
        with self._changing(table) as connection:
            return [key for key in keys if _delete(connection, table, kind=key[0], pattern=key[1])]

    def set_blocks(self, entries: Sequence[Block], *, now: datetime) -> None:
        """Add entries, each in place of what was there for its network; but an automatic one only prolongs.

        Entries that have ended are removed on the way, and of the automatic ones no more than ``MOST_AUTOMATIC`` stay.

        Raises:
            StateUnavailable: Nothing was written.
        """
        table = tables.blocks
        with self._changing(table) as connection:
            connection.execute(delete(table).where(table.c.expires_at <= format_time(now)))
            there = {row.network: _block(row) for row in connection.execute(select(table))}
            wanted = {entry.network: entry for entry in entries if not _is_covered(entry, there.get(entry.network))}
            _delete_all(connection, table, [network for network in wanted if network in there])
            _insert(connection, table, wanted.values())
            surplus = select(table.c.network).where(table.c.automatic).order_by(table.c.expires_at.desc())
            _delete_all(connection, table, connection.execute(surplus.offset(MOST_AUTOMATIC)).scalars().all())

    def remove_blocks(self, networks: Sequence[str], *, now: datetime) -> list[str]:
        """Remove the entries of these networks; return those that were there and had not ended.

        Raises:
            StateUnavailable: Nothing was written.
        """
        table = tables.blocks
        with self._changing(table) as connection:
            connection.execute(delete(table).where(table.c.expires_at <= format_time(now)))
            return [network for network in networks if _delete(connection, table, network=network)]

    def set_source(self, entry: Source) -> None:
        """Name a source address, in place of the name it had.

        Raises:
            StateUnavailable: Nothing was written.
        """
        with self._changing(tables.sources) as connection:
            _delete(connection, tables.sources, ip=entry.ip)
            _insert(connection, tables.sources, [entry])

    def remove_sources(self, ips: Sequence[str]) -> list[str]:
        """Take the names from these addresses; return those that had one.

        Raises:
            StateUnavailable: Nothing was written.
        """
        with self._changing(tables.sources) as connection:
            return [ip for ip in ips if _delete(connection, tables.sources, ip=ip)]

    def _changing(self, table: Table) -> contextlib.AbstractContextManager[Connection]:
        return self.counting(_name(table))

    @contextlib.contextmanager
    def counting(self, name: str) -> Iterator[Connection]:
        """One transaction that changes what is counted as *name*; its first statement is where writers wait.

        Raises:
            StateUnavailable: Nothing was written.
        """
        counter = update(tables.changes).where(tables.changes.c.name == name)
        with self.connected(writes=True) as connection:
            connection.execute(counter.values(version=tables.changes.c.version + 1))
            yield connection

    @contextlib.contextmanager
    def connected(self, *, writes: bool = False) -> Iterator[Connection]:
        """One transaction.

        Raises:
            StateUnavailable: The database does not answer.
        """
        try:
            engine = self._current()
            with engine.connect().execution_options(writes=writes) as connection, connection.begin():
                yield connection
        except (SQLAlchemyError, OSError) as error:
            raise StateUnavailable(f"{self}: {explain(error)}") from error
        except ConfigError as error:  # somebody put another file there while we ran; he may put it right again
            raise StateUnavailable(str(error)) from error

    def _current(self) -> Engine:
        """The engine; opened when it is not, and anew when another file lies in the place of the one it has open."""
        if self._engine is None or (self._path is not None and _inode_of(self._path) != self._inode):
            self.open()
        assert self._engine is not None
        return self._engine


def _inode_of(path: Path) -> int:
    """Return which file lies at *path*, one that we may write; anything else is an ``OSError`` that says so.

    It is not opened for that: closing it again would free SQLite's locks on it.
    """
    if not os.access(path, os.R_OK | os.W_OK) and path.exists():
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    return path.stat().st_ino


def _format_of(connection: Connection) -> int:
    if not inspect(connection).has_table(tables.format_table.name):
        return 0
    found: int = connection.execute(select(tables.format_table.c.format)).scalar_one()
    return found


def _name(table: Table) -> str:
    return table.name.removeprefix("mtaq_")


def _delete(connection: Connection, table: Table, **key: str) -> bool:
    """Remove one row; was it there?"""
    conditions = [table.c[column] == value for column, value in key.items()]
    return connection.execute(delete(table).where(*conditions)).rowcount > 0


def _delete_all(connection: Connection, table: Table, keys: Sequence[str]) -> None:
    """Remove the rows with these primary keys, however many."""
    (key,) = table.primary_key
    if keys:
        connection.execute(delete(table).where(key == bindparam("wanted")), [{"wanted": value} for value in keys])


def _insert(connection: Connection, table: Table, entries: Iterable[LocalAddress | Block | Source]) -> None:
    rows = [{column.name: _stored(getattr(entry, column.name)) for column in table.c} for entry in entries]
    if rows:
        connection.execute(insert(table), rows)


def _stored(value: object) -> object:
    return format_time(value) if isinstance(value, datetime) else value


def _is_covered(entry: Block, there: Block | None) -> bool:
    """Is *entry* automatic, and does what is there last as long?"""
    if there is None or not entry.automatic:
        return False
    return there.expires_at is None or (entry.expires_at is not None and there.expires_at >= entry.expires_at)


def _local_address(row: Any) -> LocalAddress:
    return LocalAddress(pattern=row.pattern, kind=row.kind, comment=row.comment, created_at=parse_time(row.created_at))


def _block(row: Any) -> Block:
    return Block(
        network=row.network,
        reason=row.reason,
        expires_at=None if row.expires_at is None else parse_time(row.expires_at),
        automatic=row.automatic,
        created_at=parse_time(row.created_at),
    )


def _source(row: Any) -> Source:
    return Source(ip=row.ip, ehlo_name=row.ehlo_name, created_at=parse_time(row.created_at))
