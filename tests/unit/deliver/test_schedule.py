"""Whose turn it is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from mtaq.deliver.schedule import turn_of
from mtaq.model.message import OutboxMessage

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
DAY = timedelta(days=1)


def at(seconds: float | None) -> datetime | None:
    return None if seconds is None else NOW + timedelta(seconds=seconds)


def turn(*, due=None, seen=None, expires=None):
    message = OutboxMessage(
        properties={}, message_id="", envelope="", recipient="", content=b"",
        due_at=at(due), seen_at=at(seen), expires_at=at(expires),
    )  # fmt: skip
    return turn_of(message, now=NOW, max_delivertime=DAY)


@pytest.mark.parametrize(
    ("times", "action"),
    [
        ({}, "attempt"),
        ({"due": -5}, "attempt"),
        ({"due": 0}, "attempt"),
        ({"due": 0.9}, "attempt"),
        ({"due": 1}, "park"),
        ({"seen": -86399}, "attempt"),
        ({"seen": -86400}, "expire"),
        ({"seen": -86400, "expires": 10}, "attempt"),
        ({"expires": 0}, "expire"),
        ({"expires": 1}, "attempt"),
        ({"expires": -1, "due": 50}, "expire"),
        ({"seen": -86401, "due": -1}, "attempt"),
        ({"seen": -86402, "due": -2}, "expire"),
        ({"seen": -86401, "due": 100}, "expire"),
    ],
)
def test_a_message_expires_is_parked_or_attempted(times, action):
    """Its own time before the configured one; a retry for the last moment is made although the ladder is late."""
    assert turn(**times).action == action


@pytest.mark.parametrize(
    ("times", "until"),
    [
        ({"due": 90000}, 90000),
        ({"due": 90000, "expires": 100000}, 90000),
        ({"due": 90000, "expires": 50}, 50),
        ({"due": 90000, "seen": -10}, 86390),
    ],
)
def test_it_is_parked_until_due_or_until_it_expires(times, until):
    """A turn beyond the deadline waits and fails only then; waiting for the first turn uses up no life."""
    assert turn(**times).until == at(until)


@pytest.mark.parametrize(
    ("times", "action"),
    [({"due": -5, "expires": "never"}, "attempt"), ({"due": 50, "expires": "never"}, "park"), ({}, "attempt")],
)
def test_a_message_that_never_expires_is_attempted(times, action):
    """The end of the year 9999 means never; nothing is added to it."""
    never = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
    message = OutboxMessage(
        properties={}, message_id="", envelope="", recipient="", content=b"",
        due_at=at(times.get("due")), seen_at=None if times else never, expires_at=never if times else None,
    )  # fmt: skip
    assert turn_of(message, now=NOW, max_delivertime=DAY).action == action


def test_the_first_pick_up_is_remembered():
    """``seen`` stays what it was."""
    assert turn().seen_at == NOW
    assert turn(seen=-30).seen_at == at(-30)
    assert turn().expires_at == NOW + DAY
    assert turn(seen=-30).expires_at == at(-30) + DAY
