"""The embedded queue's thread: what is written when, who is handed what.

Decides the order inside a transaction (settle, publish, release, hand out), how many messages a process may take
while others want some too, and when a dead process's messages go back. The statements are ``tables``'s; the event
loop's side is ``broker``'s; batching and failures are ``mtaq.broker.group_commit``'s.

A message is handed out only after "it is yours" is on the disk: whatever dies then, the queue knows that somebody may
have acted on it. Memory (``_out``, ``unsettled``) follows the file, never leads it, so a failed batch changes nothing.
"""

from __future__ import annotations

import math
import secrets
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from mtaq.broker.embedded import tables
from mtaq.broker.embedded.clock import QueueClock
from mtaq.broker.embedded.operations import (
    Answer,
    Batch,
    Consume,
    Count,
    Declare,
    Leave,
    Look,
    Move,
    Operation,
    Publish,
    Row,
    Settle,
    Stop,
    Subscription,
)
from mtaq.broker.file_locks import RangeLocks
from mtaq.broker.sqlite_file import FIRST_FREE_BYTE, SqliteFile, make_private_folder
from mtaq.model.errors import TopologyMismatch, UnconfirmedPublish
from mtaq.model.parcel import QueueSpec

#: How often another process's commits are looked for while something could be handed out: rarely, and often for a
#: while after one was found.
_POLL_MIN_S, _POLL_MAX_S = 0.002, 0.015
#: How often dead processes are looked for.
_REAP_S = 0.25
_TIDY_S = 1.0
_IDLE_S = 1.0
#: Most content handed out by one transaction.
_MAX_BYTES = 16 << 20
#: Most content shown by one transaction.
_LOOK_BYTES = 4 << 20

Taken = list[tuple[Subscription, list[Row]]]


class QueueStore:
    """The queue as one process's thread sees it; fits ``group_commit.Store``."""

    def __init__(self, folder: Path, clock: QueueClock, hand_out: Callable[[Taken], None]) -> None:
        """Prepare.

        Args:
            folder: Holds the queue; made if missing.
            clock: The queue's time.
            hand_out: Takes, in this thread, what was fetched.
        """
        self._folder = folder
        self._clock = clock
        self._hand_out = hand_out
        self._locks: RangeLocks | None = None
        self._file: SqliteFile | None = None
        self._owner = FIRST_FREE_BYTE + secrets.randbelow(2**62)
        self._subscriptions: list[Subscription] = []
        self._out: dict[int, Subscription] = {}  # what is handed out and not settled
        self._queues: dict[str, tuple[int, bool]] = {}
        self._data_version = 0
        self._next_due_at: float | None = None
        self._poll_s = _POLL_MAX_S
        self._look_again_at = math.inf
        self._reap_at = 0.0
        self._tidy_at = 0.0

    # What group_commit calls.

    @property
    def patience_s(self) -> float:
        """Short while something could be handed out."""
        if any(one.look and one.credit for one in self._subscriptions):
            return 0.0
        if any(one.credit for one in self._subscriptions):
            return self._poll_s
        return _REAP_S if self._subscriptions else _IDLE_S

    def open(self) -> None:
        """Open the file, prove that it can be written, and give back what nobody has any more."""
        if self._locks is None or self._file is None:
            make_private_folder(self._folder)
            self._locks = RangeLocks(self._folder / "locks")
            self._locks.try_lock(self._owner)
            self._file = SqliteFile(
                self._folder / "queue.db", self._locks, schema=tables.SCHEMA, format_version=tables.FORMAT_VERSION
            )
        self._file.open()
        self._queues = {}
        self._data_version = 0
        with self._file.transaction() as connection:
            self._clock.set_by(connection)
            tables.prove_writable(connection)
            # A commit that failed may have happened nevertheless: what it took for us was never handed out.
            tables.give_back_all_but(connection, self._out, self._owner)
            self._release_dead(connection)

    def carry_out(self, operations: Sequence[Operation]) -> Sequence[Answer | Exception]:
        """Do it all in one transaction, then hand out what it fetched."""
        assert self._file is not None, "not open"
        batch = Batch.sort(operations)
        results: list[Answer | Exception] = [None] * batch.size
        settled = [one for one in batch.settled if one.id in self._out]
        freed = Counter(id(self._out[one.id]) for one in settled)
        with self._file.transaction() as connection:
            self._notice(connection)
            self._settle(connection, settled)
            for index, other in batch.others:
                results[index] = self._other(connection, other)
            self._publish(connection, batch.publishes, results)
            self._release(connection)
            taken = self._take(connection, freed)
        for one in settled:
            self._out.pop(one.id).unsettled -= 1
        self._remember(taken)
        return results

    def idle(self) -> None:
        """Look whether there is something to hand out, and write only if there is."""
        assert self._file is not None, "not open"
        connection = self._file.connection
        self._poll_s = _POLL_MIN_S if self._notice(connection) else min(self._poll_s * 2, _POLL_MAX_S)
        now = time.monotonic()
        if (
            (now >= self._reap_at and self._dead(connection))
            or (self._next_due_at is not None and self._clock.now() >= self._next_due_at)
            or any(self._could_take(connection, one) for one in self._subscriptions)
            or (now >= self._tidy_at and tables.is_mostly_empty(connection))
        ):
            self.carry_out(())
        if now >= self._reap_at:
            self._reap_at = now + _REAP_S
        if now >= self._tidy_at:
            self._tidy_at = now + _TIDY_S

    def close(self) -> None:
        """Close the file. What is handed out stays ours."""
        if self._file is not None:
            self._file.close()

    def end(self) -> None:
        """Close for good; what is still ours goes to whoever looks next."""
        self.close()
        if self._locks is not None:
            self._locks.close()

    # The parts of a transaction.

    def _notice(self, connection: sqlite3.Connection) -> bool:
        """Look for commits of other processes (and, the first time, for everything that is there)."""
        if time.monotonic() >= self._look_again_at:
            self._look()
        version = connection.execute("PRAGMA data_version").fetchone()[0]
        if version == self._data_version:
            return False
        self._data_version = version
        self._next_due_at = tables.next_due_at(connection)
        self._look()
        return True

    def _look(self, queue: str | None = None) -> None:
        if queue is None:
            self._look_again_at = math.inf
        for one in self._subscriptions:
            if queue is None or one.queue == queue:
                one.look = True

    def _settle(self, connection: sqlite3.Connection, settled: Sequence[Settle]) -> None:
        if acked := [one.id for one in settled if not one.requeue]:
            tables.forget(connection, acked, self._owner)
        if returned := [one.id for one in settled if one.requeue]:
            tables.give_back(connection, returned, self._owner)
            self._look()

    def _publish(
        self,
        connection: sqlite3.Connection,
        publishes: Sequence[tuple[int, Publish]],
        results: list[Answer | Exception],
    ) -> None:
        accepted: list[tuple[int, Publish]] = []
        for index, publish in publishes:
            queue = self._find(connection, publish.queue, ladder=publish.delay_s > 0)
            if queue is None:
                results[index] = UnconfirmedPublish(f"there is no queue {publish.queue}: it must be declared first")
            elif publish.delay_s > 0 and not queue[1]:
                results[index] = UnconfirmedPublish(f"queue {publish.queue} was declared without delays")
            else:
                accepted.append((queue[0], publish))
        if not accepted:
            return
        tables.insert(connection, accepted, self._clock.now())
        for name in {publish.queue for _, publish in accepted}:
            self._look(name)
        if any(publish.delay_s > 0 for _, publish in accepted):
            self._next_due_at = tables.next_due_at(connection)

    def _find(self, connection: sqlite3.Connection, queue: str, *, ladder: bool = False) -> tuple[int, bool] | None:
        found = self._queues.get(queue)
        if found is None or (ladder and not found[1]):  # somebody else may have declared it since
            self._queues = tables.queue_ids(connection)
            found = self._queues.get(queue)
        return found

    def _other(self, connection: sqlite3.Connection, operation: Operation) -> Answer | Exception:
        match operation:
            case Declare(queues, make):
                return self._declare(connection, queues) if make else self._look_for(connection, queues)
            case Count(queue):
                return tables.depth(connection, queue, self._clock.now())
            case Look() as look:
                return self._list(connection, look)
            case Move() as move:
                return self._move(connection, move)
            case Consume(subscription):
                self._subscriptions = [one for one in self._subscriptions if one is not subscription] + [subscription]
            case Stop(subscription):
                subscription.active = False
                self._subscriptions = [one for one in self._subscriptions if one is not subscription]
            case Leave():
                self._subscriptions = []
                tables.release_owner(connection, self._owner)
                return None
        tables.register(connection, self._owner, {one.queue for one in self._subscriptions})
        return None

    def _declare(self, connection: sqlite3.Connection, queues: Sequence[QueueSpec]) -> bool:
        made = [tables.declare(connection, spec) for spec in queues]
        self._queues = {}
        self._look()
        return any(made)

    def _look_for(self, connection: sqlite3.Connection, queues: Sequence[QueueSpec]) -> bool | Exception:
        for spec in queues:
            found = self._find(connection, spec.name, ladder=spec.ladder)
            if found is None or (spec.ladder and not found[1]):
                return TopologyMismatch(f"queue {spec.name!r} was not declared{' with delays' if found else ''}")
        return False

    def _list(self, connection: sqlite3.Connection, look: Look) -> Answer | Exception:
        queue = self._find(connection, look.queue)
        if queue is None:
            return UnconfirmedPublish(f"there is no queue {look.queue}")
        return tables.lying(
            connection, queue[0], delayed=look.delayed, after=look.after, most=look.most, max_bytes=_LOOK_BYTES
        )

    def _move(self, connection: sqlite3.Connection, move: Move) -> Answer | Exception:
        queue = self._find(connection, move.to)
        if queue is None:
            return UnconfirmedPublish(f"there is no queue {move.to}: it must be declared first")
        self._look(move.to)
        return tables.move(connection, move.changes, queue[0], delayed=move.delayed)

    def _release(self, connection: sqlite3.Connection) -> None:
        """What time has brought: delays that are over, dead processes, an emptied file."""
        if self._next_due_at is not None and (now := self._clock.now()) >= self._next_due_at:
            tables.release_due(connection, now)
            self._next_due_at = tables.next_due_at(connection)
            self._look()
        if time.monotonic() >= self._reap_at:
            self._release_dead(connection)
        if time.monotonic() >= self._tidy_at:
            self._tidy_at = time.monotonic() + _TIDY_S
            if tables.is_mostly_empty(connection):
                tables.shrink(connection)

    def _dead(self, connection: sqlite3.Connection) -> list[int]:
        assert self._locks is not None, "not open"
        others = [owner for owner in tables.owners(connection) if owner != self._owner]
        return [owner for owner in others if not self._locks.is_locked(owner)]

    def _release_dead(self, connection: sqlite3.Connection) -> None:
        self._reap_at = time.monotonic() + _REAP_S
        for owner in self._dead(connection):
            tables.release_owner(connection, owner)
            self._look()

    # Handing out.

    def _could_take(self, connection: sqlite3.Connection, one: Subscription) -> bool:
        if not one.look or not one.credit:
            return False
        queue = self._find(connection, one.queue)
        one.look = queue is not None and tables.count_ready(connection, queue[0], 1) > 0
        return one.look

    def _take(self, connection: sqlite3.Connection, freed: Counter[int]) -> Taken:
        taken: Taken = []
        room_bytes = _MAX_BYTES
        for one in self._subscriptions:
            credit = one.credit + freed[id(one)]
            queue = self._find(connection, one.queue) if one.look and credit > 0 else None
            if queue is None or room_bytes <= 0:
                continue
            share = self._share(connection, one, queue[0], credit)
            rows, more = tables.take(connection, queue[0], self._owner, most=share, max_bytes=room_bytes)
            room_bytes -= sum(len(row.body) for row in rows)
            one.look = one.look and more
            if rows:
                taken.append((one, rows))
        return taken

    def _share(self, connection: sqlite3.Connection, one: Subscription, queue: int, credit: int) -> int:
        """Leave the other consuming processes their part of a short queue; come back for it if they do not want it."""
        rivals = tables.consumers_of(connection, one.queue)
        if rivals <= 1:
            return credit
        ready = tables.count_ready(connection, queue, credit * rivals)
        share = math.ceil(ready / rivals)
        if share < credit:
            one.look = False
            self._look_again_at = min(self._look_again_at, time.monotonic() + _POLL_MAX_S)
        return min(credit, share)

    def _remember(self, taken: Taken) -> None:
        for one, rows in taken:
            one.unsettled += len(rows)
            for row in rows:
                self._out[row.id] = one
        if taken:
            self._hand_out(taken)
