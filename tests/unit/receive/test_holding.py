"""The part of the memory budget that one session holds."""

from __future__ import annotations

import asyncio

import pytest

from mtaq.limits.memory import MemoryBudget
from mtaq.receive import holding
from mtaq.receive.holding import Holding


async def test_what_is_held_is_given_back_at_the_end() -> None:
    """It grows with the content, never shrinks before the end, and the end may come twice."""
    budget = MemoryBudget(100)
    part = Holding(budget)
    assert part.reach(0)
    assert budget.used_bytes == 0
    for size_bytes, used_bytes in ((10, 10), (60, 60), (30, 60)):
        assert part.reach(size_bytes)
        assert budget.used_bytes == used_bytes
    for _ in range(2):
        part.release()
        assert budget.used_bytes == 0


async def test_who_finds_no_room_waits_for_it() -> None:
    """A later session goes on as soon as an earlier one has ended."""
    budget = MemoryBudget(100)
    first, second = Holding(budget), Holding(budget)
    assert first.reach(80)
    assert not second.reach(30)
    waiting = asyncio.create_task(second.wait(30))
    await asyncio.sleep(0)
    assert not waiting.done()
    first.release()
    assert await waiting
    assert budget.used_bytes == 30


async def test_who_waits_in_vain_holds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """After its time it has given back even what it had, so that somebody else can go on."""
    monkeypatch.setattr(holding, "WAIT_S", 0.0)
    budget = MemoryBudget(100)
    first, second = Holding(budget), Holding(budget)
    assert first.reach(80)
    assert second.reach(10)
    assert not await second.wait(50)
    assert budget.used_bytes == 80


async def test_who_is_given_up_on_while_waiting_holds_nothing_more() -> None:
    """A session that ends while it waits gives back what it had."""
    budget = MemoryBudget(100)
    first, second = Holding(budget), Holding(budget)
    assert first.reach(80)
    assert second.reach(10)
    waiting = asyncio.create_task(second.wait(50))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    second.release()
    assert (budget.used_bytes, budget.waiting) == (80, 0)


async def test_the_oldest_never_waits() -> None:
    """One message may be larger than the whole budget, or it could never be taken."""
    budget = MemoryBudget(100)
    part = Holding(budget)
    assert part.reach(1000)
    assert budget.is_full
