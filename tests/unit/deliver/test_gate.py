"""Rates as they hold at the receiver: no 60 seconds with more than the limit, whoever asks and whenever."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtaq.deliver.gate import MINUTE_S, Gate
from mtaq.model.control import NO_LIMITS, DailyCap, Limit, LimitsInForce
from tests.support.meters import fake_meters


class Clock:
    """Seconds that stand still."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def gate(clock: Clock, *, daily: DailyCap | None = None, **amounts: float) -> Gate:
    limits = LimitsInForce(**{name: Limit(amount, name.encode()) for name, amount in amounts.items()})
    return Gate(limits, daily, fake_meters(clock))


def departures(waits: list[float], sizes: list[int], **amounts: float) -> list[tuple[float, int]]:
    """Ask after each of these waits, and again as told; return when and how much went."""
    clock = Clock()
    asked, gone = gate(clock, **amounts), []
    for pause_s, size in zip(waits, sizes, strict=False):
        clock.now += pause_s
        while (wait_s := asked.wait_for_message(size)) > 0:
            clock.now += max(wait_s, 1e-6)  # to come nearer whatever floating point does
        gone.append((clock.now, size))
    return gone


WAITS = st.lists(st.floats(0, 20), min_size=1, max_size=60)
SIZES = st.lists(st.integers(1, 5000), min_size=60, max_size=60)


@given(WAITS, st.integers(1, 200), st.lists(st.floats(0, 0.99), min_size=60, max_size=60))
def test_no_minute_holds_more_messages_than_the_limit(waits, limit, delays):
    """Not even when each is up to a second on its way."""
    gone = departures(waits, [100] * len(waits), messages_per_minute=limit)
    arrived = sorted(at + delay for (at, _), delay in zip(gone, delays, strict=False))
    assert all(sum(first <= at < first + 60 for at in arrived) <= limit for first in arrived)


@given(WAITS, SIZES, st.integers(1000, 20_000))
def test_no_minute_holds_more_bytes_than_the_limit(waits, sizes, limit):
    """What is larger than a minute's allowance goes alone."""
    gone = departures(waits, sizes, bytes_per_minute=limit)
    for first, size in gone:
        inside = [other for at, other in gone if first <= at < first + 60]
        assert sum(inside) <= max(limit, size)


def test_bytes_are_spread_over_the_minute():
    """They do not all go in its first seconds."""
    gone = departures([0] * 5, [1000] * 5, bytes_per_minute=6000)
    gaps = [after - before for (before, _), (after, _) in pairwise(gone)]
    assert gaps == pytest.approx([MINUTE_S / 6] * 4)


def test_a_burst_goes_at_once_after_a_silence():
    """And no more than that."""
    clock = Clock()
    asked = gate(clock, messages_per_minute=60, messages_burst=3)
    assert [asked.wait_for_message(1) > 0 for _ in range(5)] == [False, False, False, True, True]


def test_without_limits_nothing_is_counted():
    """0 is no limit either."""
    clock = Clock()
    assert Gate(NO_LIMITS, None, fake_meters(clock)).is_open
    unlimited = gate(clock, messages_per_minute=0, bytes_per_minute=0, connections_per_minute=0)
    assert unlimited.is_open
    assert unlimited.line == b""
    assert unlimited.wait_for_connection() == 0
    assert unlimited.interval_s(1000, 100) == 0


def test_connections_have_turns_too():
    """Each as many seconds behind the one before as the limit says."""
    clock = Clock()
    asked = gate(clock, connections_per_minute=6)
    assert asked.wait_for_connection() == 0
    assert asked.wait_for_connection() == pytest.approx(MINUTE_S / 6)


def test_a_day_has_so_many_messages():
    """Then no more, and that can be seen beforehand."""
    asked = gate(Clock(), daily=DailyCap(2, b"day"))
    assert not asked.is_open
    assert [asked.take_daily() for _ in range(3)] == [True, True, False]


def test_places_are_as_far_apart_as_the_slowest_limit_says():
    """Connections carry several messages; a message may be larger than a minute's allowance."""
    clock = Clock()
    assert gate(clock, messages_per_minute=60).interval_s(10, 100) == pytest.approx(MINUTE_S / 60)
    assert gate(clock, messages_per_minute=60, bytes_per_minute=1000).interval_s(500, 100) == pytest.approx(30.5)
    assert gate(clock, bytes_per_minute=1000).interval_s(5000, 100) == MINUTE_S
    assert gate(clock, connections_per_minute=6).interval_s(10, 10) == pytest.approx(MINUTE_S / 60)


def test_other_limits_have_another_line():
    """Places that were given out under limits that hold no longer keep nobody waiting."""
    clock = Clock()
    slow, fast = gate(clock, messages_per_minute=1), gate(clock, messages_per_minute=600)
    assert slow.line != fast.line
    assert gate(clock, messages_per_minute=1).line == slow.line
    assert slow.place(takes_s=60, not_before_s=2, within_s=1e6) == 2
    assert slow.place(takes_s=60, not_before_s=2, within_s=1e6) == 62
    assert slow.ahead_s() == 122
    assert fast.ahead_s() == 0


def test_ahead_is_also_who_went_last():
    """Its interval is not over yet; a burst that is left makes up for it."""
    clock = Clock()
    asked = gate(clock, messages_per_minute=1)
    asked.wait_for_message(1)
    assert asked.ahead_s() == pytest.approx(MINUTE_S)
    bursting = gate(clock, messages_per_minute=1, messages_burst=2)
    bursting.wait_for_message(1)
    assert bursting.ahead_s() == pytest.approx(0, abs=1e-6)
