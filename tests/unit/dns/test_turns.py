"""Few turns, many who want one: those that last long make room, and those who come again stand behind."""

from __future__ import annotations

import asyncio

import pytest

from mtaq.dns.turns import Turns

FOREVER_S = 3600.0


async def settle() -> None:
    """Let everything run that can."""
    for _ in range(10):
        await asyncio.sleep(0)


class Holder:
    """Takes a turn and keeps it until it is over or let go."""

    def __init__(self, turns: Turns, attempt: int = 0) -> None:
        self.has_turn = False
        self.was_cut = False
        self._let_go = asyncio.Event()
        self.task = asyncio.create_task(self._hold(turns, attempt))

    async def _hold(self, turns: Turns, attempt: int) -> None:
        try:
            async with turns.turn(attempt, FOREVER_S):
                self.has_turn = True
                await self._let_go.wait()
        except TimeoutError:
            self.was_cut = True
        finally:
            self.has_turn = False

    async def let_go(self) -> None:
        self._let_go.set()
        await self.task


async def holders(turns: Turns, *attempts: int) -> list[Holder]:
    made = [Holder(turns, attempt) for attempt in attempts]
    await settle()
    return made


async def test_no_more_than_the_capacity() -> None:
    """Who comes too late waits, in the order of coming."""
    turns = Turns(2, patience_s=FOREVER_S)
    a, b, c, d = made = await holders(turns, 0, 0, 0, 0)
    assert [one.has_turn for one in made] == [True, True, False, False]
    await b.let_go()
    await settle()
    assert [one.has_turn for one in made] == [True, False, True, False]
    for one in (a, c, d):
        await one.let_go()


async def test_repeats_stand_behind_new_questions() -> None:
    """A lower attempt has its turn first, although it came later."""
    turns = Turns(1, patience_s=FOREVER_S)
    first, repeat, new = made = await holders(turns, 0, 1, 0)
    await first.let_go()
    await settle()
    assert [one.has_turn for one in made] == [False, False, True]
    await new.let_go()
    await repeat.let_go()


async def test_who_waits_ends_the_longest_turn() -> None:
    """One turn is cut short for each who waits, the longest first, and no more than that."""
    turns = Turns(3, patience_s=0)
    made = await holders(turns, 0, 0, 0)
    made += await holders(turns, 0, 0)
    await asyncio.sleep(0.01)
    assert [one.was_cut for one in made] == [True, True, False, False, False]
    assert [one.has_turn for one in made] == [False, False, True, True, True]
    for one in made[2:]:
        await one.let_go()


async def test_nobody_waits_nothing_is_cut() -> None:
    """A turn lasts as long as it may while there are others free."""
    turns = Turns(3, patience_s=0)
    made = await holders(turns, 0, 0, 0)
    await asyncio.sleep(0.01)
    assert all(one.has_turn for one in made)
    for one in made:
        await one.let_go()


async def test_everybody_has_a_turn_when_all_last_forever() -> None:
    """Turns that would never end by themselves keep nobody out."""
    turns = Turns(2, patience_s=0)
    made = await holders(turns, *[0] * 50)
    await asyncio.wait_for(asyncio.gather(*(one.task for one in made[:48])), 30)
    assert [one.has_turn for one in made[48:]] == [True, True]
    for one in made[48:]:
        await one.let_go()


async def test_who_gives_up_leaves_no_gap() -> None:
    """Neither one who stops waiting nor one who stops as the turn comes takes it away from the others."""
    turns = Turns(1, patience_s=FOREVER_S)
    first, second, third, fourth = made = await holders(turns, 0, 0, 0, 0)
    second.task.cancel()
    await settle()
    first._let_go.set()
    while third._let_go.is_set() or not first.task.done():  # third has been given its turn, and has not run yet
        await asyncio.sleep(0)
    third.task.cancel()
    await settle()
    assert [one.has_turn for one in made] == [False, False, False, True]
    await fourth.let_go()
    assert (await holders(turns, 0))[0].has_turn


async def test_time_is_over_without_others() -> None:
    """A turn ends with its own time."""
    turns = Turns(1, patience_s=FOREVER_S)
    with pytest.raises(TimeoutError):
        async with turns.turn(0, 0):
            await asyncio.sleep(FOREVER_S)
