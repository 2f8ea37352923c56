"""Who goes first, over which connection? Ready queues, and the connections that work them off.

There is one ready queue for each (site and order of its hosts, source, demand of TLS, login) and the limits that hold
there; its connections take the next job when they are done with one. Connections are opened while jobs wait: one at
first, then as many at a time as are open already, two for each message that was answered, up to the cap, which holds
over all processes of the instance. They are closed when idle, used up, or when another queue under the same cap has
none, or another process too few. When no connection can be opened and none is open, everything that waits in that queue
ends the same way: a dead host costs one time-out, not one for each message. Each connection has a slot of the instance
from before it is opened until it is closed; without one it waits, and mail that got no connection in its time goes back
to the outbox as it was. What must not go yet, or does not fit, is sent away (``NotYet``) and is no attempt. Surprises
end the job they meet with that exception, never the dispatcher.

Limits, and how a share of connections moves between processes: docs/develop/scheduler.md.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable
from functools import partial

from mtaq.config import DeliverOptions
from mtaq.deliver.connection import Connection
from mtaq.deliver.ending import Ending, HostFailure
from mtaq.deliver.gate import Gate, is_wanted, want
from mtaq.deliver.opening import Opener
from mtaq.deliver.parking import Parked
from mtaq.deliver.pool import FEW, HOLD_S, SLOW_SHARE, Group, Job, Pool
from mtaq.deliver.ports import Meters, Slots
from mtaq.deliver.route import Route
from mtaq.deliver.slots import SlotQueue
from mtaq.deliver.tls_policy import Demand
from mtaq.model.control import NO_LIMITS, DailyCap, LimitsInForce
from mtaq.smtp.client_commands import Transaction
from mtaq.telemetry.metrics import gauge

SWEEP_S = 1.0
#: After a site refused one connection more than are open, that many will do for a while.
CEILING_S = 60.0
#: Reused connections that may turn out to be dead under one job before that is taken for an answer.
MAX_STALE = 5
#: How often a connection is asked for that other processes have.
CLAIM_RETRY_S = 0.25
#: A connection works at least so long before it is closed for the sake of another process, and then that one is given
#: so much time to open its own.
SLICE_S = 1.0
YIELD_S = 0.75
#: A turn that is nearer than this is not asked for again and again.
SHORTEST_HOLD_S = 0.001

CONNECTIONS = gauge("mtaq_delivery_connections", "Connections to mail hosts, being opened ones included.")
READY = gauge("mtaq_delivery_ready", "Messages that are routed and wait for a connection or for their turn.")


class Stopped(Exception):
    """The job was not begun: the dispatcher stops, or all that time the instance had no connection to spare."""


class Reconsider(Exception):
    """The job was not begun, and limits or pauses have changed: look again."""


class Dispatcher:
    """Hands jobs to connections.

    Attributes:
        options: May be replaced at any time.
    """

    def __init__(
        self,
        options: DeliverOptions,
        *,
        opener: Opener,
        slots: Slots,
        meters: Meters,
        rng: random.Random,
        tell_full: Callable[[], None],
        is_crowded: Callable[[], bool] = lambda: False,
        hands: int = 1000,
    ) -> None:
        """
        Begin without work.

        Args:
            tell_full: Called now and then while the instance has no slot left.
            is_crowded: Are so many messages in hand that slow sites must not keep theirs?
            hands: Messages that there may be in hand.
        """
        self.options = options
        self._opener = opener
        self._meters = meters
        self._rng = rng
        self._is_crowded = is_crowded
        self._hands = hands
        self._claimed = slots
        self._slots = SlotQueue(slots, make_room=self._close_idle, tell=tell_full)
        self._loop = asyncio.get_running_loop()
        self._groups: dict[bytes, Group] = {}
        self._workers: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._sweeper = self._loop.call_later(SWEEP_S, self._sweep)

    @property
    def site_count(self) -> int:
        """How many sites there is work for, or a connection to."""
        return len(self._groups)

    async def deliver(
        self,
        transaction: Transaction,
        route: Route,
        *,
        source: str | None,
        tls: Demand,
        deadline: float,
        limits: LimitsInForce = NO_LIMITS,
        daily: DailyCap | None = None,
        parked: Parked | None = None,
        early_s: float = 0.0,
        patience_s: float = math.inf,
    ) -> Ending:
        """
        Make *transaction* over a connection to *route* and return how it ended.

        Args:
            deadline: The loop's time at which the attempt must have ended.
            limits: What holds from *source* to there.
            daily: Likewise.
            parked: What the message remembers of having waited.
            early_s: How much earlier than agreed it came back from that.
            patience_s: In how many seconds it would have expired.

        Raises:
            NotYet: Nothing was begun; it must wait elsewhere.
            Reconsider: Nothing was begun; limits may have changed.
            Stopped: Nothing was begun.
        """
        if self._stopping:
            raise Stopped
        pool = self._pool(route, source, tls, limits, daily)
        job = Job(transaction, deadline, patience_s, parked, early_s, self._loop.create_future())
        objection = pool.objection(job, self.options, self._rng)
        if objection is not None:
            self._drop_if_empty(pool)
            raise objection
        pool.ready.append(job)
        self._set_to_work(pool)
        return await job.done

    def reconsider(self) -> None:
        """Have everything that waits looked at again: limits or pauses may have changed."""
        for pool in self.pools():
            pool.is_current = False
            self._end_ready(pool, Reconsider())

    def pools(self) -> list[Pool]:
        """Return every ready queue."""
        return [pool for group in self._groups.values() for pool in group.pools.values()]

    async def stop(self, grace_s: float) -> None:
        """Give back what was not begun, let transactions in flight finish for *grace_s* seconds, then cut them off."""
        self._stopping = True
        self._sweeper.cancel()
        self._slots.stop()
        for pool in self.pools():
            self._end_ready(pool, Stopped())
            self._close_all_idle(pool)
        if self._workers:
            await asyncio.wait(self._workers, timeout=grace_s)
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)

    def _pool(
        self, route: Route, source: str | None, tls: Demand, limits: LimitsInForce, daily: DailyCap | None
    ) -> Pool:
        group = self._group(route, limits)
        key = (source, tls, route.key, route.login, limits, daily)
        pool = group.pools.get(key)
        if pool is None:
            gate = Gate(limits, daily, self._meters)
            pool = group.pools[key] = Pool(group, key, route, source, tls, gate, since=self._loop.time())
        pool.is_current = True
        return pool

    def _group(self, route: Route, limits: LimitsInForce) -> Group:
        limit = limits.connections
        counter = b"site " + route.site.encode() if limit is None else b"connections " + limit.counter
        group = self._groups.get(counter)
        if group is None:
            group = self._groups[counter] = Group(counter, None if limit is None else int(limit.amount))
        elif limit is not None:
            group.cap = int(limit.amount)
        return group

    def _drop_if_empty(self, pool: Pool) -> None:
        group = pool.group
        if not (pool.ready or pool.open or pool.opening):
            group.pools.pop(pool.key, None)
        if not group.pools:
            self._groups.pop(group.counter, None)

    # Enough connections, not too many.

    def _set_to_work(self, pool: Pool) -> None:
        if self._loop.time() < pool.held_until:
            return
        if pool.idle:
            # The one used last: the others may grow old and close.
            pool.idle.pop().set_result(True)
            pool.woken += 1
            return
        self._grow(pool)
        if pool.starves:
            self._take_idle_slot(pool.group)

    def _grow(self, pool: Pool) -> None:
        group = pool.group
        if pool.ready and not pool.gate.is_open and self._loop.time() >= pool.held_until:
            self._wait_for_turn(pool)
        while (
            len(pool.ready) > pool.opening + pool.woken
            and pool.opening < max(1, pool.open)
            and group.connections < group.most(self.options)
            and self._loop.time() >= max(pool.held_until, pool.closed_until, group.full_until)
            and not self._at_ceiling(pool)
            and self._has_earned_one(pool)
            and not self._stopping
        ):
            pool.opening += 1
            group.connections += 1
            worker = self._loop.create_task(self._work(pool))
            self._workers.add(worker)
            worker.add_done_callback(self._workers.discard)

    def _has_earned_one(self, pool: Pool) -> bool:
        """May it have one more connection, judged by what it answered?"""
        most = pool.most_connections(self._loop.time(), crowded=self._is_crowded())
        return pool.open + pool.opening < most

    def _at_ceiling(self, pool: Pool) -> bool:
        connections = pool.open + pool.opening
        return 0 < pool.ceiling <= connections and self._loop.time() < pool.ceiling_until

    def _take_idle_slot(self, group: Group) -> None:
        """Close an idle connection of a full group for the sake of a queue that has none."""
        for pool in group.pools.values():
            if pool.idle:
                pool.idle.pop(0).set_result(False)
                pool.woken += 1
                return

    def _close_all_idle(self, pool: Pool) -> None:
        for wake in pool.idle:
            wake.set_result(False)
        pool.woken += len(pool.idle)
        pool.idle.clear()

    def _close_idle(self) -> None:
        """Close an idle connection for the sake of whoever waits for a slot."""
        for group in self._groups.values():
            if any(pool.idle for pool in group.pools.values()):
                self._take_idle_slot(group)
                return

    def _left(self, pool: Pool) -> None:
        """A connection of *pool* is gone; its slot goes to whoever has none, else to whoever has work."""
        group = pool.group
        group.connections -= 1
        for other in sorted(group.pools.values(), key=lambda other: not other.starves):
            self._grow(other)
        for other in list(group.pools.values()):
            self._drop_if_empty(other)

    # One connection's life.

    async def _work(self, pool: Pool) -> None:
        try:
            slot = await self._slot(pool)
            if slot is not None:
                CONNECTIONS.inc()
                try:
                    await self._connect(pool)
                finally:
                    CONNECTIONS.dec()
                    self._slots.release(slot)
        finally:
            self._left(pool)

    async def _slot(self, pool: Pool) -> int | None:
        """Wait until the instance may have one more connection; ``None`` when it is not needed any more, or not yet."""
        pool.without_slot += 1
        slot = None
        try:
            slot = await self._slots.take()
            if slot is not None and not (self._is_wanted(pool) and self._may_open(pool, slot)):
                self._slots.release(slot)
                slot = None
            return slot
        finally:
            pool.without_slot -= 1
            if slot is None:
                pool.opening -= 1

    def _is_wanted(self, pool: Pool) -> bool:
        while pool.ready and pool.ready[0].done.done():
            pool.ready.popleft()
        return bool(pool.ready)

    def _may_open(self, pool: Pool, slot: int) -> bool:
        """Count one more connection among those of all processes, if there may be one more."""
        group = pool.group
        most = group.most(self.options)
        if most < math.inf and not self._claimed.claim_for(slot, group.counter, int(most)):
            if group.connections - 1 < most / self._meters.processes:
                want(self._meters, group.counter)
            group.full_until = self._again(pool, CLAIM_RETRY_S)
            return False
        wait_s = pool.gate.wait_for_connection()
        if wait_s > 0:
            pool.closed_until = self._again(pool, wait_s)
        return wait_s <= 0

    def _take_connection(self, pool: Pool) -> float:
        """Count one more connection for a pool that has one turn already, or say when one may be opened."""
        return math.inf if self._stopping else pool.gate.wait_for_connection()

    def _again(self, pool: Pool, wait_s: float) -> float:
        """Set the group of *pool* to work once more in *wait_s* seconds; return the loop's time then."""
        at = self._loop.time() + wait_s
        self._loop.call_at(at, self._try_again, pool.group)
        return at

    def _try_again(self, group: Group) -> None:
        for pool in list(group.pools.values()):
            if pool.ready and not self._stopping:
                self._set_to_work(pool)

    async def _connect(self, pool: Pool) -> None:
        connection = await self._open(pool)
        if connection is not None:
            try:
                pool.carriers[connection] = self._loop.time()
                await self._serve(pool, connection)
            finally:
                del pool.carriers[connection]
                pool.open -= 1
                connection.abort()

    async def _open(self, pool: Pool) -> Connection | None:
        failure: Ending | Exception
        try:
            connection = await self._opener.open(
                pool.route, pool.source, pool.tls, partial(self._take_connection, pool)
            )
        except HostFailure as error:
            failure = error.ending
        except Exception as error:  # the top of a worker: those who wait learn of it and log it
            failure = error
        else:
            pool.open += 1
            return connection
        finally:
            pool.opening -= 1
        if pool.open or pool.opening:
            pool.ceiling = max(pool.open, 1)
            pool.ceiling_until = self._loop.time() + CEILING_S
        else:
            self._end_ready(pool, failure)
        return None

    async def _serve(self, pool: Pool, connection: Connection) -> None:
        most, since = pool.messages_per_connection(self.options), self._loop.time()
        while connection.usable and connection.messages < most:
            if self._stopping or self._should_yield(pool):
                break
            if self._owes(pool.group, since):
                await self._leave(pool.group, connection)
                return
            job = self._next_job(pool)
            if job is None:
                if self._slots.is_waited_for or not pool.is_current or not await self._rest(pool, connection):
                    break
                continue
            self._grow(pool)  # for those behind it
            pool.busy += 1
            try:
                await self._carry(pool, connection, job)
            finally:
                pool.busy -= 1
        await connection.close()

    def _should_yield(self, pool: Pool) -> bool:
        """Has another queue under the same cap no connection, and can it have none while this one works on?"""
        group = pool.group
        if len(group.pools) == 1:
            return False
        if group.connections < group.most(self.options) and self._loop.time() >= group.full_until:
            return False
        return any(other.starves and self._loop.time() >= other.held_until for other in group.pools.values())

    def _owes(self, group: Group, since: float) -> bool:
        """Has this process more than its share of the connections, while another one has less and wants some?"""
        share = group.most(self.options) / self._meters.processes
        if self._meters.processes == 1 or group.connections - group.leaving <= share:
            return False
        now = self._loop.time()
        if now - since >= SLICE_S and now >= group.asked_at + CLAIM_RETRY_S:
            group.asked_at = now
            group.wanted = is_wanted(self._meters, group.counter)
        return group.wanted and now - since >= SLICE_S

    async def _leave(self, group: Group, connection: Connection) -> None:
        """Close a connection that another process shall have."""
        group.leaving += 1
        group.full_until = self._loop.time() + YIELD_S
        self._loop.call_at(group.full_until, self._try_again, group)
        try:
            await connection.close()
        finally:
            group.leaving -= 1

    def _next_job(self, pool: Pool) -> Job | None:
        """Take the next job whose turn it is."""
        if self._loop.time() < pool.held_until:
            return None
        while pool.ready:
            job = pool.ready[0]
            if job.done.done() or pool.gate.is_open or self._has_turn(pool, job):
                pool.ready.popleft()
                if not job.done.done():
                    return job
            elif pool.held_until:
                return None
        return None

    def _has_turn(self, pool: Pool, job: Job) -> bool:
        """Take a turn for *job*. Without one, hold the queue until there is, or send *job* away if that is long."""
        wait_s = pool.gate.wait_for_message(job.size_bytes)
        if wait_s > 0:
            self._hold(pool, job, wait_s)
            return False
        if not pool.gate.take_daily():
            job.done.set_exception(pool.not_yet(0.0, "warm-up"))
            return False
        return True

    def _wait_for_turn(self, pool: Pool) -> None:
        """While the next turn is still to come no connection is needed for it."""
        while pool.ready and (wait_s := pool.gate.next_turn_s()) > 0:
            job = pool.ready[0]
            if not job.done.done():
                self._hold(pool, job, wait_s)
            if not job.done.done():
                return
            pool.ready.popleft()

    def _hold(self, pool: Pool, job: Job, wait_s: float) -> None:
        """Hold the queue until there is a turn for *job*, its first; or send *job* away if that is long."""
        gate = pool.gate
        if wait_s <= HOLD_S:
            pool.held_until = self._loop.time() + max(wait_s, SHORTEST_HOLD_S)
            self._loop.call_at(pool.held_until, self._release, pool)
        elif job.has_place(gate.line):
            job.done.set_exception(pool.not_yet(wait_s, "throttle", line=gate.line))
        else:
            job.done.set_exception(pool.sent_away(job, pool.interval_s(job, self.options)))

    def _release(self, pool: Pool) -> None:
        """The next message of a queue may begin."""
        pool.held_until = 0.0
        if pool.ready and not self._stopping:
            self._set_to_work(pool)

    async def _rest(self, pool: Pool, connection: Connection) -> bool:
        """Wait for work; false when the connection shall close instead."""
        wake: asyncio.Future[bool] = self._loop.create_future()
        pool.idle.append(wake)
        try:
            await connection.rest(wake, self.options.delivery_idle)
        finally:
            if wake.done():
                pool.woken -= 1
            else:
                pool.idle.remove(wake)
        return wake.done() and wake.result()

    async def _carry(self, pool: Pool, connection: Connection, job: Job) -> None:
        try:
            (ending,) = await connection.deliver(job.transaction, job.deadline)
        except Exception as error:  # the top of a worker: whoever waits for the job learns of it and logs it
            connection.abort()
            if not job.done.done():
                job.done.set_exception(error)
            return
        except BaseException:
            job.done.cancel()
            raise
        pool.done += 1
        if ending.code is not None:
            pool.note_answer(self._loop.time())
        if job.done.done():
            return
        if ending.stale and job.stale < MAX_STALE:
            job.stale += 1
            pool.ready.appendleft(job)
        else:
            job.done.set_result(ending)

    # Ends without a connection.

    def _end_ready(self, pool: Pool, how: Ending | Exception) -> None:
        while pool.ready:
            job = pool.ready.popleft()
            if job.done.done():
                continue
            if isinstance(how, Ending):
                job.done.set_result(how)
            else:
                job.done.set_exception(how)

    def _sweep(self) -> None:
        """End jobs whose time is over while they wait; send away what a slow site has no room for."""
        now, crowded = self._loop.time(), self._is_crowded()
        few = self._few(now) if crowded else FEW
        for group in list(self._groups.values()):
            if self._owes(group, now - SLICE_S):
                self._take_idle_slot(group)
            for pool in group.pools.values():
                self._end_late(pool, now)
                pool.look(SWEEP_S, now=now, crowded=crowded, few=few)
                self._make_room(pool)
                if not pool.idle:
                    self._grow(pool)  # it may have been held back while memory was short
                if not pool.is_current:
                    self._close_all_idle(pool)
        READY.set(sum(len(pool.ready) for pool in self.pools()))
        self._sweeper = self._loop.call_later(SWEEP_S, self._sweep)

    def _few(self, now: float) -> float:
        """Return how many messages each slow site may hold."""
        slow = sum(pool.is_slow(now) for pool in self.pools())
        return max(1.0, min(FEW, self._hands * SLOW_SHARE / max(slow, 1)))

    def _end_late(self, pool: Pool, now: float) -> None:
        for job in pool.ready:
            if now >= job.deadline and not job.done.done():
                if pool.without_slot and not pool.open:
                    job.done.set_exception(Stopped())
                else:
                    job.done.set_result(_no_turn(pool))

    def _make_room(self, pool: Pool) -> None:
        """Send the last in the queue away, so that others have room."""
        while pool.ready and pool.held > pool.room:
            job = pool.ready.pop()
            if not job.done.done():
                job.done.set_exception(pool.full(job, self._rng))


def _no_turn(pool: Pool) -> Ending:
    if pool.open:
        text = f"no connection to {pool.route.site} became free in time"
    else:
        text = f"no connection to {pool.route.site} could be opened in time"
    return Ending(state="process" if pool.open else "connect", result="timeout", status="4.4.2", description=text)
