"""Entries end, may be had a while longer, and never take more room than they may."""

from __future__ import annotations

import pytest

from mtaq.dns.cache import Cache, memory_of


class Clock:
    """A clock moved by hand."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def cache(clock: Clock, *, size: int = 100, size_bytes: int = 10_000) -> Cache[str, str]:
    return Cache(size, size_bytes, clock)


def test_what_is_over_is_still_kept_for_a_while(clock: Clock) -> None:
    """`get` forgets when the time to live is over, `get_stale` as much later as was asked for."""
    kept = cache(clock)
    kept.put("a", "answer", 10, size_bytes=1, stale_s=300)
    clock.now += 10
    assert (kept.get("a"), kept.get_stale("a")) == (None, "answer")
    clock.now += 300
    assert kept.get_stale("a") is None
    assert len(kept) == 0


def test_what_is_revived_ends_no_later(clock: Clock) -> None:
    """A stale entry that is had again for some seconds is not kept longer for it."""
    kept = cache(clock)
    kept.put("a", "answer", 10, size_bytes=1, stale_s=20)
    clock.now += 15
    kept.revive("a", 5)
    assert kept.get("a") == "answer"
    clock.now += 5
    assert kept.get("a") is None
    kept.revive("a", 3600)
    clock.now += 10
    assert kept.get("a") is None


def test_nothing_to_revive(clock: Clock) -> None:
    """Reviving what is not there makes nothing."""
    kept = cache(clock)
    kept.revive("a", 5)
    assert kept.get("a") is None


def test_without_time_to_live_nothing_is_kept(clock: Clock) -> None:
    """An entry of no time to live is not kept, and what it replaces is gone."""
    kept = cache(clock)
    kept.put("a", "old", 10, size_bytes=1, stale_s=300)
    kept.put("a", "new", 0, size_bytes=1, stale_s=300)
    assert (kept.get("a"), kept.get_stale("a")) == (None, None)


def test_bounded_in_number(clock: Clock) -> None:
    """What was used longest ago goes first."""
    kept = cache(clock, size=2)
    for key in "ab":
        kept.put(key, key, 10, size_bytes=1)
    kept.get("a")
    kept.put("c", "c", 10, size_bytes=1)
    assert [kept.get(key) for key in "abc"] == ["a", None, "c"]


def test_bounded_in_bytes(clock: Clock) -> None:
    """Large entries push out as many as they need room for, and one that is larger than all room is not kept."""
    kept = cache(clock, size_bytes=100)
    for key in "abcd":
        kept.put(key, key, 10, size_bytes=25)
    kept.put("e", "e", 10, size_bytes=50)
    assert [kept.get(key) for key in "abcde"] == [None, None, "c", "d", "e"]
    kept.put("f", "f", 10, size_bytes=101)
    assert len(kept) == 0
    kept.put("g", "g", 10, size_bytes=100)
    assert kept.get("g") == "g"


def test_room_of_what_is_replaced_or_over_is_free_again(clock: Clock) -> None:
    """Neither storing again nor forgetting loses room."""
    kept = cache(clock, size_bytes=100)
    for _ in range(10):
        kept.put("a", "a", 10, size_bytes=60)
    clock.now += 10
    assert kept.get_stale("a") is None
    kept.put("b", "b", 10, size_bytes=100)
    assert kept.get("b") == "b"


def test_memory_counts_what_is_inside() -> None:
    """The strings of a TXT record count, however deep they stand."""
    assert memory_of(((b"x" * 60_000,), (b"y" * 5_000,))) > 65_000
