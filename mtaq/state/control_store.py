"""Entries about delivery in the database, all kinds but suppressions. Works inside a transaction that others begin."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import datetime

from sqlalchemy import Connection, bindparam, delete, func, insert, select

from mtaq.model.control import Entry
from mtaq.model.errors import MtaqError
from mtaq.model.times import format_time
from mtaq.state.rows import KINDS, from_json, to_json
from mtaq.state.tables import control

#: Most entries of one kind that operators make; a list that long is a program's mistake, and each is asked for mail.
MOST_ENTRIES = 10_000
#: Most automatic entries of one kind; beyond it, those that end first give way.
MOST_AUTOMATIC = 10_000


class TooManyEntries(MtaqError):
    """There is no room for so many entries of one kind."""


def read(connection: Connection, kind: str) -> list[Entry]:
    """Return all entries of *kind*, ended ones included. A row that cannot be understood is left out."""
    found = []
    for text in connection.execute(select(control.c.entry).where(control.c.kind == kind)).scalars():
        try:
            found.append(from_json(KINDS[kind], json.loads(text)))
        except ValueError:
            continue
    return found


def put(connection: Connection, kind: str, entries: Iterable[Entry], *, now: datetime) -> list[Entry]:
    """Add *entries*, each in place of the one with its id, but an automatic one only prolongs; return the new ones.

    Raises:
        TooManyEntries: There would be too many.
    """
    _clear(connection, kind, now)
    there = {entry.id: entry for entry in read(connection, kind)}
    wanted = {entry.id: entry for entry in entries if not _is_covered(entry, there.get(entry.id))}
    _remove(connection, kind, wanted)
    if wanted:
        connection.execute(insert(control), [_row(kind, entry) for entry in wanted.values()])
    _bound(connection, kind)
    return [entry for id, entry in wanted.items() if id not in there]


def remove(connection: Connection, kind: str, ids: Sequence[str], *, now: datetime) -> list[str]:
    """Remove entries; return those that were there and had not ended."""
    _clear(connection, kind, now)
    there = set(connection.execute(select(control.c.id).where(control.c.kind == kind)).scalars())
    found = [id for id in dict.fromkeys(ids) if id in there]
    _remove(connection, kind, found)
    return found


def _row(kind: str, entry: Entry) -> dict[str, object]:
    return {
        "kind": kind,
        "id": entry.id,
        "entry": json.dumps(to_json(entry)),
        "expires_at": None if entry.expires_at is None else format_time(entry.expires_at),
        "automatic": entry.automatic,
    }


def _clear(connection: Connection, kind: str, now: datetime) -> None:
    connection.execute(delete(control).where(control.c.kind == kind, control.c.expires_at <= format_time(now)))


def _remove(connection: Connection, kind: str, ids: Iterable[str]) -> None:
    rows = [{"wanted": id} for id in ids]
    if rows:
        connection.execute(delete(control).where(control.c.kind == kind, control.c.id == bindparam("wanted")), rows)


def _bound(connection: Connection, kind: str) -> None:
    own = select(func.count()).select_from(control).where(control.c.kind == kind, ~control.c.automatic)
    if connection.execute(own).scalar_one() > MOST_ENTRIES:
        raise TooManyEntries(f"more than {MOST_ENTRIES} {kind.replace('_', ' ')}; remove some, or use wildcards")
    automatic = select(control.c.id).where(control.c.kind == kind, control.c.automatic)
    surplus = automatic.order_by(control.c.expires_at.desc()).offset(MOST_AUTOMATIC)
    _remove(connection, kind, connection.execute(surplus).scalars().all())


def _is_covered(entry: Entry, there: Entry | None) -> bool:
    """Is *entry* automatic, and does what is there last as long?"""
    if there is None or not entry.automatic:
        return False
    return there.expires_at is None or (entry.expires_at is not None and there.expires_at >= entry.expires_at)
