"""The delay ladder: every delay is a trip over the right rungs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtaq.broker.rabbitmq.ladder import LONGEST, RUNGS, Rung, leaves_at, rung_name, rungs, trip


def _matches(binding_key: str, routing_key: str) -> bool:
    """Topic matching without ``#`` (AMQP 0-9-1 §3.1.3.3)."""
    pattern, words = binding_key.split("."), routing_key.split(".")
    return len(pattern) == len(words) and all(p in ("*", w) for p, w in zip(pattern, words, strict=True))


def _travel(exchange: str, key: str) -> tuple[int, list[str]]:
    """Follow a message as RabbitMQ would: total wait in ms and the rungs on which it waited."""
    ladder: dict[str, Rung] = {rung.name: rung for rung in rungs("outbox")}
    waited_ms, visited = 0, []
    at: str | None = exchange
    while at is not None:
        rung = ladder[at]
        assert _matches(rung.one, key) != _matches(rung.zero, key)
        if _matches(rung.one, key):
            waited_ms += rung.ttl_ms
            visited.append(rung.name)
        at = rung.below
    return waited_ms, visited


@given(st.integers(min_value=1, max_value=LONGEST))
def test_trip_takes_its_time(delay_s: int) -> None:
    """The rungs of a trip add up to the delay, and none is visited twice."""
    waited_ms, visited = _travel(*trip("outbox", delay_s))
    assert waited_ms == delay_s * 1000
    assert len(visited) == len(set(visited))


@given(st.floats(min_value=0, max_value=1e9, exclude_min=True))
def test_never_early(delay_s: float) -> None:
    """Fractions are rounded up to whole seconds; what is longer than the ladder comes out at its end."""
    waited_ms, _ = _travel(*trip("outbox", delay_s))
    assert waited_ms >= min(delay_s, LONGEST) * 1000
    assert waited_ms <= (delay_s + 1) * 1000


def test_enters_at_its_highest_bit() -> None:
    """A short delay does not pass through the long rungs."""
    assert trip("outbox", 5) == ("outbox.delay.2", ".".join("0" * (RUNGS - 3) + "101"))


def test_longest_rung_fits() -> None:
    """RabbitMQ refuses an x-message-ttl of 2^32 ms or more."""
    assert max(rung.ttl_ms for rung in rungs("q")) < 2**32
    assert LONGEST > 90 * 86400


def test_lengths() -> None:
    """Routing keys stay within AMQP's 255 bytes."""
    assert all(len(key) <= 255 for rung in rungs("q") for key in (rung.one, rung.zero))


@pytest.mark.parametrize("unit_s", [0.01, 2.0**-23])
def test_other_units(unit_s: float) -> None:
    """The smallest step may be shorter; a rung lives a millisecond at least."""
    lowest, *_, highest = rungs("q", unit_s)
    assert lowest.ttl_ms >= 1
    assert highest.ttl_ms == round(2 ** (RUNGS - 1) * unit_s * 1000)
    assert trip("q", 3 * unit_s, unit_s)[0] == rung_name("q", 1)


@given(delay_s=st.integers(1, LONGEST), rung=st.integers(0, RUNGS - 1))
def test_when_it_leaves_a_rung(delay_s: int, rung: int) -> None:
    """On its way down a message has spent the higher bits of its delay when it leaves a rung, and then all of it."""
    _, key = trip("outbox", delay_s)
    leaves = leaves_at(rung, key, 1000.0)
    assert leaves == (1000.0 + delay_s // 2**rung * 2**rung, 1000.0 + delay_s)


@pytest.mark.parametrize("key", ["", "outbox", "1.0", ".".join("2" * RUNGS), "1" * (RUNGS + 1)])
def test_keys_of_others(key: str) -> None:
    """A key that is none of ours says nothing."""
    assert leaves_at(3, key, 0.0) is None
