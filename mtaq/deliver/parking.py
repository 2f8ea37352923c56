"""What may not go yet waits in the delay queues, outside of the prefetch window: why, until when, and what it carries.

A parked message has the body it came with, so journal and claims know it again; what delivery has to remember of it
stands in AMQP headers. Whoever sweeps parked mail forward finds there which site it is for and why it waits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from mtaq.model.times import format_time, parse_time

#: ``throttle``: its turn under the limits is later. ``full``: more wait for a slow site than fit in memory. ``pause``:
#: an operator, or a flood pattern, wants nothing to go there. ``warm-up``: today's messages have gone.
Reason = Literal["throttle", "full", "pause", "warm-up"]
REASONS: tuple[Reason, ...] = ("throttle", "full", "pause", "warm-up")

UNTIL_HEADER = "parked-until"
REASON_HEADER = "parked-reason"
SITE_HEADER = "parked-site"
SOURCE_HEADER = "parked-source"
LINE_HEADER = "parked-line"
TIMES_HEADER = "parked-times"
SEEN_HEADER = "parked-seen"

#: On every parked copy; the others are left out where there is nothing to say.
HEADERS = (UNTIL_HEADER, REASON_HEADER, SITE_HEADER, SOURCE_HEADER, LINE_HEADER, TIMES_HEADER, SEEN_HEADER)

#: Counted no further: waits have long been the longest then.
_MOST_TIMES = 100
#: AMQP headers are no place for long texts; a site is the names of all its hosts.
_LONGEST = 500

Headers = Mapping[str, str | int | bool]


class NotYet(Exception):
    """A message was not begun, and is to be looked at again later.

    Attributes:
        wait_s: In how many seconds.
        reason: Why.
        line: In which line it has a place; empty for none.
        site: Where it was to go, when that is known.
        source: From where, likewise.
    """

    def __init__(
        self, wait_s: float, reason: Reason, *, line: bytes = b"", site: str = "", source: str | None = None
    ) -> None:
        super().__init__(f"{reason}, {wait_s:.1f} s")
        self.wait_s = wait_s
        self.reason: Reason = reason
        self.line = line
        self.site = site
        self.source = source


@dataclass(frozen=True, slots=True, kw_only=True)
class Parked:
    """What a message that was parked remembers.

    Attributes:
        until: When it was to come back; it may come earlier, when somebody sent it forward.
        source: From where it was to go; ``None`` when that was open.
        line: As in ``NotYet``.
        times: How often in a row it was parked because a site was slow.
        seen_at: Its first pick-up by delivery.
    """

    until: datetime
    source: str | None
    line: bytes
    times: int
    seen_at: datetime


def read_parked(headers: Headers) -> Parked | None:
    """Return what *headers* of a consumed message remember; ``None`` when it was not parked."""
    if UNTIL_HEADER not in headers:
        return None
    try:
        times = headers.get(TIMES_HEADER, 0)
        return Parked(
            until=parse_time(str(headers[UNTIL_HEADER])),
            source=str(headers[SOURCE_HEADER]) if SOURCE_HEADER in headers else None,
            line=bytes.fromhex(str(headers.get(LINE_HEADER, ""))),
            times=min(max(times, 0), _MOST_TIMES) if isinstance(times, int) else 0,
            seen_at=parse_time(str(headers[SEEN_HEADER])),
        )
    except (KeyError, ValueError):  # not ours, then
        return None


def parked_headers(
    why: NotYet, until: datetime, seen_at: datetime, before: Parked | None
) -> dict[str, str | int | bool]:
    """Return the headers of a message that is parked *until* then, and was parked *before* or not."""
    headers: dict[str, str | int | bool] = {
        UNTIL_HEADER: format_time(until),
        REASON_HEADER: why.reason,
        SITE_HEADER: why.site[:_LONGEST],
        SEEN_HEADER: format_time(seen_at),
    }
    if why.source is not None:
        headers[SOURCE_HEADER] = why.source
    if why.line:
        headers[LINE_HEADER] = why.line.hex()
    if why.reason == "full":
        headers[TIMES_HEADER] = 1 + (before.times if before is not None else 0)
    return headers


def site_headers(site: str) -> dict[str, str | int | bool]:
    """Return what a message that is tried again remembers of where it goes, for whoever sends it forward."""
    return {SITE_HEADER: site[:_LONGEST]} if site else {}


def carried_headers(headers: Headers) -> dict[str, str | int | bool]:
    """Return what a parked message still has to remember when it goes back as it came."""
    return {name: headers[name] for name in HEADERS if name in headers}
