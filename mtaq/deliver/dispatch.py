"""Who goes first, over which connection? Ready queues, and the connections that work them off.

There is one ready queue for each (site, source, security, login); its connections take the next job when they are done
with one. Connections are opened while jobs wait: one at first, then as many at a time as are open already, up to the
cap of the site. They are closed when idle, used up, or when another queue of a full site has none. When no connection
can be opened and none is open, everything that waits in that queue ends the same way: a dead host costs one time-out,
not one for each message. Each connection has a slot of the instance from before it is opened until it is closed;
without one it waits, and mail that got no connection in its time goes back to the outbox as it was. Surprises end the
job they meet with that exception, never the dispatcher.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from mtaq.config import DeliverOptions, Security
from mtaq.deliver.connection import Connection
from mtaq.deliver.ending import Ending, HostFailure
from mtaq.deliver.opening import Opener
from mtaq.deliver.ports import Slots
from mtaq.deliver.route import Login, Route
from mtaq.deliver.slots import SlotQueue
from mtaq.smtp.client_commands import Transaction
from mtaq.telemetry.metrics import gauge

SWEEP_S = 1.0
#: After a site refused one connection more than are open, that many will do for a while.
CEILING_S = 60.0
#: Reused connections that may turn out to be dead under one job before that is taken for an answer.
MAX_STALE = 5

CONNECTIONS = gauge("mtaq_delivery_connections", "Connections to mail hosts, being opened ones included.")


class Stopped(Exception):
    """The job was not begun: the dispatcher stops, or all that time the instance had no connection to spare."""


@dataclass(eq=False, slots=True)
class Job:
    """One transaction that waits for a connection.

    Attributes:
        transaction: With one forward-path.
        deadline: The loop's time at which the attempt must have ended.
        done: Where its ending goes.
        stale: How many reused connections failed under it.
    """

    transaction: Transaction
    deadline: float
    done: asyncio.Future[Ending]
    stale: int = 0


@dataclass(eq=False, slots=True)
class _Site:
    """Every connection to one site, whatever queue it works for."""

    name: str
    connections: int = 0
    pools: dict[tuple[str | None, Security, int, Login | None], _Pool] = field(default_factory=dict)


@dataclass(eq=False, slots=True)
class _Pool:
    """One ready queue and its connections.

    Attributes:
        open: Connections ready for work or working.
        opening: Connections being opened.
        without_slot: Of those, how many wait until the instance may have one more.
        idle: Connections without work, the most recently used last; true wakes one to work, false to close.
        woken: Of those, how many have been woken and did not yet take a job.
        ceiling: No more connections than this until ``ceiling_until``.
    """

    site: _Site
    route: Route
    source: str | None
    security: Security
    ready: deque[Job] = field(default_factory=deque)
    open: int = 0
    opening: int = 0
    without_slot: int = 0
    idle: list[asyncio.Future[bool]] = field(default_factory=list)
    woken: int = 0
    ceiling: int = 0
    ceiling_until: float = 0.0

    @property
    def starves(self) -> bool:
        return bool(self.ready) and not (self.open or self.opening)


class Dispatcher:
    """Hands jobs to connections.

    Attributes:
        options: May be replaced at any time.
    """

    def __init__(self, options: DeliverOptions, *, opener: Opener, slots: Slots, tell_full: Callable[[], None]) -> None:
        """Begin without work; *tell_full* is called now and then while the instance has no slot left."""
        self.options = options
        self._opener = opener
        self._slots = SlotQueue(slots, make_room=self._close_idle, tell=tell_full)
        self._loop = asyncio.get_running_loop()
        self._sites: dict[str, _Site] = {}
        self._workers: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._sweeper = self._loop.call_later(SWEEP_S, self._sweep)

    @property
    def site_count(self) -> int:
        """How many sites there is work for, or a connection to."""
        return len(self._sites)

    async def deliver(
        self, transaction: Transaction, route: Route, *, source: str | None, security: Security, deadline: float
    ) -> Ending:
        """
        Make *transaction* over a connection to *route* and return how it ended.

        Raises:
            Stopped: Nothing was begun.
        """
        if self._stopping:
            raise Stopped
        pool = self._pool(route, source, security)
        job = Job(transaction, deadline, self._loop.create_future())
        pool.ready.append(job)
        self._set_to_work(pool)
        return await job.done

    async def stop(self, grace_s: float) -> None:
        """Give back what was not begun, let transactions in flight finish for *grace_s* seconds, then cut them off."""
        self._stopping = True
        self._sweeper.cancel()
        self._slots.stop()
        for site in self._sites.values():
            for pool in site.pools.values():
                self._end_ready(pool, Stopped())
                for wake in pool.idle:
                    wake.set_result(False)
                pool.woken += len(pool.idle)
                pool.idle.clear()
        if self._workers:
            await asyncio.wait(self._workers, timeout=grace_s)
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)

    def _pool(self, route: Route, source: str | None, security: Security) -> _Pool:
        site = self._sites.get(route.site)
        if site is None:
            site = self._sites[route.site] = _Site(route.site)
        key = (source, security, route.port, route.login)
        pool = site.pools.get(key)
        if pool is None:
            pool = site.pools[key] = _Pool(site, route, source, security)
        pool.route = route  # preferences may have changed, though the hosts are the same
        return pool

    # Enough connections, not too many.

    def _set_to_work(self, pool: _Pool) -> None:
        if pool.idle:
            # The one used last: the others may grow old and close.
            pool.idle.pop().set_result(True)
            pool.woken += 1
            return
        self._grow(pool)
        if pool.starves:
            self._take_idle_slot(pool.site)

    def _grow(self, pool: _Pool) -> None:
        site = pool.site
        while (
            len(pool.ready) > pool.opening + pool.woken
            and pool.opening < max(1, pool.open)
            and site.connections < self.options.delivery_connections_per_site
            and not self._at_ceiling(pool)
            and not self._stopping
        ):
            pool.opening += 1
            site.connections += 1
            worker = self._loop.create_task(self._work(pool))
            self._workers.add(worker)
            worker.add_done_callback(self._workers.discard)

    def _at_ceiling(self, pool: _Pool) -> bool:
        connections = pool.open + pool.opening
        return 0 < pool.ceiling <= connections and self._loop.time() < pool.ceiling_until

    def _take_idle_slot(self, site: _Site) -> None:
        """Close an idle connection of a full site for the sake of a queue that has none."""
        for pool in site.pools.values():
            if pool.idle:
                pool.idle.pop(0).set_result(False)
                pool.woken += 1
                return

    def _close_idle(self) -> None:
        """Close an idle connection for the sake of whoever waits for a slot."""
        for site in self._sites.values():
            if any(pool.idle for pool in site.pools.values()):
                self._take_idle_slot(site)
                return

    def _left(self, pool: _Pool) -> None:
        """A connection of *pool* is gone; its slot goes to whoever has none, else to whoever has work."""
        site = pool.site
        site.connections -= 1
        for other in sorted(site.pools.values(), key=lambda other: not other.starves):
            self._grow(other)
        for key, other in list(site.pools.items()):
            if not (other.ready or other.open or other.opening):
                del site.pools[key]
        if not site.pools:
            self._sites.pop(site.name, None)

    # One connection's life.

    async def _work(self, pool: _Pool) -> None:
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

    async def _slot(self, pool: _Pool) -> int | None:
        """Wait until the instance may have one more connection; ``None`` when it is not needed any more."""
        pool.without_slot += 1
        slot = None
        try:
            slot = await self._slots.take()
            if slot is not None and not self._is_wanted(pool):
                self._slots.release(slot)
                slot = None
            return slot
        finally:
            pool.without_slot -= 1
            if slot is None:
                pool.opening -= 1

    def _is_wanted(self, pool: _Pool) -> bool:
        while pool.ready and pool.ready[0].done.done():
            pool.ready.popleft()
        return bool(pool.ready)

    async def _connect(self, pool: _Pool) -> None:
        connection = await self._open(pool)
        if connection is not None:
            try:
                await self._serve(pool, connection)
            finally:
                pool.open -= 1
                connection.abort()

    async def _open(self, pool: _Pool) -> Connection | None:
        failure: Ending | Exception
        try:
            connection = await self._opener.open(pool.route, pool.source, pool.security)
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

    async def _serve(self, pool: _Pool, connection: Connection) -> None:
        while connection.usable and connection.messages < self.options.delivery_messages_per_connection:
            if self._stopping or self._should_yield(pool):
                break
            job = self._next_job(pool)
            if job is None:
                if self._slots.is_waited_for or not await self._rest(pool, connection):
                    break
                continue
            self._grow(pool)  # for those behind it
            await self._carry(pool, connection, job)
        await connection.close()

    def _should_yield(self, pool: _Pool) -> bool:
        site = pool.site
        if len(site.pools) == 1 or site.connections < self.options.delivery_connections_per_site:
            return False
        return any(other.starves for other in site.pools.values())

    def _next_job(self, pool: _Pool) -> Job | None:
        while pool.ready:
            job = pool.ready.popleft()
            if not job.done.done():
                return job
        return None

    async def _rest(self, pool: _Pool, connection: Connection) -> bool:
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

    async def _carry(self, pool: _Pool, connection: Connection, job: Job) -> None:
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
        if job.done.done():
            return
        if ending.stale and job.stale < MAX_STALE:
            job.stale += 1
            pool.ready.appendleft(job)
        else:
            job.done.set_result(ending)

    # Ends without a connection.

    def _end_ready(self, pool: _Pool, how: Ending | Exception) -> None:
        while (job := self._next_job(pool)) is not None:
            if isinstance(how, Ending):
                job.done.set_result(how)
            else:
                job.done.set_exception(how)

    def _sweep(self) -> None:
        """End jobs whose time is over while they wait."""
        now = self._loop.time()
        for site in self._sites.values():
            for pool in site.pools.values():
                for job in pool.ready:
                    if now >= job.deadline and not job.done.done():
                        if pool.without_slot and not pool.open:
                            job.done.set_exception(Stopped())
                        else:
                            job.done.set_result(_no_turn(pool))
        self._sweeper = self._loop.call_later(SWEEP_S, self._sweep)


def _no_turn(pool: _Pool) -> Ending:
    if pool.open:
        text = f"no connection to {pool.route.site} became free in time"
    else:
        text = f"no connection to {pool.route.site} could be opened in time"
    return Ending(state="process" if pool.open else "connect", result="timeout", status="4.4.2", description=text)
