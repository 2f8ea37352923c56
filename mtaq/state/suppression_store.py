"""Suppressions in the database: many, so what changed is told row by row. Works inside others' transactions.

Each row has the value that the table's counter had when it changed last; whoever knows the table up to a number reads
the rows beyond it. A removed row stays for a day and says so; whoever was away for longer finds that something was
forgotten since, and reads everything.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Connection, Insert, and_, delete, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from mtaq.model.control import Suppression
from mtaq.model.times import format_time, parse_time
from mtaq.state.tables import changes, suppressions

#: Most entries changed in one transaction, and so with one number; and rows read at once, which has to be more.
MOST_CHANGED = 5_000
MOST_READ = 10_000

_REMEMBERED = timedelta(days=1)
_FORGOTTEN = "suppressions_forgotten"

_ANY = "*"
"""For ``None`` as the sender's domain, because no part of a primary key may be NULL."""


class Page(NamedTuple):
    """Rows that changed after a number.

    Attributes:
        added: Entries that are there, ended ones included; when they were added is not told.
        removed: Entries that are not there any more.
        version: The number up to which the table is known now.
        is_last: Nothing is beyond it.
        is_whole: Whoever reads this must forget what was known before: the rows are those of the whole table.
    """

    added: list[Suppression]
    removed: list[Suppression]
    version: int
    is_last: bool
    is_whole: bool


def read(connection: Connection, known: int, *, is_begun: bool = False) -> Page:
    """Return what changed after the number *known*, 0 for everything, as far as it fits in a page.

    Args:
        is_begun: *known* came with the page before, and that was not the last one.
    """
    numbers = {row.name: row.version for row in connection.execute(select(changes))}
    is_past = known < numbers[_FORGOTTEN] and not is_begun
    is_whole = known == 0 or is_past or known > numbers["suppressions"]
    known = 0 if is_whole else known
    columns = suppressions.c
    pages = select(suppressions).where(columns.version > known).order_by(columns.version)
    rows = connection.execute(pages.limit(MOST_READ + 1)).all()
    is_last = len(rows) <= MOST_READ
    # The last number may go on behind this page; it is left for the next one.
    version = numbers["suppressions"] if is_last else rows[-1].version - 1
    rows = [row for row in rows if row.version <= version]
    added = [_entry(row) for row in rows if not row.removed]
    removed = [_entry(row) for row in rows if row.removed]
    return Page(added, removed, version, is_last, is_whole)


def count(connection: Connection, now: datetime) -> int:
    """Return how many entries there are that have not ended."""
    counted = select(func.count()).select_from(suppressions).where(~suppressions.c.removed, _lasts(now))
    number: int = connection.execute(counted).scalar_one()
    return number


def look_up(connection: Connection, patterns: Sequence[str], now: datetime) -> list[Suppression]:
    """Return the entries with these patterns, all senders and tags."""
    wanted = suppressions.c.pattern.in_(patterns)
    rows = connection.execute(select(suppressions).where(~suppressions.c.removed, _lasts(now), wanted))
    return [_dated(row) for row in rows]


def wildcards(connection: Connection, now: datetime) -> list[Suppression]:
    """Return the entries whose patterns are wildcards."""
    pattern = suppressions.c.pattern
    wanted = or_(pattern.contains("*", autoescape=True), pattern.contains("?", autoescape=True))
    return [
        _dated(row)
        for row in connection.execute(select(suppressions).where(~suppressions.c.removed, _lasts(now), wanted))
    ]


def page(connection: Connection, after: Suppression | None, limit: int, now: datetime) -> list[Suppression]:
    """Return entries in the order of their patterns, those behind *after*."""
    keys = list(suppressions.primary_key)
    query = select(suppressions).where(~suppressions.c.removed, _lasts(now)).order_by(*keys).limit(limit)
    if after is not None:
        pattern, sender_domain, tag = _key(after).values()
        columns = suppressions.c
        # Written out, because SQLite of some versions does not use its index for a comparison of rows.
        later_tag = and_(columns.sender_domain == sender_domain, columns.tag > tag)
        later = or_(columns.sender_domain > sender_domain, later_tag)
        query = query.where(columns.pattern >= pattern, or_(columns.pattern > pattern, later))
    return [_dated(row) for row in connection.execute(query)]


def put(connection: Connection, entries: Iterable[Suppression], version: int, *, now: datetime) -> None:
    """Add *entries*, at most ``MOST_CHANGED``, each in place of what is there for its pattern, sender and tag."""
    _clear(connection, now)
    rows = {tuple(_key(entry).values()): _row(entry, version) for entry in entries}
    if rows:
        connection.execute(_upsert(connection), list(rows.values()))


def remove(connection: Connection, keys: Sequence[Suppression], version: int, *, now: datetime) -> list[Suppression]:
    """Remove entries with the patterns, senders and tags of *keys*; return those that were there."""
    _clear(connection, now)
    gone = {"removed": True, "version": version, "reason": "", "expires_at": format_time(now + _REMEMBERED)}
    found = []
    for key in keys:
        conditions = [suppressions.c[name] == value for name, value in _key(key).items()]
        if connection.execute(update(suppressions).where(~suppressions.c.removed, *conditions).values(gone)).rowcount:
            found.append(key)
    return found


def _upsert(connection: Connection) -> Insert:
    dialect: Any = postgresql if connection.dialect.name == "postgresql" else sqlite
    statement = dialect.insert(suppressions)
    keys = list(suppressions.primary_key)
    replaced = {column.name: statement.excluded[column.name] for column in suppressions.c if column not in keys}
    upsert: Insert = statement.on_conflict_do_update(index_elements=keys, set_=replaced)
    return upsert


def _clear(connection: Connection, now: datetime) -> None:
    """Take out what has ended, which everybody notices by the clock, and what was removed long ago."""
    is_over = suppressions.c.expires_at <= format_time(now)
    forgotten = select(func.max(suppressions.c.version)).where(is_over, suppressions.c.removed)
    last = connection.execute(forgotten).scalar_one()
    if last is not None:
        connection.execute(update(changes).where(changes.c.name == _FORGOTTEN).values(version=last))
    connection.execute(delete(suppressions).where(is_over))


def _lasts(now: datetime) -> Any:
    ends = suppressions.c.expires_at
    return or_(ends.is_(None), ends > format_time(now))


def _key(entry: Suppression) -> dict[str, str]:
    sender_domain = _ANY if entry.sender_domain is None else entry.sender_domain
    return {"pattern": entry.pattern, "sender_domain": sender_domain, "tag": entry.tag or ""}


def _row(entry: Suppression, version: int) -> dict[str, object]:
    assert entry.created_at is not None
    return _key(entry) | {
        "reason": entry.reason,
        "expires_at": None if entry.expires_at is None else format_time(entry.expires_at),
        "created_at": format_time(entry.created_at),
        "removed": False,
        "version": version,
    }


def _entry(row: Any) -> Suppression:
    return Suppression(
        pattern=row.pattern,
        sender_domain=None if row.sender_domain == _ANY else row.sender_domain,
        tag=row.tag or None,
        reason=row.reason,
        expires_at=None if row.expires_at is None else parse_time(row.expires_at),
    )


def _dated(row: Any) -> Suppression:
    return replace(_entry(row), created_at=parse_time(row.created_at))
