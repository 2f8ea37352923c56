"""A domain that DNS is slow about keeps few messages in hand."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest

from mtaq.deliver import lookups
from mtaq.deliver.lookups import FEW, LookUps
from mtaq.deliver.parking import NotYet


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookups, "SLOW_S", 0.01)


class Servers:
    """Name servers that answer when told to."""

    def __init__(self) -> None:
        self.answer = asyncio.Event()

    async def slow(self) -> str:
        """Wait for the answer."""
        await self.answer.wait()
        return "found"

    async def quick(self) -> str:
        """Answer at once."""
        return "found"


async def outcomes(
    look_ups: LookUps, domains: list[str], servers: Servers
) -> tuple[list[asyncio.Task[str]], Counter[str]]:
    """Begin a look-up for each of *domains*; return them when those that are sent away have gone, and who went."""
    tasks = [asyncio.create_task(look_ups.wait(domain, servers.slow), name=domain) for domain in domains]
    await asyncio.wait(tasks, timeout=0.3)
    return tasks, Counter(task.get_name() for task in tasks if task.done() and isinstance(task.exception(), NotYet))


async def test_a_slow_domain_keeps_a_few() -> None:
    """The others come again later, and those that stayed get their answer."""
    servers = Servers()
    tasks, away = await outcomes(LookUps(hands=1000, rng=random.Random(1)), ["slow.test"] * 100, servers)
    assert away == {"slow.test": 100 - FEW}
    servers.answer.set()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert done.count("found") == FEW


async def test_slow_domains_together_have_a_part_of_the_hands() -> None:
    """However many of them there are."""
    servers = Servers()
    names = [f"{number}.test" for number in range(50) for _ in range(10)]
    tasks, away = await outcomes(LookUps(hands=400, rng=random.Random(1)), names, servers)
    assert len(tasks) - away.total() == 100
    servers.answer.set()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_nobody_else_is_held_up_and_it_is_forgotten() -> None:
    """Other domains pass meanwhile; once it has answered, a slow domain is one like any other."""
    servers = Servers()
    look_ups = LookUps(hands=40, rng=random.Random(1))
    tasks, _ = await outcomes(look_ups, ["slow.test"] * 50, servers)
    assert await look_ups.wait("quick.test", servers.quick) == "found"
    servers.answer.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    found = await asyncio.gather(*(look_ups.wait("slow.test", servers.quick) for _ in range(100)))
    assert found == ["found"] * 100


async def test_failures_are_passed_on() -> None:
    """A time-out of the look-up's own is not taken for ours."""

    async def fail() -> str:
        raise TimeoutError("its own")

    look_ups = LookUps(hands=40, rng=random.Random(1))
    with pytest.raises(TimeoutError, match="its own"):
        await look_ups.wait("a.test", fail)
