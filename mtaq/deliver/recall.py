"""What waits although it need not any more: a pause was ended, a limit raised, and is its mail sent forward?

``Recall`` watches the entries of the runtime state. It says when a sweep is worth its cost, that is when something may
have been freed: a change that only holds more back is none. And it says of each message whether it still has to wait,
by the same questions that parked it. Decides only; sweeping is done by whoever asks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from mtaq.config import DeliverOptions
from mtaq.deliver.ending import HostFailure
from mtaq.deliver.forward import Lying, forwarded
from mtaq.deliver.gate import Gate
from mtaq.deliver.intake import paths_of
from mtaq.deliver.orders import Orders, Way
from mtaq.deliver.parking import LINE_HEADER
from mtaq.deliver.ports import Control, Meters
from mtaq.model.codec import decode_outbox
from mtaq.model.control import Entry, Pause, Throttle, WarmUp
from mtaq.model.errors import BadMessage
from mtaq.model.parcel import Parcel, Waiting

#: What may free mail when it changes.
KINDS = frozenset({"throttles", "pauses", "warm_ups"})

_RATES = ("messages_per_minute", "bytes_per_minute", "connections_per_minute")


class Watched(Control, Protocol):
    """The runtime state, as far as it is watched."""

    def entries(self, kind: str) -> Sequence[Entry]:
        """Return all entries of a kind; those that have ended may be among them."""


class Recall:
    """Decides what is sent forward by itself."""

    def __init__(
        self,
        options: DeliverOptions,
        *,
        control: Watched,
        orders: Orders,
        meters: Meters,
        clock: Callable[[], datetime],
    ) -> None:
        self._options = options
        self._control = control
        self._orders = orders
        self._meters = meters
        self._clock = clock
        self._known = self._look()

    def is_freed(self) -> bool:
        """May something have been freed since the last call, by a change or by the end of an entry?"""
        before, self._known = self._known, self._look()
        return any(_frees(entry, self._known.get(id)) for id, entry in before.items()) or any(
            not entry.automatic and isinstance(entry, Throttle)  # a narrower one may allow more than a wider one
            for id, entry in self._known.items()
            if id not in before
        )

    def next_end(self) -> datetime | None:
        """Return when the next limit ends by itself; mail that waits for a pause to end knows when that is."""
        ends = [e.expires_at for e in self._known.values() if e.expires_at is not None and not isinstance(e, Pause)]
        return min(ends, default=None)

    def choose(self, waiting: Waiting) -> Parcel | None:
        """Return what is published in the place of *waiting*: itself, when it need not wait. For ``Broker.sift``."""
        lying = Lying(waiting)
        try:
            is_free = self._is_free(lying)
        except (BadMessage, HostFailure):  # delivery will say so in its time
            return None
        return forwarded(waiting) if is_free else None

    def _look(self) -> Mapping[str, Entry]:
        now = self._clock()
        kinds: Iterable[str] = sorted(KINDS)
        return {
            f"{kind}:{entry.id}": entry
            for kind in kinds
            for entry in self._control.entries(kind)
            if not entry.is_over(now)
        }

    def _is_free(self, lying: Lying) -> bool:
        if lying.cause == "throttle":
            return self._line(lying) != str(lying.headers.get(LINE_HEADER, ""))
        if lying.cause == "pause":
            return not self._is_paused(lying)
        return lying.cause == "warm-up" and not self._day_is_full(lying)

    def _line(self, lying: Lying) -> str:
        way = self._way(lying)
        limits = self._control.limits(
            source=way.source, pools=self._control.pools_of(way.source), domain=way.domain, site=way.site
        )
        return Gate(limits, None, self._meters).line.hex()

    def _is_paused(self, lying: Lying) -> bool:
        message = self._orders.rewritten(decode_outbox(lying.waiting.body))
        sender, recipient = paths_of(message, self._options)
        way = Way(domain=recipient.domain, site=lying.site or None, source=lying.source)
        return self._orders.pause(way, sender, message, self._clock()) is not None

    def _day_is_full(self, lying: Lying) -> bool:
        way, now = self._way(lying), self._clock()
        daily = self._control.daily_cap(
            source=way.source,
            pools=self._control.pools_of(way.source),
            domain=way.domain,
            site=way.site,
            today=now.date(),
        )
        return daily is not None and self._meters.tallies.count(daily.counter) >= daily.messages

    def _way(self, lying: Lying) -> Way:
        return Way(domain=lying.domain, site=lying.site or None, source=lying.source)


def _frees(before: Entry, after: Entry | None) -> bool:
    """Does *after* in the place of *before* allow more?"""
    if after is None or (
        after.expires_at is not None and (before.expires_at is None or after.expires_at < before.expires_at)
    ):
        return True
    if isinstance(before, Throttle) and isinstance(after, Throttle):
        return any(_is_raised(getattr(before.limits, name), getattr(after.limits, name)) for name in _RATES)
    return isinstance(before, WarmUp) and isinstance(after, WarmUp) and before.steps != after.steps


def _is_raised(before: Any, after: Any) -> bool:
    return bool(before) and (not after or after > before)
