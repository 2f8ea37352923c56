"""Evenly spaced turns: never more than the rate in any minute, and never needlessly fewer."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mtaq.limits.gcra import next_place, next_turn

MINUTE_NS = 60_000_000_000


def times(asked: list[int], per_minute: float, burst: int) -> list[int]:
    """Ask after each of these waits; return when it was granted."""
    granted, due, now = [], 0, 1_000_000_000
    for wait in asked:
        now += wait
        turn = next_turn(due, per_minute=per_minute, burst=burst, now_ns=now)
        due = turn.due_ns
        if not turn.wait_ns:
            granted.append(now)
    return granted


@given(
    st.lists(st.integers(0, 5_000_000_000), max_size=200),
    st.one_of(st.integers(1, 500), st.floats(0.01, 500)),
    st.integers(1, 20),
)
def test_no_minute_holds_more_than_the_rate(asked: list[int], per_minute: float, burst: int) -> None:
    """Wherever the 60 seconds begin; a burst of n adds n - 1."""
    granted = times(asked, per_minute, burst)
    for first in granted:
        in_window = [at for at in granted if first <= at < first + MINUTE_NS]
        assert len(in_window) <= max(1, -(-per_minute // 1)) + burst - 1


@given(st.integers(1, 600), st.integers(1, 50))
def test_who_comes_when_told_to_is_let_through(per_minute: int, burst: int) -> None:
    """The wait is exact to the nanosecond: a moment earlier is refused again, then is not."""
    due, now = 0, 10**15
    for _ in range(burst):
        turn = next_turn(due, per_minute=per_minute, burst=burst, now_ns=now)
        assert turn.wait_ns == 0
        due = turn.due_ns
    wait = next_turn(due, per_minute=per_minute, burst=burst, now_ns=now).wait_ns
    assert wait == -(-MINUTE_NS // per_minute)
    assert next_turn(due, per_minute=per_minute, burst=burst, now_ns=now + wait - 1).wait_ns == 1
    assert next_turn(due, per_minute=per_minute, burst=burst, now_ns=now + wait).wait_ns == 0


def test_a_refusal_counts_nothing() -> None:
    """Asking in vain does not push one's turn away."""
    turn = next_turn(0, per_minute=1, burst=1, now_ns=5)
    assert next_turn(turn.due_ns, per_minute=1, burst=1, now_ns=6) == (turn.due_ns, MINUTE_NS - 1)


def test_the_whole_rate_can_be_used() -> None:
    """Somebody who always waits as told gets exactly the rate: the 601st goes after a whole minute."""
    due = now = 0
    for _ in range(600):
        turn = next_turn(due, per_minute=600, burst=1, now_ns=now)
        assert turn.wait_ns == 0
        due, now = turn.due_ns, turn.due_ns
    assert now == MINUTE_NS


@given(st.lists(st.tuples(st.integers(0, 5_000), st.integers(1, 3_000)), max_size=100))
def test_reserved_turns_do_not_overlap(asked: list[tuple[int, int]]) -> None:
    """Each begins where the one before it ends, or at once when the line is empty."""
    line, now, end = 0, 10**9, 0
    for wait, takes in asked:
        now += wait
        place = next_place(line, takes_ns=takes, from_ns=now, until_ns=10**12)
        assert place is not None
        begin = now + place.wait_ns
        assert begin == max(end, now)
        end, line = begin + takes, place.due_ns
        assert line == end


def test_a_turn_that_would_come_too_late_is_not_taken() -> None:
    """Whoever cannot use it leaves the line as it is."""
    line = next_place(0, takes_ns=100, from_ns=50, until_ns=50)
    assert line == (150, 0)
    assert next_place(150, takes_ns=100, from_ns=60, until_ns=149) is None
