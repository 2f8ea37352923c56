"""A sliding window: what it counts, and when there is room again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mtaq.limits.window import EMPTY, MOST, PARTS, Window


@given(st.lists(st.integers(0, 15), max_size=150), st.integers(1, 20))
def test_no_window_holds_more_than_the_limit(waits: list[int], limit: int) -> None:
    """Times in quarters of a part, a window of twelve parts: wherever it begins, the limit holds."""
    window, now, granted = EMPTY, 1000, []
    for wait in waits:
        now += wait
        window = window.at(now // 4)
        if window.parts_until_room(limit) == 0:
            window = window.with_more()
            granted.append(now)
    for first in granted:
        assert sum(first <= at < first + (PARTS - 1) * 4 for at in granted) <= limit


@given(st.lists(st.integers(0, 5), min_size=PARTS, max_size=PARTS), st.integers(1, 70))
def test_the_wait_told_is_exact(counts: list[int], limit: int) -> None:
    """After so many parts there is room, and before there is not."""
    window = Window(100, counts)
    passed = window.parts_until_room(limit)
    assert window.at(100 + passed).total < limit
    assert passed == 0 or window.at(100 + passed - 1).total >= limit


def test_the_whole_allowance_may_come_at_once_and_comes_back() -> None:
    """A burst is no offence; a window later the next may follow."""
    window = EMPTY.at(500)
    for _ in range(100):
        assert window.parts_until_room(100) == 0
        window = window.with_more()
    assert window.parts_until_room(100) == PARTS
    assert window.at(500 + PARTS).total == 0


def test_time_that_goes_back_forgets_nothing() -> None:
    """Nobody gains by a clock that is set back."""
    window = EMPTY.at(500).with_more()
    assert window.at(400) == window


def test_counts_do_not_overflow() -> None:
    """They stay at the most that is kept."""
    assert Window(1, (MOST, *[0] * 12)).with_more().total == MOST


@given(st.lists(st.tuples(st.integers(0, 15), st.integers(1, 60)), max_size=150), st.integers(1, 40))
def test_no_window_holds_more_than_the_limit_of_things_of_different_size(
    asked: list[tuple[int, int]], limit: int
) -> None:
    """What is larger than the limit itself goes alone; everything else fits, wherever the window begins."""
    window, now, granted = EMPTY, 1000, []
    for wait, size in asked:
        now += wait
        window = window.at(now // 4)
        if window.parts_until_room(limit, size) == 0:
            window = window.with_more(size)
            granted.append((now, size))
    for first, size in granted:
        inside = [other for at, other in granted if first <= at < first + (PARTS - 1) * 4]
        assert sum(inside) <= max(limit, size)
        assert size <= limit or len(inside) == 1
