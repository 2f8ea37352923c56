"""Which addresses of mail hosts are not worth a try now? Those that refused or timed out again and again.

An address is offline for some minutes after failures in a row over some time; the next MX host is used meanwhile. Then
one more failure is enough. Who is refused may depend on who asks, so each of our source addresses has its own view.
No clock; bounded, and what is forgotten is merely tried again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mtaq.deliver.route import Target
from mtaq.telemetry.metrics import gauge

#: Failures in a row that make an address offline, when the first of them is so old.
FAILURES = 3
FAILING_S = 20.0
OFFLINE_S = 180.0
#: An address that took a connection as lately as this is not dead: it has had enough of us.
ALIVE_S = 60.0
#: Addresses remembered.
MOST = 10_000

OFFLINE = gauge("mtaq_delivery_offline_ips", "Addresses of mail hosts that are not tried for some minutes.")

_Key = tuple[str | None, str]


@dataclass(slots=True)
class _Record:
    """Failures in a row, when the first of them was, and when the address last took us."""

    failures: int = 0
    since: float = 0.0
    alive_at: float = float("-inf")


class OfflineAddresses:
    """What is known of addresses.

    Args:
        tell: Called with source, target and reason when one goes offline.
    """

    def __init__(self, *, now: Callable[[], float], tell: Callable[[str | None, Target, str], None]) -> None:
        self._now = now
        self._tell = tell
        self._records: OrderedDict[_Key, _Record] = OrderedDict()
        self._offline: OrderedDict[_Key, float] = OrderedDict()

    def online(self, targets: Sequence[Target], source: str | None) -> list[Target]:
        """Return those of *targets* that may be tried."""
        now = self._now()
        self._come_back(now)
        if not self._offline:
            return list(targets)
        return [target for target in targets if (source, target.address) not in self._offline]

    def listed(self) -> list[tuple[str | None, str, float]]:
        """Return source, address and the seconds left of each that is offline."""
        now = self._now()
        self._come_back(now)
        return [(source, address, until - now) for (source, address), until in self._offline.items()]

    def failed(self, source: str | None, target: Target, reason: str) -> None:
        """There was no connection, or no greeting on it."""
        now, key = self._now(), (source, target.address)
        record = self._record(key)
        record.failures += 1
        if record.failures == 1:
            record.since = now
        is_dead = record.failures >= FAILURES and now - record.since >= FAILING_S and now - record.alive_at >= ALIVE_S
        if is_dead and key not in self._offline:
            self._offline[key] = now + OFFLINE_S
            OFFLINE.inc()
            self._tell(source, target, reason)

    def succeeded(self, source: str | None, target: Target) -> None:
        """It greeted us."""
        record = self._record((source, target.address))
        record.failures = 0
        record.alive_at = self._now()

    def _record(self, key: _Key) -> _Record:
        record = self._records.get(key)
        if record is None:
            record = self._records[key] = _Record()
            if len(self._records) > MOST:
                oldest, _ = self._records.popitem(last=False)
                self._forget(oldest)
        else:
            self._records.move_to_end(key)
        return record

    def _come_back(self, now: float) -> None:
        while self._offline:
            key, until = next(iter(self._offline.items()))
            if until > now:
                return
            self._forget(key)

    def _forget(self, key: _Key) -> None:
        if self._offline.pop(key, None) is not None:
            OFFLINE.dec()
