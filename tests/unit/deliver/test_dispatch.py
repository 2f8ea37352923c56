"""Who goes first, and over how many connections; the connections are pretended."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest

from mtaq.deliver import dispatch, gate, pool
from mtaq.deliver import slots as slot_queue
from mtaq.deliver.dispatch import Dispatcher, Reconsider, Stopped
from mtaq.deliver.ending import Ending, HostFailure
from mtaq.deliver.parking import NotYet, Parked
from mtaq.deliver.ports import MailHost
from mtaq.deliver.route import Route
from mtaq.deliver.tls_policy import Demand
from mtaq.model.address import Address
from mtaq.model.control import DailyCap, Limit, LimitsInForce
from mtaq.smtp.client_commands import Transaction
from tests.support.delivery import START, FakeSlots, options
from tests.support.meters import fake_meters

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

    async def open(
        self, route: Route, source: str | None, tls: Demand, take_turn: Callable[[], float]
    ) -> FakeConnection:
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

    def __init__(self, slots: int = 1 << 30, processes: int = 1, hands: int = 1000, **changes) -> None:
        self.crowded = False
        self.meters = fake_meters(processes=processes)
        self.opener = FakeOpener()
        self.slots = FakeSlots(slots)
        self.told: list[None] = []
        self.dispatcher = Dispatcher(
            options(**changes),
            opener=self.opener,
            slots=self.slots,
            meters=self.meters,
            rng=random.Random(1),
            tell_full=lambda: self.told.append(None),
            is_crowded=lambda: self.crowded,
            hands=hands,
        )

    def put(
        self,
        name: str = "bob",
        *,
        route: Route | None = None,
        source: str | None = None,
        life_s: float = 60.0,
        **terms,
    ) -> asyncio.Task[Ending]:
        transaction = Transaction(reverse_path=None, forward_paths=(Address(name, "example.com"),), content=b"")
        return asyncio.ensure_future(
            self.dispatcher.deliver(
                transaction,
                route or site(),
                source=source,
                tls=Demand(security="optional"),
                deadline=asyncio.get_running_loop().time() + life_s,
                **terms,
            )
        )

    async def prove(self, **terms) -> None:
        """Have the site answer so many messages that it has earned any connection a test asks for."""
        for _ in range(10):
            assert await self.put(**terms) is ACCEPTED
        await self.settle()

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
    """As long as jobs wait at a site that answers."""
    b = bench(delivery_connections_per_site=7)
    await b.prove()
    b.opener.gate.clear()
    jobs = [b.put() for _ in range(100)]
    await b.settle()
    assert b.opener.open_now == 7
    b.opener.gate.set()
    await asyncio.gather(*jobs)
    assert b.opener.most_open == 7


async def test_a_site_that_never_answered_gets_two_connections_and_two_for_each_answer(bench):
    """A site that keeps messages without a word does not get more and more of them."""
    b = bench(delivery_connections_per_site=20)
    ending = DEAD
    b.opener.endings = lambda connection: ending
    b.opener.gate.clear()
    jobs = [b.put(f"user{n}") for n in range(100)]
    await b.settle()
    assert b.opener.open_now == 2
    b.opener.gate.set()
    assert set(await asyncio.gather(*jobs)) == {DEAD}
    assert b.opener.most_open == 2
    ending = ACCEPTED
    assert await b.put() is ACCEPTED
    assert await b.put() is ACCEPTED
    b.opener.gate.clear()
    jobs = [b.put(f"user{n}") for n in range(100)]
    await b.settle()
    assert b.opener.open_now == 4
    b.opener.gate.set()
    assert set(await asyncio.gather(*jobs)) == {ACCEPTED}
    assert b.opener.most_open == 20


async def test_when_memory_is_short_a_silent_site_gets_no_further_connection(bench, clock):
    """Not even one that answered before; when it answers again, it does."""
    b = bench(delivery_connections_per_site=8)
    await b.prove()
    b.crowded = True
    b.opener.gate.clear()
    clock.forward(pool.JUDGED_AFTER_S)
    jobs = [b.put(f"user{n}") for n in range(20)]
    await b.settle()
    assert b.opener.open_now == 1
    b.opener.gate.set()
    assert set(await asyncio.gather(*jobs)) == {ACCEPTED}
    assert b.opener.most_open > 1


async def test_what_was_held_back_while_memory_was_short_gets_its_connections_afterwards(bench, clock, monkeypatch):
    """Without another message that would set it to work."""
    monkeypatch.setattr(dispatch, "SWEEP_S", 0.01)
    b = bench(delivery_connections_per_site=8)
    b.crowded = True
    b.opener.gate.clear()
    jobs = [b.put(f"user{n}") for n in range(20)]
    await b.settle()
    assert b.opener.open_now == 1
    b.crowded = False
    await asyncio.sleep(0.03)
    assert b.opener.open_now == 2
    b.opener.gate.set()
    assert set(await asyncio.gather(*jobs)) == {ACCEPTED}


async def test_no_more_connections_than_jobs(bench):
    """Three jobs, at most three connections."""
    b = bench()
    await b.prove()
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


A, B = MailHost(10, "a.example"), MailHost(20, "b.example")
SHARED = LimitsInForce(connections=Limit(2, b"one for all sites"))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Route("a", (A,), 25), Route("b", (B,), 25)),
        (Route("a", (A,), 25, named=True), Route("a", (A,), 25)),
        (Route("a", (A,), 25), Route("a", (A,), 26)),
        (Route("ab", (A, B), 25), Route("ab", (replace(B, preference=1), A), 25)),
    ],
    ids=["site", "operator", "port", "order"],
)
async def test_what_goes_elsewhere_goes_by_other_connections(bench, one, other):
    """Though limits are counted together: a failure there is not theirs either, nor is what an operator allowed."""
    b = bench()
    assert await b.put(route=one, limits=SHARED) is ACCEPTED
    b.opener.failures = [HostFailure(DEAD)]
    assert await b.put(route=other, limits=SHARED) is DEAD
    assert await b.put(route=one, limits=SHARED) is ACCEPTED
    assert len(b.opener.opened) == 1


async def test_domains_with_equal_hosts_share_connections(bench):
    """Whatever numbers stand before them in DNS, and in whatever order the equal ones come."""
    b = bench()
    c = replace(B, name="c.example")
    assert await b.put(route=Route("abc", (A, B, c), 25)) is ACCEPTED
    assert await b.put(route=Route("abc", (replace(A, preference=0), c, B), 25)) is ACCEPTED
    assert len(b.opener.opened) == 1


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


def limited(counter: str = "gmail", **amounts: float) -> LimitsInForce:
    return LimitsInForce(**{name: Limit(amount, f"{counter} {name}".encode()) for name, amount in amounts.items()})


class Time:
    """The loop's clock, to be moved: timers are due, and what waits on sockets takes no time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        loop = asyncio.get_running_loop()
        self._really = loop.time
        self._ahead = 0.0
        monkeypatch.setattr(loop, "time", lambda: self._really() + self._ahead)

    def forward(self, seconds: float) -> None:
        self._ahead += seconds


@pytest.fixture
async def clock(monkeypatch):
    return Time(monkeypatch)


async def outcome(job: asyncio.Task[Ending]) -> Ending | Exception:
    (result,) = await asyncio.gather(job, return_exceptions=True)
    assert isinstance(result, Ending | Exception)
    return result


async def test_a_rate_lets_a_few_wait_and_sends_the_others_away(bench, clock):
    """Places are one interval apart, and nothing that waits long is held."""
    b = bench()
    jobs = [b.put(f"user{n}", limits=limited(messages_per_minute=60)) for n in range(10)]
    await b.settle()
    away = [outcome.exception() for outcome in jobs if outcome.done() and outcome.exception() is not None]
    assert [type(why) for why in away] == [NotYet] * 8
    waits = [why.wait_s for why in away]
    assert [after - before for before, after in pairwise(waits)] == pytest.approx([61 / 60] * 7, abs=0.01)
    assert waits[0] >= 2
    assert {why.line for why in away} == {b.dispatcher.pools()[0].gate.line}
    assert b.opener.opened[0].carried == ["user0"]
    for _ in range(3):
        clock.forward(0.6)
        await b.settle()
    assert b.opener.opened[0].carried == ["user0", "user1"]
    assert len(b.opener.opened) == 1


async def test_who_comes_back_for_its_place_is_let_in_before_newcomers(bench, clock):
    """A newcomer goes behind all who have a place."""
    b = bench()
    limits = limited(messages_per_minute=60)
    first = [b.put(limits=limits) for _ in range(9)]
    await b.settle()
    why = first[2].exception()
    assert isinstance(why, NotYet)
    clock.forward(why.wait_s)
    parked = Parked(until=START, source=None, line=why.line, times=0, seen_at=START)
    back = b.put("back", limits=limits, parked=parked)
    await b.settle()
    newcomer = b.put("new", limits=limits)
    for _ in range(3):
        await b.settle()
        clock.forward(0.6)
    await b.settle()
    assert back.result() is ACCEPTED
    assert isinstance(newcomer.exception(), NotYet)


async def test_who_is_sent_forward_too_early_keeps_its_place(bench):
    """As long as the limits are what they were."""
    b = bench()
    limits = limited(messages_per_minute=1)
    jobs = [b.put(limits=limits) for _ in range(3)]
    await b.settle()
    why = jobs[2].exception()
    assert isinstance(why, NotYet)
    parked = Parked(until=START, source=None, line=why.line, times=0, seen_at=START)
    again = await outcome(b.put(limits=limits, parked=parked, early_s=1234.0))
    assert isinstance(again, NotYet)
    assert (again.wait_s, again.line) == (1234.0, why.line)
    assert await b.put(limits=limited(messages_per_minute=6000), parked=parked, early_s=1234.0) is ACCEPTED


async def test_a_turn_after_its_life_is_waited_for_and_takes_no_place(bench):
    """It fails only then."""
    b = bench()
    limits = limited(messages_per_minute=1)
    jobs = [b.put(limits=limits, patience_s=100.0) for _ in range(5)]
    await b.settle()
    waits = [job.exception().wait_s for job in jobs[1:]]
    assert waits[0] < 100
    assert waits[-2:] == [100.0, 100.0]
    assert b.dispatcher.pools()[0].gate.ahead_s() < 200


async def test_a_message_whose_turn_is_far_away_is_not_held(bench):
    """Once a minute is too long to wait in memory."""
    b = bench()
    limits = limited(messages_per_minute=1, messages_burst=2)
    b.opener.gate.clear()
    jobs = [b.put(limits=limits) for _ in range(2)]
    await b.settle()
    b.opener.gate.set()
    assert await asyncio.gather(*jobs) == [ACCEPTED] * 2
    third = await outcome(b.put(limits=limits))
    assert isinstance(third, NotYet)
    assert third.wait_s > 50


async def test_domains_of_one_site_with_other_limits_do_not_wait_for_each_other(bench):
    """They share neither queue nor connection, but the cap."""
    b = bench(delivery_connections_per_site=2)
    slow = [b.put("slow", limits=limited(messages_per_minute=1)) for _ in range(5)]
    fast = [b.put(f"fast{n}") for n in range(50)]
    assert set(await asyncio.gather(*fast)) == {ACCEPTED}
    assert b.opener.most_open <= 2
    await asyncio.gather(*slow, return_exceptions=True)


async def test_connections_begin_one_interval_apart(bench, clock):
    """What waits goes over those that are open."""
    b = bench(delivery_messages_per_connection=1)
    jobs = [b.put(limits=limited(connections_per_minute=60)) for _ in range(2)]
    await b.settle()
    assert len(b.opener.opened) == 1
    for _ in range(4):
        clock.forward(0.6)
        await b.settle()
    assert await asyncio.gather(*jobs) == [ACCEPTED] * 2
    assert len(b.opener.opened) == 2


async def test_connections_of_other_processes_count(bench, clock):
    """With all of them taken elsewhere none is opened; it is asked again until there is one."""
    b = bench(delivery_connections_per_site=3)
    b.slots.elsewhere[b"site mx"] = 3
    job = b.put()
    await b.settle()
    assert b.opener.asked == []
    b.slots.elsewhere[b"site mx"] = 2
    clock.forward(1)
    await b.settle()
    assert await job is ACCEPTED


async def test_a_throttle_has_its_own_cap(bench):
    """In place of that of the configuration; 0 is none."""
    b = bench(delivery_connections_per_site=2)
    b.opener.gate.clear()
    capped = [b.put(limits=limited(connections=1)) for _ in range(10)]
    await b.settle()
    assert b.opener.open_now == 1
    b.opener.gate.set()
    await b.prove(limits=limited("other", connections=0))
    b.opener.gate.clear()
    uncapped = [b.put(limits=limited("other", connections=0)) for _ in range(10)]
    await b.settle()
    assert b.opener.open_now == 11
    b.opener.gate.set()
    await asyncio.gather(*capped, *uncapped)


async def test_messages_per_connection_may_be_a_limit(bench):
    """In place of the configuration's."""
    b = bench(delivery_connections_per_site=1)
    await asyncio.gather(*[b.put(limits=limited(messages_per_connection=2)) for _ in range(5)])
    assert [connection.messages for connection in b.opener.opened] == [2, 2, 1]


async def test_a_process_with_more_than_its_share_gives_way(bench, clock):
    """When another one wants connections, and not at once: each works a while before it is closed."""
    b = bench(processes=2, delivery_connections_per_site=4)
    await b.prove()
    b.opener.gate.clear()
    jobs = [b.put() for _ in range(40)]
    await b.settle()
    assert b.opener.open_now == 4
    gate.want(b.meters, b"site mx")
    clock.forward(dispatch.SLICE_S)
    gate.want(b.meters, b"site mx")
    b.opener.gate.set()
    for _ in range(6):
        await asyncio.sleep(0)
    assert b.opener.open_now == 2
    await asyncio.gather(*jobs)


async def test_who_has_less_than_its_share_says_so(bench):
    """And only then."""
    b = bench(processes=2, delivery_connections_per_site=4)
    b.slots.elsewhere[b"site mx"] = 4
    job = b.put()
    await b.settle()
    assert gate.is_wanted(b.meters, b"site mx")
    job.cancel()
    c = bench(processes=2, delivery_connections_per_site=4)
    c.slots.elsewhere[b"site mx"] = 2
    c.opener.gate.clear()
    jobs = [c.put() for _ in range(10)]
    await c.settle()
    assert c.opener.open_now == 2
    assert not gate.is_wanted(c.meters, b"site mx")
    c.opener.gate.set()
    await asyncio.gather(*jobs)


async def test_a_ready_queue_may_be_limited(bench):
    """What does not fit waits elsewhere, for longer each time."""
    b = bench(delivery_connections_per_site=1)
    b.opener.gate.clear()
    running = b.put()
    await b.settle()
    limits = limited(ready_messages=2)
    jobs = [b.put(limits=limits) for _ in range(4)]
    await b.settle()
    why = jobs[3].exception()
    assert isinstance(why, NotYet)
    assert why.reason == "full"
    assert 7.5 <= why.wait_s <= 15
    parked = Parked(until=START, source=None, line=b"", times=3, seen_at=START)
    later = await outcome(b.put(limits=limits, parked=parked))
    assert isinstance(later, NotYet)
    assert 60 <= later.wait_s <= 120
    b.opener.gate.set()
    assert await asyncio.gather(running, *jobs[:2]) == [ACCEPTED] * 3


async def test_when_memory_is_short_a_slow_site_keeps_only_a_few(bench, clock, monkeypatch):
    """The last are sent away, and so are newcomers; a fast site is left alone, and so is everybody with enough room."""
    monkeypatch.setattr(dispatch, "SWEEP_S", 0.01)
    b = bench(delivery_connections_per_site=1)
    b.opener.gate.clear()
    jobs = [b.put(f"user{n}") for n in range(100)]
    await b.settle()
    clock.forward(10)
    await asyncio.sleep(0.03)
    assert not any(job.done() for job in jobs)
    b.crowded = True
    await asyncio.sleep(0.03)
    assert [n for n, job in enumerate(jobs) if not job.done()] == list(range(20))
    assert {job.exception().reason for job in jobs[20:]} == {"full"}
    assert isinstance(await outcome(b.put()), NotYet)
    b.opener.gate.set()
    assert set(await asyncio.gather(*jobs[:20])) == {ACCEPTED}


async def test_many_silent_sites_together_hold_no_more_than_a_part_of_the_hands(bench, monkeypatch):
    """However many they are, there is room for the others."""
    monkeypatch.setattr(dispatch, "SWEEP_S", 0.01)
    monkeypatch.setattr(pool, "JUDGED_AFTER_S", 0.0)
    b = bench(hands=400)
    b.opener.door.clear()
    b.crowded = True
    jobs = [b.put(route=site(f"mx{n}")) for _ in range(20) for n in range(50)]
    await asyncio.sleep(0.05)
    waiting = [job for job in jobs if not job.done()]
    assert len(waiting) == 100
    assert {job.exception().reason for job in jobs if job.done()} == {"full"}
    b.opener.door.set()
    assert set(await asyncio.gather(*waiting)) == {ACCEPTED}


async def test_what_many_silent_sites_are_in_the_middle_of_counts_as_held(bench, clock, monkeypatch):
    """Sites that take messages and never answer leave most of the hands to the others."""
    monkeypatch.setattr(dispatch, "SWEEP_S", 0.01)
    b = bench(hands=400)
    b.opener.gate.clear()
    b.crowded = True
    jobs = [b.put(route=site(f"mx{n}")) for _ in range(20) for n in range(50)]
    await b.settle()
    clock.forward(pool.JUDGED_AFTER_S)
    await asyncio.sleep(0.05)
    assert b.opener.open_now == 50
    waiting = [job for job in jobs if not job.done()]
    assert len(waiting) == 100
    b.opener.gate.set()
    assert set(await asyncio.gather(*waiting)) == {ACCEPTED}


async def test_todays_messages_are_counted_when_they_go(bench):
    """The others are told that the day is over."""
    b = bench()
    jobs = [b.put(daily=DailyCap(2, b"day")) for _ in range(4)]
    outcomes = [await outcome(job) for job in jobs]
    assert outcomes[:2] == [ACCEPTED] * 2
    assert [why.reason for why in outcomes[2:]] == ["warm-up"] * 2


async def test_nobody_is_called_when_the_day_is_over(bench):
    """A connection that carries nothing is no use to either side."""
    b = bench()
    day = DailyCap(1, b"day")
    assert await b.put(daily=day) is ACCEPTED
    why = await outcome(b.put(daily=day, route=site("other")))
    assert why.reason == "warm-up"
    assert len(b.opener.opened) == 1


async def test_after_a_change_everything_that_waits_is_looked_at_again(bench, monkeypatch):
    """And connections under limits that nobody has any more are closed."""
    monkeypatch.setattr(dispatch, "SWEEP_S", 0.01)
    b = bench(delivery_connections_per_site=1)
    b.opener.gate.clear()
    running, waiting = b.put(), b.put()
    await b.settle()
    b.dispatcher.reconsider()
    assert isinstance(await outcome(waiting), Reconsider)
    b.opener.gate.set()
    assert await running is ACCEPTED
    await asyncio.sleep(0.05)
    assert b.opener.open_now == 0
    assert b.dispatcher.site_count == 0
