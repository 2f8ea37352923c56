"""What holds for delivery now? The answers of one process to what ``deliver.ports.Control`` asks.

Everything is prepared when it is read: a question is some look-ups, whatever the number of entries. Entries end by the
clock. What this process adds by itself holds here at once and waits in ``unwritten`` until it is in the database; the
same thing said again and again, as a flood of replies does, is one entry that is prolonged now and then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple, TypeVar

from mtaq.model.address import Address
from mtaq.model.control import (
    DailyCap,
    DkimKey,
    DnsOverride,
    Entry,
    FloodPattern,
    ForcedError,
    Limits,
    LimitsInForce,
    Pause,
    Pool,
    ResponsePattern,
    Rewritten,
    Scope,
    Suppression,
    Throttle,
    TlsLevel,
    WarmUp,
)
from mtaq.state import control_entries
from mtaq.state.entries import end_after
from mtaq.state.local_addresses import plain_text
from mtaq.state.patterns import covering
from mtaq.state.recipients import ForcedErrors, Suppressions
from mtaq.state.replies import ReplyRules
from mtaq.state.rewriting import RewriteRules
from mtaq.state.scopes import ScopeTable
from mtaq.state.throttles import Throttles

#: Most entries that wait to be written.
MOST_UNWRITTEN = 10_000
#: An automatic entry is prolonged when this part of its time is over, and not before: a flood makes few writes.
_PROLONGED_AFTER = 0.1

_NEVER = datetime.max.replace(tzinfo=UTC)

E = TypeVar("E", bound=Entry)

_KeyOf = tuple[str, str]
"""Kind and id."""


class _Pools:
    """Pools by their name and by their members."""

    def __init__(self, pools: Iterable[Pool] = ()) -> None:
        self.by_name = {pool.name: pool for pool in pools}
        self.of_source: dict[str, tuple[str, ...]] = {}
        for name in sorted(self.by_name):
            for member in self.by_name[name].members:
                self.of_source[member.ip] = (*self.of_source.get(member.ip, ()), name)


def _keys_by_domain(keys: Iterable[DkimKey] = ()) -> dict[str, list[DkimKey]]:
    found: dict[str, list[DkimKey]] = {}
    for key in sorted(keys, key=lambda key: key.id):
        for domain in key.signs:
            found.setdefault(domain, []).append(key)
    return found


def _overrides_by_domain(overrides: Iterable[DnsOverride] = ()) -> dict[str, DnsOverride]:
    return {override.domain: override for override in overrides}


@dataclass(slots=True)
class _Tables:
    """What is asked; one attribute for each kind, and named as it."""

    throttles: Throttles = field(default_factory=Throttles)
    pauses: ScopeTable[Pause] = field(default_factory=ScopeTable)
    forced_errors: ForcedErrors = field(default_factory=ForcedErrors)
    rewrite_rules: RewriteRules = field(default_factory=RewriteRules)
    flood_patterns: ReplyRules[FloodPattern] = field(default_factory=ReplyRules)
    response_patterns: ReplyRules[ResponsePattern] = field(default_factory=ReplyRules)
    warm_ups: ScopeTable[WarmUp] = field(default_factory=ScopeTable)
    dkim_keys: Mapping[str, Sequence[DkimKey]] = field(default_factory=_keys_by_domain)
    pools: _Pools = field(default_factory=_Pools)
    dns_overrides: Mapping[str, DnsOverride] = field(default_factory=_overrides_by_domain)
    tls_levels: ScopeTable[TlsLevel] = field(default_factory=ScopeTable)


_TABLES: Mapping[str, Callable[[Sequence[Any]], object]] = {
    "throttles": Throttles,
    "pauses": ScopeTable,
    "forced_errors": ForcedErrors,
    "rewrite_rules": RewriteRules,
    "flood_patterns": ReplyRules,
    "response_patterns": ReplyRules,
    "warm_ups": ScopeTable,
    "dkim_keys": _keys_by_domain,
    "pools": _Pools,
    "dns_overrides": _overrides_by_domain,
    "tls_levels": ScopeTable,
}


class LiveControl:
    """What operators said about delivery, in the memory of one process. For one thread."""

    def __init__(self, clock: Callable[[], datetime], added: Callable[[], None]) -> None:
        """Prepare; everything is empty.

        Args:
            clock: The time of day, timezone-aware.
            added: Called when this process added something that has to be written.
        """
        self._clock = clock
        self._added = added
        self._callbacks: list[Callable[[frozenset[str]], None]] = []
        self._automatic: dict[_KeyOf, Entry] = {}
        self._entries: dict[str, Sequence[Entry]] = {}
        self.unwritten: dict[_KeyOf, Entry] = {}
        self.suppressions = Suppressions()
        self._tables = _Tables()

    def replace(self, kind: str, prepared: Prepared) -> None:
        """Take what ``prepare`` made of one kind in the place of what there was."""
        setattr(self._tables, kind, prepared.table)
        self._entries[kind] = prepared.entries
        self._automatic = {key: entry for key, entry in self._automatic.items() if key[0] != kind}
        self._automatic |= {(kind, entry.id): entry for entry in prepared.automatic}
        for key, entry in self.unwritten.items():
            if key[0] == kind:
                self._hold(kind, entry)

    def entries(self, kind: str) -> Sequence[Entry]:
        """Return all entries of a kind, those that are not written yet included; some may have ended."""
        unwritten = {key[1]: entry for key, entry in self.unwritten.items() if key[0] == kind}
        written = [entry for entry in self._entries.get(kind, ()) if entry.id not in unwritten]
        return [*written, *unwritten.values()]

    def forget_written(self, written: Iterable[Entry], now: datetime) -> None:
        """Note that these entries are in the database; what has ended needs not be written."""
        ids = {id(entry) for entry in written}
        self.unwritten = {
            key: entry for key, entry in self.unwritten.items() if id(entry) not in ids and not entry.is_over(now)
        }

    def tell(self, kinds: Iterable[str]) -> None:
        """Call back whoever wants to know that entries of these kinds changed."""
        changed = frozenset(kinds)
        for callback in self._callbacks if changed else ():
            callback(changed)

    def on_change(self, callback: Callable[[frozenset[str]], None]) -> None:
        """Have *callback* called after entries changed, with their kinds."""
        self._callbacks.append(callback)

    def limits(self, *, source: str | None, pools: Sequence[str], domain: str, site: str | None) -> LimitsInForce:
        """Return what holds, each limit with the key that it is counted under."""
        return self._tables.throttles.limits(source, pools, domain, site, self._clock)

    def pause_for(
        self,
        *,
        source: str | None,
        pools: Sequence[str],
        domain: str,
        site: str | None,
        tags: Sequence[str],
        sender_domain: str,
    ) -> Pause | None:
        """Return the pause that ends last, or ``None``."""
        if not self._tables.pauses:
            return None
        found = self._in_force(self._tables.pauses.find(source, pools, domain, site, tags, sender_domain))
        return max(found, key=lambda pause: pause.expires_at or _NEVER, default=None)

    def suppression_for(self, recipient: Address, *, sender_domain: str, tags: Sequence[str]) -> Suppression | None:
        """Return why *recipient* gets nothing, or ``None``."""
        if not len(self.suppressions):
            return None
        return self.suppressions.find(plain_text(recipient), sender_domain, tags, self._clock)

    def forced_error_for(self, recipient: Address, *, sender_domain: str, tags: Sequence[str]) -> ForcedError | None:
        """Return what is answered in the place of a mail host, or ``None``."""
        return self._tables.forced_errors.find(plain_text(recipient), sender_domain, tags, self._clock)

    def rewrite(self, envelope: str, recipient: str, *, tags: Sequence[str]) -> Rewritten | None:
        """Apply the rewrite rules to both paths as text; ``None`` when none applies."""
        return self._tables.rewrite_rules.apply(envelope, recipient, tags, self._clock())

    def flood_pattern_for(
        self,
        *,
        code: int | None,
        status: str | None,
        text: str,
        source: str | None,
        pools: Sequence[str],
        domain: str,
        site: str | None,
    ) -> FloodPattern | None:
        """Return the first flood pattern that a reply, or a failure without one, matches; or ``None``."""
        found = self._tables.flood_patterns.find(
            code=code, status=status, text=text, source=source, pools=pools, domain=domain, site=site
        )
        return next(self._in_force(found), None)

    def response_for(
        self,
        *,
        code: int | None,
        status: str | None,
        text: str,
        state: str,
        source: str | None,
        pools: Sequence[str],
        domain: str,
        site: str | None,
        tags: Sequence[str],
    ) -> ResponsePattern | None:
        """Return the first response pattern that a reply, or a failure without one, matches; or ``None``."""
        found = self._tables.response_patterns.find(
            code=code, status=status, text=text, source=source, pools=pools, domain=domain, site=site
        )
        fitting = (rule for rule in found if rule.state in (None, state) and (rule.tag is None or rule.tag in tags))
        return next(self._in_force(fitting), None)

    def daily_cap(
        self, *, source: str | None, pools: Sequence[str], domain: str, site: str | None, today: date
    ) -> DailyCap | None:
        """Return how many messages may go on *today* (UTC), or ``None`` for any number."""
        if not self._tables.warm_ups:
            return None
        for warm_up in self._in_force(self._tables.warm_ups.find(source, pools, domain, site)):
            day = (today - warm_up.starts_on).days
            if day >= 0:
                messages = warm_up.steps[min(day, len(warm_up.steps) - 1)]
                counter = f"warm-up:{warm_up.id}:{source or ''}:{today}".encode()
                return DailyCap(messages, counter) if messages else None
        return None

    @property
    def has_dkim_keys(self) -> bool:
        """Is there any key, so that it is worth while to look whom a message is from?"""
        return bool(self._tables.dkim_keys)

    def dkim_keys(self, domain: str) -> Sequence[DkimKey]:
        """Return the keys that sign for *domain* in ``From:``."""
        if not self._tables.dkim_keys:
            return ()
        now = self._clock()
        found = [key for pattern in covering(domain) for key in self._tables.dkim_keys.get(pattern, ())]
        return [
            key
            for key in dict.fromkeys(found)
            if not key.is_over(now) and (key.starts_at is None or key.starts_at <= now)
        ]

    def pool(self, name: str) -> Pool | None:
        """Return a pool, or ``None`` when there is no such pool."""
        return next(self._in_force([pool] if (pool := self._tables.pools.by_name.get(name)) else ()), None)

    def pools_of(self, source: str | None) -> Sequence[str]:
        """Return the names of the pools that *source* is in."""
        return self._tables.pools.of_source.get(source, ()) if source is not None else ()

    def dns_override(self, domain: str) -> DnsOverride | None:
        """Return where mail for *domain* goes whatever DNS says, or ``None``."""
        if not self._tables.dns_overrides:
            return None
        found = (self._tables.dns_overrides[key] for key in covering(domain) if key in self._tables.dns_overrides)
        return next(self._in_force(found), None)

    def tls_level(self, *, domain: str, site: str | None) -> TlsLevel | None:
        """Return how connections there are encrypted, or ``None`` when no entry says so."""
        if not self._tables.tls_levels:
            return None
        return next(self._in_force(self._tables.tls_levels.find(None, (), domain, site)), None)

    def react_to_flood(self, pattern: FloodPattern, *, source: str | None, site: str) -> bool:
        """Pause or slow down what goes this way, as *pattern* says; ``False`` when that was so already."""
        scope = Scope(source=None if pattern.one_for_sources else source, site=site)
        reason = pattern.reason or f"flood pattern {pattern.id}"
        is_new = False
        if pattern.pause_s:
            is_new = self.add_pause(scope, duration_s=pattern.pause_s, reason=reason)
        if pattern.limits is not None:
            duration_s = pattern.pause_s + pattern.limits_s
            is_new |= self.add_limits(scope, pattern.limits, duration_s=duration_s, reason=reason)
        return is_new

    def add_pause(
        self,
        scope: Scope,
        *,
        duration_s: float,
        reason: str,
        tag: str | None = None,
        sender_domain: str | None = None,
    ) -> bool:
        """Add an automatic pause: here at once, everywhere when it is written, soon. Does not wait.

        ``False`` when there is one that lasts about as long.
        """
        about = self._about(duration_s, reason)
        pause = control_entries.pause(scope, tag=tag, sender_domain=sender_domain, about=about)
        return self._add("pauses", pause, duration_s)

    def add_limits(self, scope: Scope, limits: Limits, *, duration_s: float, reason: str) -> bool:
        """Add automatic limits, likewise. They can only lower what holds otherwise."""
        throttle = control_entries.throttle(scope, limits, about=self._about(duration_s, reason))
        return self._add("throttles", throttle, duration_s)

    def _about(self, duration_s: float, reason: str) -> control_entries.About:
        now = self._clock()
        return control_entries.About(
            reason=reason, expires_at=end_after(now, duration_s), automatic=True, created_at=now
        )

    def _add(self, kind: str, entry: Entry, duration_s: float) -> bool:
        there = self._automatic.get((kind, entry.id))
        if there is not None and there.expires_at is not None and entry.expires_at is not None:
            slack = timedelta(seconds=max(1.0, duration_s * _PROLONGED_AFTER))
            if there.expires_at + slack > entry.expires_at:
                return False
        if len(self.unwritten) >= MOST_UNWRITTEN:
            return False
        self.unwritten[kind, entry.id] = entry
        self._hold(kind, entry)
        self._added()
        return True

    def _hold(self, kind: str, entry: Entry) -> None:
        self._automatic[kind, entry.id] = entry
        if isinstance(entry, Pause):
            self._tables.pauses.add(entry)
        elif isinstance(entry, Throttle):
            self._tables.throttles.add(entry)

    def _in_force(self, entries: Iterable[E]) -> Iterator[E]:
        """Leave out what has ended; the clock is asked only when something ends at all."""
        return (entry for entry in entries if entry.expires_at is None or not entry.is_over(self._clock()))


class Prepared(NamedTuple):
    """Entries of one kind, ready for questions."""

    table: object
    automatic: Sequence[Entry]
    entries: Sequence[Entry] = ()


def prepare(kind: str, entries: Sequence[Any]) -> Prepared:
    """Prepare *entries*, all that there are of a kind. May take a while."""
    return Prepared(_TABLES[kind](entries), [entry for entry in entries if entry.automatic], entries)
