"""The embedded queue's file gives its space back."""

from __future__ import annotations

import os
from pathlib import Path

from mtaq.broker.embedded import tables
from mtaq.broker.embedded.operations import Publish
from mtaq.broker.file_locks import RangeLocks
from mtaq.broker.sqlite_file import SqliteFile
from mtaq.model.parcel import QueueSpec


def test_a_file_that_was_emptied_shrinks(tmp_path: Path) -> None:
    """30 MB of mail come and go; less than 9 MB stay."""
    file = SqliteFile(tmp_path / "q.db", RangeLocks(tmp_path / "l"), schema=tables.SCHEMA, format_version=1)
    file.open()
    body = os.urandom(30_000)
    with file.transaction() as connection:
        tables.declare(connection, QueueSpec(name="q"))
        tables.insert(connection, [(1, Publish("q", 0, 0, b"[]", body))] * 1000, now=0)
        taken, more = tables.take(connection, 1, owner=7, most=1000, max_bytes=1 << 30)
        assert (len(taken), more) == (1000, True)
    assert not tables.is_mostly_empty(file.connection)
    with file.transaction() as connection:
        tables.forget(connection, [row.id for row in taken], owner=7)
    while tables.is_mostly_empty(file.connection):
        with file.transaction() as connection:
            tables.shrink(connection)
    file.close()
    assert (tmp_path / "q.db").stat().st_size < 9 << 20


def test_only_its_owner_settles_a_message(tmp_path: Path) -> None:
    """Forgetting or giving back what another process has changes nothing."""
    file = SqliteFile(tmp_path / "q.db", RangeLocks(tmp_path / "l"), schema=tables.SCHEMA, format_version=1)
    file.open()
    with file.transaction() as connection:
        tables.declare(connection, QueueSpec(name="q"))
        tables.insert(connection, [(1, Publish("q", 0, 0, b"[]", b"body"))], now=0)
        ((id_, *_),) = tables.take(connection, 1, owner=7, most=10, max_bytes=100)[0]
        tables.forget(connection, [id_], owner=8)
        tables.give_back(connection, [id_], owner=8)
        assert tables.count_ready(connection, 1, 10) == 0
        tables.give_back(connection, [id_], owner=7)
        ((_, redelivered, *_, body),) = tables.take(connection, 1, owner=8, most=10, max_bytes=100)[0]
        assert (redelivered, body) == (1, b"body")
