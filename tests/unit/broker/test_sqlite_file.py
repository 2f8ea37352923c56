"""A file with several writers: what is durable, who is next, and what a failed block leaves."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest

from mtaq.broker.file_locks import RangeLocks
from mtaq.broker.sqlite_file import SqliteFile

SCHEMA = "CREATE TABLE t (x INTEGER)"


def opened(folder: Path, wait_s: float = 10.0) -> SqliteFile:
    file = SqliteFile(folder / "t.db", RangeLocks(folder / "locks"), schema=SCHEMA, format_version=1, wait_s=wait_s)
    file.open()
    return file


def rows(file: SqliteFile) -> list[int]:
    return [x for (x,) in file.connection.execute("SELECT x FROM t ORDER BY x")]


def test_every_commit_is_synced(tmp_path: Path) -> None:
    """A write-ahead log, synced at each commit, in a file that can shrink."""
    connection = opened(tmp_path).connection
    found = [
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous", "auto_vacuum")
    ]
    assert found == ["wal", 2, 2]


def test_a_block_that_raises_never_happened(tmp_path: Path) -> None:
    """The next one starts afresh."""
    file = opened(tmp_path)

    def fail_halfway(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO t VALUES (1)")
        raise KeyError

    with pytest.raises(KeyError), file.transaction() as connection:
        fail_halfway(connection)
    with file.transaction() as connection:
        connection.execute("INSERT INTO t VALUES (2)")
    assert rows(file) == [2]


def test_a_writer_waits_for_the_other_and_not_for_ever(tmp_path: Path) -> None:
    """Too long a wait is an error, and the turn goes on to the next."""
    one, two = opened(tmp_path), opened(tmp_path, wait_s=0.01)
    with one.transaction(), pytest.raises(TimeoutError), two.transaction():
        pytest.fail("two writers at once")
    with two.transaction() as connection:
        connection.execute("INSERT INTO t VALUES (1)")
    assert rows(one) == [1]


def test_who_waits_is_next(tmp_path: Path) -> None:
    """A writer that comes back at once does not overtake the one that is waiting."""
    one = opened(tmp_path)
    order: list[str] = []
    is_open, begin = threading.Event(), threading.Event()

    def second() -> None:
        two = opened(tmp_path)
        is_open.set()
        begin.wait(20)
        with two.transaction():
            order.append("two")
        two.close()

    turn = RangeLocks(tmp_path / "locks")
    thread = threading.Thread(target=second)
    thread.start()
    is_open.wait(20)
    with one.transaction():
        begin.set()
        while not turn.is_locked(1):  # it has the turn, and waits for the pen
            pass
        order.append("one")
    with one.transaction():
        order.append("one again")
    thread.join()
    assert order == ["one", "two", "one again"]


def test_closing_leaves_one_file(tmp_path: Path) -> None:
    """The last one out folds the log into the file."""
    file = opened(tmp_path)
    with file.transaction() as connection:
        connection.execute("INSERT INTO t VALUES (1)")
    file.close()
    file.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["locks", "t.db"]
    with sqlite3.connect(tmp_path / "t.db") as connection:
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (1,)
