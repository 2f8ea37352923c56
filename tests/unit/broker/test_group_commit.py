"""Batches of the group commit: what is written together, who hears of it, what survives a failure."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence

import pytest

from mtaq.broker import group_commit
from mtaq.broker.group_commit import GroupCommit
from mtaq.model.errors import BrokerUnavailable, ConfigError
from mtaq.model.parcel import BrokerState


class MemoryStore:
    """Writes into a list; waits at a gate before each batch, and fails on request."""

    patience_s = 0.001

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.calls: list[str] = []
        self.gate = threading.Event()
        self.gate.set()
        self.broken: Exception | None = None
        self.idled = threading.Event()

    def open(self) -> None:
        self.calls.append("open")
        if self.broken is not None:
            raise self.broken

    def carry_out(self, operations: Sequence[str]) -> Sequence[str | Exception]:
        self.gate.wait(20)
        if self.broken is not None:
            raise self.broken
        self.batches.append(list(operations))
        return [ValueError(one) if one == "bad" else one.upper() for one in operations]

    def idle(self) -> None:
        self.idled.set()

    def close(self) -> None:
        self.calls.append("close")

    def end(self) -> None:
        self.calls.append("end")


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
async def engine(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[GroupCommit[str, str]]:
    monkeypatch.setattr(group_commit, "_RETRY_S", 0.01)
    engine: GroupCommit[str, str] = GroupCommit(store, name="memory", max_operations=10, max_bytes=100)
    await engine.start()
    yield engine
    store.gate.set()
    await engine.close()


async def until_down(engine: GroupCommit[str, str], store: MemoryStore) -> None:
    store.broken = OSError("disk full")
    with pytest.raises(BrokerUnavailable, match="disk full"):
        await engine.submit("lost")
    assert engine.state is BrokerState.DOWN


async def test_what_gathers_during_a_batch_is_the_next_batch(engine: GroupCommit[str, str], store: MemoryStore) -> None:
    """One sync serves everybody who came while the one before was under way."""
    store.gate.clear()
    first = engine.submit("first")
    while not engine._inbox.empty():  # the thread has it
        await asyncio.sleep(0)
    others = [engine.submit(name) for name in "abc"]
    store.gate.set()
    assert await asyncio.gather(first, *others) == ["FIRST", "A", "B", "C"]
    assert store.batches == [["first"], ["a", "b", "c"]]


async def test_a_batch_has_bounds(engine: GroupCommit[str, str], store: MemoryStore) -> None:
    """Ten operations, or a hundred bytes."""
    store.gate.clear()
    first = engine.submit("first")
    while not engine._inbox.empty():
        await asyncio.sleep(0)
    many = [engine.submit(f"{number}") for number in range(12)]
    large = [engine.submit(name, size_bytes=60) for name in ("x", "y", "z")]
    store.gate.set()
    await asyncio.gather(first, *many, *large)
    assert [len(batch) for batch in store.batches] == [1, 10, 4, 1]


async def test_one_failed_operation_fails_alone(engine: GroupCommit[str, str]) -> None:
    """Its neighbours in the batch are stored."""
    results = await asyncio.gather(engine.submit("a"), engine.submit("bad"), engine.submit("b"), return_exceptions=True)
    assert [results[0], type(results[1]), results[2]] == ["A", ValueError, "B"]


async def test_an_operation_taken_back_is_not_written(engine: GroupCommit[str, str], store: MemoryStore) -> None:
    """Who stops waiting before the batch begins leaves no trace."""
    store.gate.clear()
    first = engine.submit("first")
    while not engine._inbox.empty():
        await asyncio.sleep(0)
    engine.submit("taken back").cancel()
    last = engine.submit("last")
    store.gate.set()
    await asyncio.gather(first, last)
    assert store.batches == [["first"], ["last"]]


async def test_what_is_owed_survives_a_failure_in_order(engine: GroupCommit[str, str], store: MemoryStore) -> None:
    """Posts made before and during an outage are written, once, when it ends; what was waited for is not."""
    store.gate.clear()
    engine.post("one")
    failing = asyncio.ensure_future(engine.submit("lost"))
    await asyncio.sleep(0)
    store.broken = OSError("disk full")
    store.gate.set()
    with pytest.raises(BrokerUnavailable):
        await failing
    engine.post("two")
    store.broken = None
    await healed(engine)
    assert [one for batch in store.batches for one in batch if one != "?"] == ["one", "two"]


async def healed(engine: GroupCommit[str, str]) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                await engine.submit("?")
                return
            except BrokerUnavailable:
                await asyncio.sleep(0.001)


async def test_an_outage_is_told_and_ends_by_itself(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """DOWN with the reason, then UP, without anybody asking for anything."""
    monkeypatch.setattr(group_commit, "_RETRY_S", 0.01)
    told: asyncio.Queue[tuple[BrokerState, str]] = asyncio.Queue()
    engine: GroupCommit[str, str] = GroupCommit(
        store, name="memory", on_state=lambda state, reason: told.put_nowait((state, reason))
    )
    await engine.start()
    await until_down(engine, store)
    assert await told.get() == (BrokerState.DOWN, "OSError: disk full")
    store.broken = None
    assert await told.get() == (BrokerState.UP, "")
    assert engine.state is BrokerState.UP
    assert store.calls[:2] == ["open", "close"]
    await engine.close()
    assert store.calls[-1] == "end"
    assert engine.state is BrokerState.DOWN


async def test_close_carries_out_what_came_before(store: MemoryStore) -> None:
    """Everything posted is written, nothing is taken afterwards, closing twice is harmless."""
    engine: GroupCommit[str, str] = GroupCommit(store, name="memory", max_operations=10)
    await engine.start()
    for number in range(25):
        engine.post(str(number))
    await engine.close()
    await engine.close()
    assert [one for batch in store.batches for one in batch] == [str(number) for number in range(25)]
    with pytest.raises(BrokerUnavailable):
        engine.submit("late")


async def test_without_work_the_store_is_told_so(engine: GroupCommit[str, str], store: MemoryStore) -> None:
    """``idle`` is called when its patience is over."""
    store.idled.clear()
    assert await asyncio.to_thread(store.idled.wait, 20)


@pytest.mark.parametrize(
    ("broken", "raised"),
    [(OSError("no"), BrokerUnavailable), (ConfigError("newer"), ConfigError), (KeyError("a bug"), BrokerUnavailable)],
)
async def test_a_store_that_does_not_open(store: MemoryStore, broken: Exception, raised: type[Exception]) -> None:
    """Start raises why, and closing afterwards is harmless."""
    store.broken = broken
    engine: GroupCommit[str, str] = GroupCommit(store, name="memory")
    with pytest.raises(raised):
        await engine.start()
    await engine.close()
    assert store.calls == ["open", "end"]
