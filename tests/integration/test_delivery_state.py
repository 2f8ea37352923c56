"""Entries about delivery on real databases: who sees what and when, how many there may be, what older programs left."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from mtaq.model.address import Address
from mtaq.model.control import Limits, Scope
from mtaq.state import Database, Source, State, control_store, suppression_store
from mtaq.state.control_database import ControlDatabase
from mtaq.state.control_entries import forced_error, pause, pool, suppression, throttle, tls_level
from mtaq.state.control_store import TooManyEntries
from mtaq.state.control_values import parse_member
from mtaq.state.rows import KINDS
from mtaq.state.tables import MIGRATIONS
from mtaq.telemetry.events import EventLog, Record
from tests.support.control import START, Clock, about, place

PATIENCE_S = 20.0
ANN = Address("ann", "example.com")


class Lines:
    """A log in memory."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def write(self, level: int, record: Record) -> None:
        self.records.append(record)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.peers)])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgresql":
        return request.getfixturevalue("postgresql").create_database()
    return f"sqlite://{tmp_path}/state.db"


@pytest.fixture
def database(address: str) -> Iterator[ControlDatabase]:
    """The operator's way to the database."""
    opened = Database(address)
    opened.open()
    yield ControlDatabase(opened)
    opened.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def lines() -> Lines:
    return Lines()


@pytest.fixture
async def build(address: str, clock: Clock, lines: Lines) -> AsyncIterator[Callable[..., State]]:
    """Builds states on the same database, as several processes would, and stops them at the end."""
    async with contextlib.AsyncExitStack() as stack:

        def build(**options: object) -> State:
            events = EventLog(lines, node="test", clock=clock)
            settings: dict[str, object] = {"ttl_s": 600, "poll_s": 0.25} | options
            state = State(Database(address), events=events, clock=clock, **settings)
            stack.push_async_callback(state.stop)
            return state

        yield build


@pytest.fixture
async def state(build: Callable[..., State]) -> State:
    state = build()
    await state.start()
    return state


async def wait_until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.01)


def is_paused(state: State) -> bool:
    return state.control.pause_for(**place(), tags=(), sender_domain="") is not None


def is_suppressed(state: State, recipient: Address = ANN) -> bool:
    return state.control.suppression_for(recipient, sender_domain="", tags=()) is not None


def test_adding_and_removing(database):
    """Entries come back as they went in; the same again is replaced, and removing tells what was there."""
    one = pause(Scope(), about=about(reason="one"))
    other = pause(Scope(domain="example.com"), about=about())
    assert database.put([one, other], now=START) == [one, other]
    two = pause(Scope(), about=about(reason="two"))
    assert database.put([two], now=START) == []
    assert sorted(database.read("pauses"), key=lambda entry: entry.reason) == [other, two]
    assert database.remove("pauses", [one.id, "none", one.id], now=START) == [one.id]
    assert database.read("pauses") == [other]


def test_kinds_are_counted_apart(database):
    """Only kinds that changed are read again."""
    before = database._database.read().versions
    database.put([pause(Scope(), about=about()), pool("bulk", [parse_member("192.0.2.1")], about=about())], now=START)
    assert set(database._database.read(before).control) == {"pauses", "pools"}
    assert set(database._database.read().control) == set(KINDS)


def test_automatic_entries(database):
    """An automatic entry only prolongs, beside an operator's own; ended ones are cleared away."""
    short, longer = (pause(Scope(), about=about(automatic=True, for_s=for_s)) for for_s in (60, 90))
    own = pause(Scope(), about=about(for_s=10))
    database.put([longer], now=START)
    assert database.put([short, own], now=START) == [own]
    assert {entry.expires_at for entry in database.read("pauses")} == {longer.expires_at, own.expires_at}
    assert database.remove("pauses", [own.id], now=START + timedelta(seconds=10)) == []
    assert database.read("pauses") == [longer]


def test_there_is_an_end_to_everything(database, monkeypatch):
    """Too many entries of operators are refused as a whole; of automatic ones those that end first give way."""
    monkeypatch.setattr(control_store, "MOST_ENTRIES", 3)
    monkeypatch.setattr(control_store, "MOST_AUTOMATIC", 3)
    own = [pause(Scope(domain=f"d{number}.example"), about=about()) for number in range(4)]
    database.put(own[:3], now=START)
    with pytest.raises(TooManyEntries, match="more than 3 pauses"):
        database.put(own[3:], now=START)
    many = [
        pause(Scope(domain=f"d{number}.example"), about=about(automatic=True, for_s=60 + number)) for number in range(5)
    ]
    database.put(many, now=START)
    assert {entry.id for entry in database.read("pauses")} == {entry.id for entry in (*own[:3], *many[2:])}


def test_a_row_that_cannot_be_read(database):
    """What somebody spoiled by hand is left out; the rest holds."""
    entries = [pause(Scope(domain=f"d{number}.example"), about=about()) for number in range(2)]
    database.put(entries, now=START)
    with database._database.connected(writes=True) as hand:
        hand.execute(text("UPDATE mtaq_control SET entry = '{' WHERE id = :id"), {"id": entries[0].id})
    assert database.read("pauses") == [entries[1]]


async def test_changes_arrive(state, database):
    """What an operator changes is in force in running processes, which are told what changed."""
    told: list[frozenset[str]] = []
    state.control.on_change(told.append)
    limits = Limits(messages_per_minute=5)
    database.put([throttle(Scope(domain="example.com"), limits, about=about())], now=START)
    database.put([pause(Scope(), about=about())], now=START)
    database.put([forced_error("example.com", code=550, text="no", about=about())], now=START)
    database.put_suppressions([suppression("example.com", about=about(reason="asked to"))], now=START)
    await wait_until(lambda: set().union(*told) == {"throttles", "pauses", "forced_errors", "suppressions"})
    assert state.control.limits(**place()).messages_per_minute.amount == 5
    assert is_paused(state)
    assert state.control.forced_error_for(ANN, sender_domain="", tags=()).code == 550
    assert state.control.suppression_for(ANN, sender_domain="", tags=()).reason == "asked to"
    told.clear()
    database.remove("pauses", [entry.id for entry in database.read("pauses")], now=START)
    await wait_until(lambda: told == [frozenset({"pauses"})])
    assert not is_paused(state)


async def test_a_process_that_does_not_ask(build, database):
    """Reception does not hold what only delivery asks for."""
    database.put([pause(Scope(), about=about())], now=START)
    database.put_suppressions([suppression("example.com", about=about())], now=START)
    state = build(for_delivery=False)
    await state.start()
    assert not is_paused(state)
    assert not is_suppressed(state)


async def test_what_a_process_adds(state, build, database, lines, clock):
    """A flood that one process noticed holds for it at once and for the others soon, as few rows."""
    other = build()
    await other.start()
    for _ in range(1000):
        state.control.add_pause(Scope(site="mx.example.net"), duration_s=600, reason="too many connections")
    assert is_paused(state)
    await wait_until(lambda: is_paused(other))
    assert [entry.reason for entry in database.read("pauses")] == ["too many connections"]
    assert [record for record in lines.records if record["event"] == "bug"] == []
    clock.now += timedelta(seconds=600)
    assert not is_paused(other)


async def test_what_is_not_written_at_the_end(state, database):
    """A pause made a moment before the end is written."""
    state.control.add_pause(Scope(), duration_s=600, reason="x")
    await state.stop()
    assert [entry.reason for entry in database.read("pauses")] == ["x"]


async def test_many_suppressions(build, database, monkeypatch):
    """Many are read in pages, changes alone afterwards, and removed ones are gone."""
    monkeypatch.setattr(suppression_store, "MOST_CHANGED", 7)
    monkeypatch.setattr(suppression_store, "MOST_READ", 10)
    entries = [suppression(f"u{number}@example.com", about=about(reason="bounced")) for number in range(100)]
    assert database.put_suppressions(entries, now=START) == 100
    state = build()
    await state.start()
    assert all(is_suppressed(state, Address(f"u{number}", "example.com")) for number in range(100))
    held = state.control.suppressions
    removed = database.remove_suppressions([entries[5], suppression("x@example.com", about=about())], now=START)
    assert removed == [entries[5]]
    database.put_suppressions([suppression("ann@example.com", about=about())], now=START)
    await wait_until(lambda: is_suppressed(state))
    assert not is_suppressed(state, Address("u5", "example.com"))
    assert (len(held), state.control.suppressions is held) == (100, True)


async def test_what_was_forgotten_meanwhile(build, database, monkeypatch):
    """Whoever knows less than the database remembers reads everything, so nothing that was removed stays."""
    state = build(poll_s=1000)
    database.put_suppressions([suppression("ann@example.com", about=about())], now=START)
    await state.start()
    assert is_suppressed(state)
    database.remove_suppressions([suppression("ann@example.com", about=about())], now=START)
    database.put_suppressions([suppression("bob@example.com", about=about())], now=START + timedelta(days=2))
    with database._database.connected() as connection:
        assert connection.execute(text("SELECT count(*) FROM mtaq_suppressions")).scalar_one() == 1
    state.notice()
    await wait_until(lambda: is_suppressed(state, Address("bob", "example.com")))
    assert not is_suppressed(state)


async def test_pages_of_what_was_forgotten(build, database, monkeypatch):
    """Reading everything comes to an end as well when a part of it is older than what was forgotten last."""
    monkeypatch.setattr(suppression_store, "MOST_CHANGED", 1)
    monkeypatch.setattr(suppression_store, "MOST_READ", 2)
    names = [suppression(f"u{number}@example.com", about=about()) for number in range(9)]
    database.put_suppressions(names, now=START)
    database.remove_suppressions(names[:4], now=START)
    database.put_suppressions([suppression("ann@example.com", about=about())], now=START + timedelta(days=2))
    state = build()
    await state.start()
    assert len(state.control.suppressions) == 6


async def test_what_nobody_counted(build, database):
    """A row that was taken out by hand is found missing when the time to live is over."""
    database.put_suppressions([suppression(f"{name}@example.com", about=about()) for name in ("ann", "bob")], now=START)
    state = build(ttl_s=0.5)
    await state.start()
    with database._database.connected(writes=True) as hand:
        hand.execute(text("DELETE FROM mtaq_suppressions WHERE pattern = 'ann@example.com'"))
    await wait_until(lambda: not is_suppressed(state))
    assert is_suppressed(state, Address("bob", "example.com"))


def test_listing_suppressions(database, monkeypatch):
    """All are given out in order, piece by piece; ended and removed ones are not; single ones can be asked for."""
    monkeypatch.setattr(suppression_store, "MOST_READ", 3)
    conditions = [{}, {"tag": "spring"}, {"sender_domain": ""}, {"sender_domain": "shop.example", "tag": "spring"}]
    entries = [
        suppression(f"{name}@example.com", about=about(for_s=60), **condition)
        for name in ("ann", "bob", "eve")
        for condition in conditions
    ]
    database.put_suppressions([*entries, suppression("old@example.com", about=about(for_s=5))], now=START)
    database.remove_suppressions(entries[:2], now=START)
    later = START + timedelta(seconds=5)
    found = list(database.all_suppressions(later))
    assert len(found) == 10
    assert {(entry.pattern, entry.sender_domain, entry.tag) for entry in found} == {
        (entry.pattern, entry.sender_domain, entry.tag) for entry in entries[2:]
    }
    assert [entry.pattern for entry in found] == sorted(entry.pattern for entry in found)
    assert [entry.pattern for entry in database.suppressions_of("ann@example.com", later)] == ["ann@example.com"] * 2
    assert database.suppressions_of("old@example.com", later) == []
    assert database.count_suppressions(later) == 10
    assert database.put_suppressions([entries[0]], now=later) == 1
    assert database.count_suppressions(later) == 11


async def test_a_kind_that_came_later(address, build):
    """The database of a program without levels of TLS is brought up to date: a running process sees one soon."""
    old = Database(address, migrations=MIGRATIONS[:2])
    old.open()
    ControlDatabase(old).put([pause(Scope(), about=about())], now=START)
    old.close()
    state = build()
    await state.start()
    assert is_paused(state)
    operator = Database(address)
    operator.open()
    entry = tls_level(Scope(domain="example.com"), "required", about=about())
    ControlDatabase(operator).put([entry], now=START)
    await wait_until(lambda: state.control.tls_level(domain="example.com", site=None) == entry)
    ControlDatabase(operator).remove("tls_levels", [entry.id], now=START)
    await wait_until(lambda: state.control.tls_level(domain="example.com", site=None) is None)
    operator.close()


def test_the_format_before(address):
    """A database that the program before this one wrote is brought up to date, with what is in it."""
    old = Database(address, migrations=MIGRATIONS[:1])
    old.open()
    old.set_source(Source(ip="192.0.2.1", ehlo_name="a.example", created_at=START))
    old.close()
    new = Database(address)
    new.open()
    assert [source.ip for source in new.read().sources] == ["192.0.2.1"]
    ControlDatabase(new).put([pause(Scope(), about=about())], now=START)
    ControlDatabase(new).put_suppressions([suppression("example.com", about=about())], now=START)
    assert len(new.read().control["pauses"]) == 1
    assert len(ControlDatabase(new).read_suppressions(0).added) == 1
    new.close()
