"""Times of the JSON."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from mtaq.model.times import format_time, parse_time


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-01-02 03:04:05", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        (" 2026-01-02T05:04:05.5+02:00 ", datetime(2026, 1, 2, 3, 4, 5, 500_000, tzinfo=UTC)),
        ("9999-12-31 23:59:59", datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
    ],
)
def test_times_are_read(text, moment):
    """In UTC unless they say otherwise."""
    assert parse_time(text) == moment


@pytest.mark.parametrize("text", ["", "tomorrow", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"])
def test_what_is_no_time_is_a_value_error(text):
    """Years that UTC does not have included."""
    with pytest.raises(ValueError, match=r"beyond|[Ii]nvalid"):
        parse_time(text)


def test_written_to_the_second():
    """In UTC."""
    assert format_time(datetime(2026, 1, 2, 3, 4, 5, 999_999, tzinfo=UTC)) == "2026-01-02 03:04:05"
