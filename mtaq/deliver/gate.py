"""May one more go now, under the limits of one way (from a source to a domain or site)? And if not, when?

Two things keep a rate. *Departures*: a message or connection that is about to begin takes a turn from what all
processes of the instance count together, or is told how long until there is one; then nothing is counted for it.
*Places*: what would wait long is sent away with a place in a line, one interval behind the place before, so that it
comes back when it can go. A place is no turn: who comes back still needs one, so a queue that is late never makes a
rate too high. See docs/develop/scheduler.md. Decides only; the counters are handed in.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TypeGuard

from mtaq.deliver.ports import Meters
from mtaq.model.control import DailyCap, Limit, LimitsInForce

#: A minute, and what the way to the receiver may take from the time between two of ours: no 60 seconds hold more than
#: the limit by the receiver's clock either.
MINUTE_S = 61.0
#: Whoever has fewer connections than its share says so, and is heard so long.
WANT_S = 1.5


@dataclass(frozen=True, slots=True)
class Gate:
    """The limits of one way.

    Attributes:
        limits: What holds.
        daily: How many may go today; ``None`` for any number.
        line: The key of the places; empty without rates. Other limits have another line.
        is_open: Does nothing have to be counted for a message?
    """

    limits: LimitsInForce
    daily: DailyCap | None
    meters: Meters
    line: bytes = field(init=False)
    is_open: bool = field(init=False)

    def __post_init__(self) -> None:
        limits = self.limits
        rates = [limits.messages_per_minute, limits.bytes_per_minute, limits.connections_per_minute]
        parts = [b"%r %b" % (rate.amount, rate.counter) for rate in rates if _holds(rate)]
        line = blake2b(b"\0".join(parts), digest_size=8).digest() if parts else b""
        object.__setattr__(self, "line", line)
        is_counted = _holds(limits.messages_per_minute) or _holds(limits.bytes_per_minute)
        object.__setattr__(self, "is_open", self.daily is None and not is_counted)

    def wait_for_message(self, size_bytes: int) -> float:
        """Count one message that is about to begin, and return 0; or the seconds until one may."""
        limits, meters, now = self.limits, self.meters, self.meters.now()
        volume, key = limits.bytes_per_minute, b""
        if _holds(volume):
            key = _key("spread", volume)  # over the minute, or all would go in its first seconds
            wait_s = max(
                meters.volumes.look(volume.counter, limit=int(volume.amount), count=size_bytes, now=now),
                meters.rates.look(key, now=now),
            )
            if wait_s > 0:
                return wait_s
        wait_s = self._turn("messages", limits.messages_per_minute, self.burst, now)
        if wait_s > 0 or not _holds(volume):
            return wait_s
        # When another process was quicker in between, the message's turn is lost, and nothing else.
        takes_s = MINUTE_S * min(1.0, size_bytes / volume.amount)
        if meters.rates.reserve(key, takes_s=takes_s, not_before_s=0.0, within_s=0.0, now=now) is None:
            return max(meters.rates.look(key, now=now), 0.001)
        return meters.volumes.take(volume.counter, limit=int(volume.amount), count=size_bytes, now=now)

    def take_daily(self) -> bool:
        """Count one message of today's; false when as many have gone as may."""
        daily = self.daily
        return daily is None or self.meters.tallies.take(daily.counter, limit=daily.messages, now=self.meters.now())

    @property
    def day_is_full(self) -> bool:
        """Have as many messages gone today as may?"""
        return self.daily is not None and self.meters.tallies.count(self.daily.counter) >= self.daily.messages

    def wait_for_connection(self) -> float:
        """Count one connection that is about to be opened, and return 0; or the seconds until one may."""
        return self._turn("connections", self.limits.connections_per_minute, 1, self.meters.now())

    def interval_s(self, size_bytes: int, messages_per_connection: int) -> float:
        """Return how far apart messages of this size can go; 0 without rates."""
        limits, longest = self.limits, 0.0
        if not self.line:
            return longest
        if _holds(limits.messages_per_minute):
            longest = MINUTE_S / limits.messages_per_minute.amount
        if _holds(limits.bytes_per_minute):
            longest = max(longest, MINUTE_S * min(1.0, size_bytes / limits.bytes_per_minute.amount))
        if _holds(limits.connections_per_minute):
            longest = max(longest, MINUTE_S / limits.connections_per_minute.amount / messages_per_connection)
        return longest

    @property
    def burst(self) -> int:
        """How many messages may go at once after a silence."""
        limit = self.limits.messages_burst
        return max(1, int(limit.amount)) if limit is not None else 1

    def next_turn_s(self) -> float:
        """Return how long what went last keeps the next message waiting, as far as that is known without its size."""
        rates, now, limits, wait_s = self.meters.rates, self.meters.now(), self.limits, 0.0
        rate, volume = limits.messages_per_minute, limits.bytes_per_minute
        if _holds(rate):
            allowed_s = (self.burst - 1) * MINUTE_S / rate.amount
            wait_s = rates.look(_key("messages", rate), now=now) - allowed_s
        if _holds(volume):
            wait_s = max(wait_s, rates.look(_key("spread", volume), now=now))
        return max(wait_s, 0.0)

    def ahead_s(self) -> float:
        """Return how long what came before keeps a message waiting: those who went, and those in the line."""
        return max(self.next_turn_s(), self.meters.lines.look(self.line, now=self.meters.now()))

    def place(self, *, takes_s: float, not_before_s: float, within_s: float) -> float | None:
        """Take the next place in the line; return in how many seconds it is, ``None`` when there is none in time."""
        return self.meters.lines.reserve(
            self.line, takes_s=takes_s, not_before_s=not_before_s, within_s=within_s, now=self.meters.now()
        )

    def _turn(self, kind: str, rate: Limit | None, burst: int, now: float) -> float:
        if not _holds(rate):
            return 0.0
        per_minute = rate.amount * 60 / MINUTE_S
        return self.meters.rates.take(_key(kind, rate), per_minute=per_minute, burst=burst, now=now)


def _holds(limit: Limit | None) -> TypeGuard[Limit]:
    return limit is not None and limit.amount > 0


def _key(kind: str, limit: Limit) -> bytes:
    """Name a counter of turns. With the amount: who waits for a slow limit's turn need not when it has been raised."""
    return b"%b %r %b" % (kind.encode(), limit.amount, limit.counter)


def want(meters: Meters, counter: bytes) -> None:
    """Say that this process has fewer connections than its share of *counter*, and needs one."""
    meters.rates.take(b"want " + counter, per_minute=60 / WANT_S, now=meters.now())


def is_wanted(meters: Meters, counter: bytes) -> bool:
    """Did some process say so lately?"""
    return meters.rates.look(b"want " + counter, now=meters.now()) > 0
