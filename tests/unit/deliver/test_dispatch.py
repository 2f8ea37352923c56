"""Who goes first, and over how many connections; the connections are pretended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from mtaq.deliver import dispatch
from mtaq.deliver import slots as slot_queue
from mtaq.deliver.dispatch import Dispatcher, Stopped
from mtaq.deliver.ending import Ending, HostFailure
from mtaq.deliver.route import Route
from mtaq.model.address import Address
from mtaq.smtp.client_commands import Transaction
from tests.support.delivery import FakeSlots, options

ACCEPTED = Ending(state="message", result="accepted", code=250, description="ok")
STALE = Ending(state="mailfrom", result="lost", description="gone", stale=True)
DEAD = Ending(state="connect", result="timeout", description="dead")


class FakeConnection:
    """Carries a job when its opener's gate is open, and ends it as told."""

    def __init__(self, opener: FakeOpener, endings: Callable[[FakeConnection], Ending | Exception]) -> None:
        self.messages = 0
        self.usable = True
        self.carried: list[str] = []
        self.left = asyncio.Event()
        self._opener = opener
        self._endings = endings

    async def deliver(self, transaction: Transaction, deadline: float) -> tuple[Ending, ...]:
        self.messages += 1
        self.carried.append(transaction.forward_paths[0].local_part)
        self._opener.busy.release()
        await self._opener.gate.wait()
        await asyncio.sleep(0)  # as any answer takes a turn of the loop
        ending = self._endings(self)
        if isinstance(ending, Exception):
            raise ending
        self.usable = not ending.stale
        return (ending,)

    async def rest(self, wake: asyncio.Future[bool], idle_s: float) -> None:
        leaving = asyncio.ensure_future(self.left.wait())
        await asyncio.wait([leaving, wake], return_when=asyncio.FIRST_COMPLETED)
        leaving.cancel()

    async def close(self) -> None:
        self._opener.open_now -= 1

    def abort(self) -> None:
        self.usable = False


class FakeOpener:
    """Opens connections, or fails, when its door is open."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.door = asyncio.Event()
        self.door.set()
        self.busy = asyncio.Semaphore(0)
        self.asked: list[str | None] = []
        self.opened: list[FakeConnection] = []
        self.open_now = self.most_open = 0
        self.failures: list[Exception | None] = []
        self.endings: Callable[[FakeConnection], Ending | Exception] = lambda connection: ACCEPTED

    async def open(self, route: Route, source: str | None, security: str) -> FakeConnection:
        self.asked.append(source)
        await self.door.wait()
        failure = self.failures.pop(0) if self.failures else None
        if failure is not None:
            raise failure
        connection = FakeConnection(self, self.endings)
        self.opened.append(connection)
        self.open_now += 1
        self.most_open = max(self.most_open, self.open_now)
        return connection


def site(name: str = "mx") -> Route:
    return Route(name, (), 25)


class Bench:
    """A dispatcher and its opener."""

    def __init__(self, slots: int = 1 << 30, **changes) -> None:
        self.opener = FakeOpener()
        self.slots = FakeSlots(slots)
        self.told: list[None] = []
        self.dispatcher = Dispatcher(
            options(**changes), opener=self.opener, slots=self.slots, tell_full=lambda: self.told.append(None)
        )

    def put(
        self, name: str = "bob", *, route: Route | None = None, source: str | None = None, life_s: float = 60.0
    ) -> asyncio.Task[Ending]:
        transaction = Transaction(reverse_path=None, forward_paths=(Address(name, "example.com"),), content=b"")
        return asyncio.ensure_future(
            self.dispatcher.deliver(
                transaction,
                route or site(),
                source=source,
                security="optional",
                deadline=asyncio.get_running_loop().time() + life_s,
            )
        )

    async def settle(self) -> None:
        """Let everybody do what can be done now."""
        for _ in range(50):
            await asyncio.sleep(0)


@pytest.fixture
async def bench():
    made: list[Bench] = []

    def make(**changes) -> Bench:
        made.append(Bench(**changes))
        return made[-1]

    yield make
    for each in made:
        each.opener.gate.set()
        each.opener.door.set()
        await each.dispatcher.stop(1)


async def test_one_job_needs_one_connection(bench):
    """It is kept for the next."""
    b = bench()
    assert await b.put() is ACCEPTED
    assert await b.put() is ACCEPTED
    assert [connection.messages for connection in b.opener.opened] == [2]


async def test_until_one_host_has_answered_only_one_connection_is_tried(bench):
    """A burst of mail for a dead site makes no burst of connections."""
    b = bench()
    b.opener.door.clear()
    jobs = [b.put() for _ in range(100)]
    await b.settle()
    assert len(b.opener.asked) == 1
    b.opener.failures = [HostFailure(DEAD)]
    b.opener.door.set()
    assert set(await asyncio.gather(*jobs)) == {DEAD}
    assert len(b.opener.asked) == 1


async def test_connections_double_up_to_the_cap(bench):
    """As long as jobs wait."""
    b = bench(delivery_connections_per_site=7)
    b.opener.gate.clear()
    jobs = [b.put() for _ in range(100)]
    await b.settle()
    assert b.opener.open_now == 7
    b.opener.gate.set()
    await asyncio.gather(*jobs)
    assert b.opener.most_open == 7


async def test_no_more_connections_than_jobs(bench):
    """Three jobs, at most three connections."""
    b = bench()
    b.opener.gate.clear()
    jobs = [b.put() for _ in range(3)]
    await b.settle()
    assert b.opener.open_now == 3
    b.opener.gate.set()
    await asyncio.gather(*jobs)


async def test_first_come_first_served(bench):
    """On one connection the order is kept."""
    b = bench(delivery_connections_per_site=1)
    await asyncio.gather(*[b.put(f"user{n}") for n in range(10)])
    assert b.opener.opened[0].carried == [f"user{n}" for n in range(10)]


async def test_a_refused_further_connection_is_not_tried_again_at_once(bench):
    """What the site allows is enough for a while; nobody's message suffers."""
    b = bench()
    b.opener.gate.clear()
    b.opener.failures = [None, *[HostFailure(DEAD)] * 50]
    jobs = [b.put() for _ in range(20)]
    await b.settle()
    b.opener.gate.set()
    assert set(await asyncio.gather(*jobs)) == {ACCEPTED}
    assert len(b.opener.asked) == 2


async def test_the_cap_is_the_sites_whatever_the_source(bench):
    """Two queues share the connections of one site, and neither starves."""
    b = bench(delivery_connections_per_site=2)
    b.opener.gate.clear()
    first = [b.put(source="192.0.2.1") for _ in range(10)]
    await b.settle()
    second = [b.put(source="192.0.2.2") for _ in range(10)]
    await b.settle()
    assert b.opener.asked == ["192.0.2.1", "192.0.2.1"]
    b.opener.gate.set()
    await asyncio.wait(second, return_when=asyncio.FIRST_COMPLETED)
    assert b.opener.asked[2] == "192.0.2.2"
    assert not all(job.done() for job in first)
    await asyncio.gather(*first, *second)
    assert b.opener.most_open == 2


async def test_other_sites_are_not_concerned(bench):
    """A stuck site does not hold up another one."""
    b = bench(delivery_connections_per_site=1)
    b.opener.gate.clear()
    stuck = b.put(route=site("slow"))
    await b.settle()
    b.opener.gate.set()
    assert await b.put(route=site("fast")) is ACCEPTED
    await stuck


async def test_a_stale_connection_costs_no_attempt(bench):
    """The job goes to another connection, before those that came after it."""
    b = bench(delivery_connections_per_site=1)
    b.opener.endings = lambda connection: STALE if connection.messages > 1 else ACCEPTED
    jobs = [b.put(f"user{n}") for n in range(4)]
    assert await asyncio.gather(*jobs) == [ACCEPTED] * 4
    assert [connection.carried for connection in b.opener.opened] == [
        ["user0", "user1"], ["user1", "user2"], ["user2", "user3"], ["user3"],
    ]  # fmt: skip


async def test_a_job_that_only_meets_stale_connections_comes_to_an_end(bench):
    """Not even a host that plays dead for ever keeps it."""
    b = bench()
    b.opener.endings = lambda connection: STALE
    assert await b.put() is STALE
    assert len(b.opener.opened) == dispatch.MAX_STALE + 1


async def test_jobs_whose_time_is_over_end_while_they_wait(bench, monkeypatch):
    """The state tells whether there was a connection to wait for."""
    monkeypatch.setattr(dispatch, "SWEEP_S", 0.01)
    b = bench(delivery_connections_per_site=1)
    b.opener.door.clear()
    ending = await b.put(life_s=0)
    assert (ending.state, ending.result) == ("connect", "timeout")
    b.opener.door.set()
    b.opener.gate.clear()
    busy = b.put()
    await b.settle()
    ending = await b.put(life_s=0)
    assert (ending.state, ending.result) == ("process", "timeout")
    b.opener.gate.set()
    assert await busy is ACCEPTED


async def test_surprises_reach_those_they_concern_and_nobody_else(bench):
    """A bug on one connection, or while opening one, ends the jobs it met; the next one is served."""
    b = bench()
    b.opener.failures = [ZeroDivisionError("open")]
    with pytest.raises(ZeroDivisionError):
        await b.put()
    b.opener.endings = lambda connection: ZeroDivisionError("deliver")
    with pytest.raises(ZeroDivisionError):
        await b.put()
    b.opener.endings = lambda connection: ACCEPTED
    assert await b.put() is ACCEPTED


async def test_an_abandoned_job_is_not_begun(bench):
    """Whoever gave up waiting does not want it sent."""
    b = bench(delivery_connections_per_site=1)
    b.opener.gate.clear()
    first, second = b.put("first"), b.put("second")
    await b.settle()
    second.cancel()
    b.opener.gate.set()
    await first
    assert await b.put("third") is ACCEPTED
    assert b.opener.opened[0].carried == ["first", "third"]


async def test_stopping_gives_back_what_waits_and_finishes_what_runs(bench):
    """And takes nothing more."""
    b = bench(delivery_connections_per_site=1)
    b.opener.gate.clear()
    running = b.put()
    await b.settle()
    waiting = b.put()
    await b.settle()
    stopping = asyncio.ensure_future(b.dispatcher.stop(5))
    with pytest.raises(Stopped):
        await waiting
    with pytest.raises(Stopped):
        await b.put()
    b.opener.gate.set()
    assert await running is ACCEPTED
    await stopping
    assert b.opener.open_now == 0


async def test_nothing_is_kept_of_sites_without_work(bench):
    """A million domains are not remembered."""
    b = bench()
    for number in range(10):
        await b.put(route=site(f"mx{number}"))
    for connection in b.opener.opened:
        connection.left.set()
    await b.settle()
    assert b.opener.open_now == 0
    assert b.dispatcher.site_count == 0


@pytest.fixture
def quick_looks(monkeypatch):
    """A free slot is seen after a millisecond."""
    monkeypatch.setattr(slot_queue, "RETRY_S", 0.001)


async def test_without_a_slot_of_the_instance_mail_waits(bench, quick_looks):
    """No connection is tried; when there are slots again, those who waited longest get them; it is told once."""
    b = bench(slots=0)
    jobs = [b.put(route=site(f"mx{number}")) for number in range(5)]
    await asyncio.sleep(0.01)
    assert b.opener.asked == []
    assert b.told == [None]
    b.slots.free = 1
    await asyncio.wait(jobs, return_when=asyncio.FIRST_COMPLETED)
    assert [job.done() for job in jobs] == [True, False, False, False, False]
    assert await asyncio.gather(*jobs) == [ACCEPTED] * 5
    assert b.opener.most_open == 1
    assert [connection.messages for connection in b.opener.opened] == [1] * 5


async def test_an_idle_connection_makes_room_for_another_site(bench, quick_looks):
    """Nobody waits while a connection does nothing; with room, it is kept."""
    b = bench(slots=2)
    assert await b.put(route=site("first")) is ACCEPTED
    assert await b.put(route=site("second")) is ACCEPTED
    await b.settle()
    assert b.opener.open_now == 2
    assert await b.put(route=site("third")) is ACCEPTED
    await b.settle()
    assert b.opener.open_now == 2
    assert len(b.opener.opened) == 3


async def test_slots_come_back_however_a_connection_ends(bench, quick_looks):
    """Refused, broken by a bug, cut off in the middle, or in order."""
    b = bench(slots=1)
    b.opener.failures = [HostFailure(DEAD), ZeroDivisionError("open")]
    assert await b.put() is DEAD
    await b.settle()
    assert b.slots.held == set()
    with pytest.raises(ZeroDivisionError):
        await b.put()
    b.opener.endings = lambda connection: ZeroDivisionError("deliver")
    with pytest.raises(ZeroDivisionError):
        await b.put()
    b.opener.endings = lambda connection: ACCEPTED
    assert await b.put() is ACCEPTED
    assert len(b.slots.held) == 1
    b.opener.gate.clear()
    cut_off, waiting = b.put(), b.put(route=site("other"))
    await b.settle()
    await b.dispatcher.stop(0.01)
    for job in (cut_off, waiting):
        with pytest.raises((Stopped, asyncio.CancelledError)):
            await job
    await b.settle()
    assert b.slots.held == set()


async def test_a_connection_being_opened_when_all_ends_gives_its_slot_back(bench):
    """Cancelled inside of the opener."""
    b = bench()
    b.opener.door.clear()
    job = b.put()
    await b.settle()
    assert len(b.slots.held) == 1
    await b.dispatcher.stop(0.01)
    with pytest.raises(Stopped):
        await job
    await b.settle()
    assert b.slots.held == set()


async def test_mail_that_had_no_slot_in_its_time_goes_back_as_it_was(bench, monkeypatch):
    """That is no attempt, and no failure; what comes free later is not taken for it."""
    monkeypatch.setattr(dispatch, "SWEEP_S", 0.01)
    b = bench(slots=0)
    with pytest.raises(Stopped):
        await b.put(life_s=0)
    b.slots.free = 1
    await asyncio.sleep(2 * slot_queue.RETRY_S)
    await b.settle()
    assert b.slots.held == set()
    assert b.opener.asked == []
    assert b.dispatcher.site_count == 0


async def test_who_is_cancelled_in_the_moment_of_its_turn_keeps_no_slot(quick_looks):
    """The slot was already granted, and goes back."""
    slots = FakeSlots(0)
    queue = slot_queue.SlotQueue(slots, make_room=lambda: None, tell=lambda: None)
    first, second = (asyncio.create_task(queue.take()) for _ in range(2))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.sleep(0)
    slots.free = 1
    queue._look()
    first.cancel()
    await asyncio.gather(first, second, return_exceptions=True)
    assert slots.held == set()
    assert not queue.is_waited_for
    queue.stop()
    assert await queue.take() is None
