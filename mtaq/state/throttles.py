"""Which limits hold from one source address to one destination?

For each limit the most specific throttle that says something about it. What mtaq added by itself, after a flood
pattern, can only lower that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

from mtaq.model.control import LIMITS, NO_LIMITS, Limit, LimitsInForce, Throttle
from mtaq.state.scopes import ScopeTable

_REMEMBERED = 4096

_Asked = tuple[str | None, tuple[str, ...], str, str | None]


class Throttles:
    """All throttles. For one thread at a time."""

    def __init__(self, throttles: Iterable[Throttle] = ()) -> None:
        self._table = ScopeTable(throttles)
        self._answers: dict[_Asked, tuple[LimitsInForce, datetime | None]] = {}

    def add(self, throttle: Throttle) -> None:
        """Add one, in place of the one with its ``id``."""
        self._table.add(throttle)
        self._answers.clear()

    def limits(
        self, source: str | None, pools: Sequence[str], domain: str, site: str | None, clock: Callable[[], datetime]
    ) -> LimitsInForce:
        """Return what holds at the time of *clock*."""
        if not self._table:
            return NO_LIMITS
        asked = (source, tuple(pools), domain, site)
        answer = self._answers.get(asked)
        if answer is not None and (answer[1] is None or clock() < answer[1]):
            return answer[0]
        if len(self._answers) >= _REMEMBERED:
            self._answers.clear()
        now = clock()
        found = [throttle for throttle in self._table.find(*asked) if not throttle.is_over(now)]
        limits = _merged(found, source, domain, site)
        ends = [throttle.expires_at for throttle in found if throttle.expires_at is not None]
        self._answers[asked] = (limits, min(ends, default=None))
        return limits


def _merged(throttles: Sequence[Throttle], source: str | None, domain: str, site: str | None) -> LimitsInForce:
    """Merge *throttles*, the most specific first."""
    found: dict[str, Limit] = {}
    for throttle in sorted(throttles, key=lambda throttle: throttle.automatic):
        counted = None
        for name in LIMITS:
            amount = getattr(throttle.limits, name)
            if amount is None:
                continue
            there = found.get(name)
            if there is None or (throttle.automatic and (there.amount == 0 or 0 < amount < there.amount)):
                counted = counted or _counted(throttle, source, domain, site)
                found[name] = Limit(amount, f"throttle:{throttle.id}:{name}{counted}".encode())
    return LimitsInForce(**found) if found else NO_LIMITS


def _counted(throttle: Throttle, source: str | None, domain: str, site: str | None) -> str:
    """Return the end of the counter's key: what is counted by itself under this throttle."""
    own_source = "" if throttle.one_for_sources else source or ""
    by_domain = throttle.scope.domain is not None or site is None
    destination = "" if throttle.one_for_sites else f"@{domain}" if by_domain else site or ""
    if not own_source and not destination:
        return ":"
    return ":" + hashlib.blake2b(f"{own_source} {destination}".encode(), digest_size=12).hexdigest()
