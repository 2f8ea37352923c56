"""What becomes of clients that misbehave."""

from __future__ import annotations

from mtaq.receive.clients import MOST_ABUSES, Misdeeds
from tests.unit.receive.fakes import Counts, State


def misdeeds() -> tuple[Misdeeds, State]:
    """Return the counts of one instance, and its state."""
    state = State()
    return Misdeeds(counts=Counts(), state=state, now=lambda: 0.0), state


async def test_the_last_failed_login_blocks() -> None:
    """It says so, and whoever fails on is blocked anew."""
    counted, state = misdeeds()
    told = [await counted.login_failed("192.0.2.1", most=3, block=True) for _ in range(4)]
    assert told == [False, False, True, True]
    assert state.added == [("192.0.2.1", "3 failed logins"), ("192.0.2.1", "4 failed logins")]
    assert counted.failed_logins("192.0.2.1") == 4
    assert counted.failed_logins("192.0.2.2") == 0


async def test_addresses_of_one_customer_count_together() -> None:
    """Who tries from each address of a /64 in turn is one client all the same."""
    counted, state = misdeeds()
    told = [await counted.login_failed(f"2001:db8::{number}", most=2, block=True) for number in (1, 2)]
    assert told == [False, True]
    assert state.added == [("2001:db8::2", "2 failed logins")]


async def test_without_protection_nobody_is_blocked() -> None:
    """Failures are counted and told of; the list does not grow."""
    counted, state = misdeeds()
    assert await counted.login_failed("192.0.2.1", most=1, block=False)
    for _ in range(MOST_ABUSES):
        await counted.abused("192.0.2.1", block=False)
    assert state.added == []


async def test_repeated_abuse_blocks() -> None:
    """One abused session is forgiven, many are not; failed logins are another matter."""
    counted, state = misdeeds()
    await counted.login_failed("192.0.2.1", most=5, block=True)
    for _ in range(MOST_ABUSES - 1):
        await counted.abused("192.0.2.1", block=True)
    assert state.added == []
    await counted.abused("192.0.2.1", block=True)
    assert state.added == [("192.0.2.1", f"{MOST_ABUSES} sessions with protocol abuse")]
