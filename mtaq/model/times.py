"""Times as the JSON writes them: UTC, ``YYYY-MM-DD HH:MM:SS``."""

from __future__ import annotations

from datetime import UTC, datetime


def format_time(moment: datetime) -> str:
    """Return *moment* (timezone-aware) in UTC, to the second."""
    return moment.astimezone(UTC).isoformat(" ", "seconds")[:19]


def parse_time(text: str) -> datetime:
    """
    Read a time of the JSON.

    Raises:
        ValueError: *text* has another form; ISO 8601's ``T``, fractions and offsets are understood too.
    """
    moment = datetime.fromisoformat(text.strip())
    try:
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError as error:
        raise ValueError(f"{text} is beyond the years 1 to 9999 in UTC") from error
