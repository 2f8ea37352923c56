"""The tables of the embedded queue, and each statement that touches them.

A message is two rows: a small one that moves (taken, given back, due) and its content, written once and deleted once.
Every function runs inside the caller's transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence

import orjson

from mtaq.broker.embedded.operations import Change, Lying, Publish, Row
from mtaq.model.parcel import Depth, QueueSpec

FORMAT_VERSION = 1

SCHEMA = """
CREATE TABLE queues (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, ladder INTEGER NOT NULL);
CREATE TABLE messages (
    id INTEGER PRIMARY KEY,
    queue INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL,
    due_at REAL,                           -- by the queue's clock; NULL: at once
    owner INTEGER,                         -- process that was handed it; NULL: nobody
    redelivered INTEGER NOT NULL DEFAULT 0 -- it was handed out and came back
);
CREATE INDEX ready ON messages (queue, priority DESC, id) WHERE owner IS NULL AND due_at IS NULL;
CREATE INDEX due ON messages (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX owned ON messages (owner) WHERE owner IS NOT NULL;
CREATE TABLE contents (id INTEGER PRIMARY KEY, properties BLOB NOT NULL, body BLOB NOT NULL);
CREATE TABLE consumers (owner INTEGER NOT NULL, queue TEXT, PRIMARY KEY (owner, queue));
CREATE TABLE probe (content BLOB);
INSERT INTO probe VALUES (zeroblob(65536));
CREATE TABLE clock (boot TEXT NOT NULL, wall_minus_uptime REAL NOT NULL);
"""

_LIST_READY = """
    SELECT id, redelivered, priority, size_bytes FROM messages
    WHERE queue = ? AND owner IS NULL AND due_at IS NULL ORDER BY priority DESC, id LIMIT ?"""
_COUNT_READY = """
    SELECT count(*) FROM (SELECT 1 FROM messages WHERE queue = ? AND owner IS NULL AND due_at IS NULL LIMIT ?)"""
# The ids come as a JSON array: one statement, however many there are.
_TAKE = "UPDATE messages SET owner = ? WHERE id IN (SELECT value FROM json_each(?))"
_FORGET_CONTENTS = """
    DELETE FROM contents WHERE id IN (
        SELECT id FROM messages WHERE owner = ? AND id IN (SELECT value FROM json_each(?)))"""
_FORGET = "DELETE FROM messages WHERE owner = ? AND id IN (SELECT value FROM json_each(?))"
_GIVE_BACK = """
    UPDATE messages SET owner = NULL, redelivered = 1
    WHERE owner = ? AND id IN (SELECT value FROM json_each(?))"""
_GIVE_BACK_ALL_BUT = """
    UPDATE messages SET owner = NULL, redelivered = 1
    WHERE owner = ? AND id NOT IN (SELECT value FROM json_each(?))"""
_LYING = "owner IS NULL AND due_at IS NOT NULL", "owner IS NULL AND due_at IS NULL"
_LIST_LYING, _LIST_READY_BY_ID = (
    f"SELECT id, priority, size_bytes FROM messages WHERE queue = ? AND {which} AND id > ? ORDER BY id LIMIT ?"  # noqa: S608 - of two constants
    for which in _LYING
)
_MOVE_LYING, _MOVE_READY = (
    f"UPDATE messages SET queue = ?, due_at = NULL, priority = ? WHERE id = ? AND {which}"  # noqa: S608 - of two constants
    for which in _LYING
)
_RUNGS = 23
_RUNG_OF = " ".join(f"WHEN left_s < {2 ** (rung + 1)} THEN {rung}" for rung in range(_RUNGS - 1))
_COUNT_DELAYED = f"""
    SELECT CASE {_RUNG_OF} ELSE {_RUNGS - 1} END AS rung, count(*)
    FROM (SELECT due_at - ? AS left_s FROM messages WHERE queue = ? AND due_at IS NOT NULL) GROUP BY rung"""  # noqa: S608 - numbers

#: From this size on, bodies are streamed in and out: SQLite would otherwise hold two more copies of them.
_STREAM_BYTES = 1 << 20


def prove_writable(connection: sqlite3.Connection) -> None:
    """Write 64 KiB, so that a full disk shows now and not at the next message."""
    connection.execute("UPDATE probe SET content = randomblob(65536)")


def queue_ids(connection: sqlite3.Connection) -> dict[str, tuple[int, bool]]:
    """Return each queue's id, and whether messages for it may be delayed, by its name."""
    return {
        name: (id_, bool(ladder)) for id_, name, ladder in connection.execute("SELECT id, name, ladder FROM queues")
    }


def declare(connection: sqlite3.Connection, spec: QueueSpec) -> bool:
    """Make a queue, or give an old one its ladder; return whether the queue was missing."""
    made = connection.execute("INSERT OR IGNORE INTO queues (name, ladder) VALUES (?, ?)", (spec.name, spec.ladder))
    if spec.ladder:
        connection.execute("UPDATE queues SET ladder = 1 WHERE name = ?", (spec.name,))
    return made.rowcount > 0


def insert(connection: sqlite3.Connection, publishes: Sequence[tuple[int, Publish]], now: float) -> None:
    """Store messages, each for the queue whose id stands before it."""
    first = connection.execute("SELECT coalesce(max(id), 0) + 1 FROM messages").fetchone()[0]
    connection.executemany(
        "INSERT INTO messages (id, queue, priority, size_bytes, due_at) VALUES (?, ?, ?, ?, ?)",
        (
            (id_, queue, one.priority, len(one.body), now + one.delay_s if one.delay_s > 0 else None)
            for id_, (queue, one) in enumerate(publishes, first)
        ),
    )
    numbered = list(enumerate((one for _, one in publishes), first))
    connection.executemany(
        "INSERT INTO contents VALUES (?, ?, ?)",
        ((id_, one.properties, one.body) for id_, one in numbered if len(one.body) < _STREAM_BYTES),
    )
    for id_, one in numbered:
        if len(one.body) >= _STREAM_BYTES:
            _insert_large(connection, id_, one)


def _insert_large(connection: sqlite3.Connection, id_: int, publish: Publish) -> None:
    size = len(publish.body)
    connection.execute("INSERT INTO contents VALUES (?, ?, zeroblob(?))", (id_, publish.properties, size))
    with connection.blobopen("contents", "body", id_) as blob, memoryview(publish.body) as body:
        for start in range(0, size, _STREAM_BYTES):
            blob.write(body[start : start + _STREAM_BYTES])


def count_ready(connection: sqlite3.Connection, queue: int, most: int) -> int:
    """Return how many messages may be taken, counting up to *most*."""
    return _number(connection.execute(_COUNT_READY, (queue, most)))


def take(
    connection: sqlite3.Connection, queue: int, owner: int, *, most: int, max_bytes: int
) -> tuple[list[Row], bool]:
    """Hand the next messages to *owner*: at most *most*, and none (but the first) that would pass *max_bytes*.

    Returns:
        The messages, and whether there may be more.
    """
    found = connection.execute(_LIST_READY, (queue, most)).fetchall()
    rows: list[Row] = []
    size_bytes = 0
    for id_, redelivered, priority, size in found:
        size_bytes += size
        if rows and size_bytes > max_bytes:
            break
        rows.append(Row(id_, redelivered, priority, *_content(connection, id_, size)))
    connection.execute(_TAKE, (owner, _listed(row.id for row in rows)))
    return rows, len(rows) == most or len(rows) < len(found)


def _content(connection: sqlite3.Connection, id_: int, size_bytes: int) -> tuple[bytes, bytes]:
    if size_bytes < _STREAM_BYTES:
        row: tuple[bytes, bytes] = connection.execute(
            "SELECT properties, body FROM contents WHERE id = ?", (id_,)
        ).fetchone()
        return row
    (properties,) = connection.execute("SELECT properties FROM contents WHERE id = ?", (id_,)).fetchone()
    with connection.blobopen("contents", "body", id_, readonly=True) as blob:
        return properties, blob.read()


def lying(
    connection: sqlite3.Connection, queue: int, *, delayed: bool, after: int, most: int, max_bytes: int
) -> list[Lying]:
    """Return messages of a queue that nobody has, by their ids, at most *most* and about *max_bytes*."""
    listing = _LIST_LYING if delayed else _LIST_READY_BY_ID
    found: list[Lying] = []
    for id_, priority, size in connection.execute(listing, (queue, after, most)).fetchall():
        if found and size > max_bytes:
            break
        max_bytes -= size
        found.append(Lying(id_, priority, *_content(connection, id_, size)))
    return found


def move(connection: sqlite3.Connection, changes: Iterable[Change], to: int, *, delayed: bool) -> int:
    """Put messages into the queue *to*, due at once, if they are still where they were; return how many."""
    moved = 0
    for change in changes:
        if not connection.execute(_MOVE_LYING if delayed else _MOVE_READY, (to, change.priority, change.id)).rowcount:
            continue
        moved += 1
        connection.execute("UPDATE contents SET properties = ? WHERE id = ?", (change.properties, change.id))
        if change.body is not None:
            connection.execute("UPDATE contents SET body = ? WHERE id = ?", (change.body, change.id))
            connection.execute("UPDATE messages SET size_bytes = ? WHERE id = ?", (len(change.body), change.id))
    return moved


def depth(connection: sqlite3.Connection, name: str, now: float) -> Depth | None:
    """Return how much lies in a queue; ``None`` when there is none of this name."""
    row = connection.execute("SELECT id FROM queues WHERE name = ?", (name,)).fetchone()
    if row is None:
        return None
    ready = _number(
        connection.execute("SELECT count(*) FROM messages WHERE queue = ? AND owner IS NULL AND due_at IS NULL", row)
    )
    consumers = _number(connection.execute("SELECT count(*) FROM consumers WHERE queue = ?", (name,)))
    return Depth(ready, consumers, dict(connection.execute(_COUNT_DELAYED, (now, *row)).fetchall()))


def forget(connection: sqlite3.Connection, ids: Iterable[int], owner: int) -> None:
    """Delete those of the messages *ids* that *owner* has."""
    listed = _listed(ids)
    connection.execute(_FORGET_CONTENTS, (owner, listed))
    connection.execute(_FORGET, (owner, listed))


def give_back(connection: sqlite3.Connection, ids: Iterable[int], owner: int) -> None:
    """Return those of the messages *ids* that *owner* has to their queues."""
    connection.execute(_GIVE_BACK, (owner, _listed(ids)))


def give_back_all_but(connection: sqlite3.Connection, kept: Iterable[int], owner: int) -> None:
    """Return every message that *owner* has, save *kept*, to its queue."""
    connection.execute(_GIVE_BACK_ALL_BUT, (owner, _listed(kept)))


def release_due(connection: sqlite3.Connection, now: float) -> bool:
    """End the delays that are over; return whether there were any."""
    return connection.execute("UPDATE messages SET due_at = NULL WHERE due_at <= ?", (now,)).rowcount > 0


def next_due_at(connection: sqlite3.Connection) -> float | None:
    """Return when the next delay is over."""
    due_at: float | None = connection.execute("SELECT min(due_at) FROM messages WHERE due_at IS NOT NULL").fetchone()[0]
    return due_at


def register(connection: sqlite3.Connection, owner: int, queues: Iterable[str]) -> None:
    """Note that *owner* takes messages, now of *queues*."""
    connection.execute("DELETE FROM consumers WHERE owner = ?", (owner,))
    rows = [(owner, None), *((owner, queue) for queue in queues)]  # the first stays while messages may be out
    connection.executemany("INSERT INTO consumers VALUES (?, ?)", rows)


def consumers_of(connection: sqlite3.Connection, queue: str) -> int:
    """Return how many processes consume *queue*."""
    return _number(connection.execute("SELECT count(*) FROM consumers WHERE queue = ?", (queue,)))


def owners(connection: sqlite3.Connection) -> list[int]:
    """Return every process that may have messages."""
    return [owner for (owner,) in connection.execute("SELECT DISTINCT owner FROM consumers")]


def release_owner(connection: sqlite3.Connection, owner: int) -> None:
    """Return all that *owner* has to its queues, and forget the process."""
    connection.execute("UPDATE messages SET owner = NULL, redelivered = 1 WHERE owner = ?", (owner,))
    connection.execute("DELETE FROM consumers WHERE owner = ?", (owner,))


def is_mostly_empty(connection: sqlite3.Connection) -> bool:
    """Are more than 8 MB and a quarter of the file unused?"""
    unused = _number(connection.execute("PRAGMA freelist_count"))
    return unused > 2048 and unused * 4 > _number(connection.execute("PRAGMA page_count"))


def shrink(connection: sqlite3.Connection) -> None:
    """Return up to 8 MB of the file to the file system."""
    connection.execute("PRAGMA incremental_vacuum(2048)").fetchall()


def _listed(ids: Iterable[int]) -> str:
    return orjson.dumps(list(ids)).decode()


def _number(cursor: sqlite3.Cursor) -> int:
    number: int = cursor.fetchone()[0]
    return number
