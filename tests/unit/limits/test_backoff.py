"""When a deferred message is tried again, and when it is given up."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest

from mtaq.limits.backoff import GiveUp, RetryAt, next_attempt

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
INTERVALS = [timedelta(minutes=minutes) for minutes in (10, 20, 60)]


def follows(attempts=1, *, life=timedelta(days=1), **changes):
    arguments = {"now": NOW, "deadline": NOW + life, "intervals": INTERVALS, "rng": random.Random(1), **changes}
    return next_attempt(attempts, **arguments)


@pytest.mark.parametrize(("attempts", "minutes"), [(1, 10), (2, 20), (3, 60), (4, 60), (1000, 60)])
def test_each_failure_has_its_wait_and_the_last_repeats(attempts, minutes):
    """RFC 5321 §4.5.4.1: the schedule is the operator's."""
    assert follows(attempts) == RetryAt(NOW + timedelta(minutes=minutes))


def test_a_retry_at_the_deadline_is_still_made():
    """Not later than the deadline means: at it as well."""
    assert follows(life=timedelta(minutes=10)) == RetryAt(NOW + timedelta(minutes=10))


def test_a_retry_beyond_the_deadline_is_given_up_at_once():
    """Nothing is gained by waiting for it."""
    assert isinstance(follows(life=timedelta(minutes=9)), GiveUp)


@pytest.mark.parametrize(
    ("attempts", "maximum", "gives_up"), [(1, 1, True), (2, 3, False), (3, 3, True), (9, 0, False)]
)
def test_attempts_are_counted(attempts, maximum, gives_up):
    """``max-attempts`` counts the one that just failed; 0 is unlimited."""
    assert isinstance(follows(attempts, max_attempts=maximum), GiveUp) is gives_up


def test_jitter_varies_the_wait_both_ways_within_its_share():
    """Deferred messages do not return in one wave."""
    rng = random.Random(7)
    waits = [(follows(jitter=0.1, rng=rng).at - NOW).total_seconds() for _ in range(200)]
    assert 540 <= min(waits) < 560
    assert 640 < max(waits) <= 660


def test_chance_never_gives_up():
    """A wait that fits is cut at the deadline when jitter would carry it beyond."""
    rng = random.Random(7)
    life = timedelta(minutes=10)
    assert all(isinstance(follows(jitter=0.5, rng=rng, life=life), RetryAt) for _ in range(50))


def test_a_wait_is_never_nothing():
    """A message that asks for no wait does not go round in circles."""
    assert follows(intervals=[timedelta(0)], jitter=1.0) == RetryAt(NOW + timedelta(seconds=1))


def test_a_four_day_history_comes_to_its_end():
    """Every message is given up some day."""
    now, attempts = NOW, 0
    while True:
        attempts += 1
        decision = follows(attempts, now=now, deadline=NOW + timedelta(days=4), jitter=0.1)
        if isinstance(decision, GiveUp):
            break
        assert decision.at > now
        now = decision.at
    assert 80 < attempts < 120
    assert "2026-01-06" in decision.reason
