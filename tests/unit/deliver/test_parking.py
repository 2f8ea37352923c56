"""What a parked message remembers."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from mtaq.deliver.parking import NotYet, Parked, carried_headers, parked_headers, read_parked

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
LATER = NOW + timedelta(minutes=5)


def test_what_is_written_is_read():
    """Source, line and first pick-up; a site of any length is cut."""
    why = NotYet(300, "throttle", line=b"12345678", site="mx." * 1000, source="192.0.2.1")
    headers = parked_headers(why, LATER, NOW, None)
    assert read_parked(headers) == Parked(until=LATER, source="192.0.2.1", line=b"12345678", times=0, seen_at=NOW)
    assert len(str(headers["parked-site"])) == 500
    assert headers["parked-reason"] == "throttle"


def test_waits_for_room_are_counted_in_a_row():
    """Another reason begins anew."""
    full = NotYet(15, "full", site="mx")
    once = read_parked(parked_headers(full, LATER, NOW, None))
    twice = read_parked(parked_headers(full, LATER, NOW, once))
    assert once is not None
    assert twice is not None
    assert (once.times, twice.times) == (1, 2)
    assert read_parked(parked_headers(NotYet(1, "pause"), LATER, NOW, twice)) == replace(twice, times=0)


@pytest.mark.parametrize(("said", "times"), [(2**63 - 1, 100), (-(2**63), 0), ("7", 0)])
def test_a_count_that_is_none_is_not_gone_on_with(said, times):
    """Anybody may write headers: a huge one could not be written again, and a negative one would make no wait."""
    headers = {"parked-until": "2026-01-02 03:04:05", "parked-seen": "2026-01-02 03:04:05", "parked-times": said}
    parked = read_parked(headers)
    assert parked is not None
    assert parked.times == times


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"parked-until": "soon"},
        {"parked-until": "2026-01-02 03:04:05"},
        {"parked-until": 7, "parked-seen": True},
        {"parked-until": "2026-01-02 03:04:05", "parked-seen": "2026-01-02 03:04:05", "parked-line": "xyz"},
    ],
)
def test_what_is_not_ours_is_not_believed(headers):
    """Then the message was not parked."""
    assert read_parked(headers) is None


def test_only_these_are_carried_on():
    """What else came with the message is not ours."""
    headers = parked_headers(NotYet(1, "pause"), LATER, NOW, None)
    assert carried_headers({**headers, "x-death": "1"}) == headers
