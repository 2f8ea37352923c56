"""The budget for content: who gets room, who waits, and that nobody waits for ever."""

from __future__ import annotations

import asyncio

import pytest

from mtaq.limits.memory import MemoryBudget


async def settle() -> None:
    """Let everybody do what can be done now."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_what_fits_is_granted_at_once() -> None:
    """And given back as a whole, once."""
    budget = MemoryBudget(100)
    first, second = budget.lease(), budget.lease()
    assert first.try_take(60)
    assert second.try_take(40)
    assert not second.try_take(1)
    assert budget.used_bytes == 100
    first.close()
    first.close()
    assert budget.used_bytes == 40
    assert second.try_take(60)


async def test_who_began_first_gets_room_first() -> None:
    """Not the one who asked first, and not the one who needs least."""
    budget = MemoryBudget(100)
    holder, *others = (budget.lease() for _ in range(4))
    holder.try_take(100)
    order: list[int] = []

    async def take(number: int, size_bytes: int) -> None:
        assert await others[number].take(size_bytes, timeout_s=60)
        order.append(number)

    tasks = [asyncio.create_task(take(number, size)) for number, size in ((2, 1), (0, 90), (1, 20))]
    await settle()
    assert budget.waiting == 3
    holder.close()
    await settle()
    assert order == [0]
    late = budget.lease()
    assert not late.try_take(1)
    others[0].close()
    await asyncio.gather(*tasks)
    assert order == [0, 1, 2]
    assert late.try_take(79)
    assert not late.try_take(1)


async def test_the_oldest_never_waits() -> None:
    """Two that hold half each and want more do not wait for each other; the bound is exceeded by one message."""
    budget = MemoryBudget(100)
    first, second = budget.lease(), budget.lease()
    assert first.try_take(50)
    assert second.try_take(50)
    waiting = asyncio.create_task(second.take(50, timeout_s=60))
    await settle()
    assert first.try_take(500)
    assert budget.used_bytes == 600
    first.close()
    assert await waiting
    assert budget.used_bytes == 100


async def test_one_that_waits_and_becomes_the_oldest_goes_on() -> None:
    """However large it is."""
    budget = MemoryBudget(100)
    first, second = budget.lease(), budget.lease()
    first.try_take(100)
    waiting = asyncio.create_task(second.take(1000, timeout_s=60))
    await settle()
    first.close()
    assert await waiting


async def test_waiting_ends_in_time() -> None:
    """Then nothing more is held, and those behind have their turn."""
    budget = MemoryBudget(100)
    first, second, third = (budget.lease() for _ in range(3))
    first.try_take(90)
    second_waits = asyncio.create_task(second.take(20, timeout_s=0.01))
    await settle()
    third_waits = asyncio.create_task(third.take(10, timeout_s=60))
    assert not await second_waits
    assert await third_waits
    assert (second.held_bytes, third.held_bytes, budget.waiting) == (0, 10, 0)


@pytest.mark.parametrize("granted", [False, True])
async def test_who_is_cancelled_leaves_nothing_behind(granted: bool) -> None:
    """Before or after its turn came: closing the lease is enough."""
    budget = MemoryBudget(100)
    first, second, third = (budget.lease() for _ in range(3))
    first.try_take(100)
    task = asyncio.create_task(second.take(50, timeout_s=60))
    await settle()
    if granted:
        first.close()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    second.close()
    assert budget.waiting == 0
    assert budget.used_bytes == (0 if granted else 100)
    first.close()
    assert third.try_take(100)
