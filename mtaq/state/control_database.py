"""Entries about delivery, read and changed in the database: each call is a transaction, or several large ones.

Blocks, as everything of ``Database`` does, and counts what it changes, so that every process finds out.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from sqlalchemy import Connection, select

from mtaq.model.control import Entry, Suppression
from mtaq.state import control_store, suppression_store
from mtaq.state.database import Database
from mtaq.state.patterns import AddressPatterns
from mtaq.state.rows import kind_of_entry
from mtaq.state.tables import changes

_SUPPRESSIONS = "suppressions"


class ControlDatabase:
    """The entries about delivery of one database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def read(self, kind: str) -> list[Entry]:
        """Return all entries of *kind*, ended ones included.

        Raises:
            StateUnavailable: It does not answer.
        """
        with self._database.connected() as connection:
            return control_store.read(connection, kind)

    def put(self, entries: Sequence[Entry], *, now: datetime) -> list[Entry]:
        """Add entries about delivery, each in place of the one with its id, but an automatic one only prolongs.

        Ended entries of the same kinds are removed on the way. Returns those whose id was not there.

        Raises:
            TooManyEntries: Nothing was written.
            StateUnavailable: Some kinds may have been written.
        """
        kinds: dict[str, list[Entry]] = {}
        for entry in entries:
            kinds.setdefault(kind_of_entry(entry), []).append(entry)
        new: list[Entry] = []
        for kind, found in kinds.items():
            with self._database.counting(kind) as connection:
                new += control_store.put(connection, kind, found, now=now)
        return new

    def remove(self, kind: str, ids: Sequence[str], *, now: datetime) -> list[str]:
        """Remove entries about delivery; return the ids of those that were there and had not ended.

        Raises:
            StateUnavailable: Nothing was written.
        """
        with self._database.counting(kind) as connection:
            return control_store.remove(connection, kind, ids, now=now)

    def read_suppressions(self, known: int, *, is_begun: bool = False) -> suppression_store.Page:
        """Return a page of suppressions that changed after the number *known*; see ``suppression_store.read``.

        Raises:
            StateUnavailable: It does not answer.
        """
        with self._database.connected() as connection:
            return suppression_store.read(connection, known, is_begun=is_begun)

    def count_suppressions(self, now: datetime) -> int:
        """Return how many there are.

        Raises:
            StateUnavailable: It does not answer.
        """
        with self._database.connected() as connection:
            return suppression_store.count(connection, now)

    def suppressions_of(self, address: str, now: datetime) -> list[Suppression]:
        """Return those that hold *address*, as ``plain_text`` spells it, whatever sender and tag they are about.

        Raises:
            StateUnavailable: It does not answer.
        """
        with self._database.connected() as connection:
            exact = suppression_store.look_up(connection, [address, address.rpartition("@")[2]], now)
            wildcards = suppression_store.wildcards(connection, now)
        patterns = AddressPatterns([(entry.pattern, "wildcard") for entry in wildcards])
        return [*exact, *(wildcards[index] for index in patterns.matching(address))]

    def all_suppressions(self, now: datetime) -> Iterator[Suppression]:
        """Give out all of them in the order of their patterns, read piece by piece.

        Raises:
            StateUnavailable: It does not answer.
        """
        last: Suppression | None = None
        while True:
            with self._database.connected() as connection:
                found = suppression_store.page(connection, last, suppression_store.MOST_READ, now)
            yield from found
            if len(found) < suppression_store.MOST_READ:
                return
            last = found[-1]

    def put_suppressions(self, entries: Iterable[Suppression], *, now: datetime) -> int:
        """Add suppressions, each in place of what was there; return how many. Large numbers are several transactions.

        Raises:
            StateUnavailable: Those before may have been written.
        """
        number = 0
        rest = iter(entries)
        while some := list(itertools.islice(rest, suppression_store.MOST_CHANGED)):
            with self._database.counting(_SUPPRESSIONS) as connection:
                suppression_store.put(connection, some, _counter(connection), now=now)
            number += len(some)
        return number

    def remove_suppressions(self, keys: Iterable[Suppression], *, now: datetime) -> list[Suppression]:
        """Remove those with the patterns, senders and tags of *keys*; return those that were there.

        Raises:
            StateUnavailable: Those before may have been removed.
        """
        found: list[Suppression] = []
        rest = iter(keys)
        while some := list(itertools.islice(rest, suppression_store.MOST_CHANGED)):
            with self._database.counting(_SUPPRESSIONS) as connection:
                found += suppression_store.remove(connection, some, _counter(connection), now=now)
        return found


def _counter(connection: Connection) -> int:
    """Return the counter of suppressions, as this transaction has set it."""
    version: int = connection.execute(select(changes.c.version).where(changes.c.name == _SUPPRESSIONS)).scalar_one()
    return version
