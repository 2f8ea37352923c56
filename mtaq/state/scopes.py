"""Which entries hold from here to there, the most specific first?

The destination counts before the source, because it is the receiving side that most limits are about: the domain, the
narrowest ``*.`` above it, the site by its name, by one of its mail hosts, by the narrowest ``*.`` above one, anything.
For equal destinations: the source address, one of its pools, anything. Every step is a look-up, so that the answer does
not take longer with more entries.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Generic, Protocol, TypeVar

from mtaq.model.control import Scope
from mtaq.state.patterns import covering

_REMEMBERED = 4096


class Scoped(Protocol):
    """An entry with a scope."""

    @property
    def id(self) -> str:
        """Its name."""

    @property
    def scope(self) -> Scope:
        """Where it holds."""


E = TypeVar("E", bound=Scoped)

_Key = tuple[str, str | None, str | None]
"""Source, tag and sender's domain of entries; the latter two ``None`` for any."""


class ScopeTable(Generic[E]):
    """Entries by their scope, and by tag and sender's domain where they have such. For one thread at a time."""

    def __init__(self, entries: Iterable[E] = ()) -> None:
        self._by_destination: dict[str, dict[_Key, list[E]]] = {}
        self._used: list[set[str | None]] = [set(), set(), set()]
        self._remembered: dict[tuple[str, str | None], list[dict[_Key, list[E]]]] = {}
        for entry in entries:
            self.add(entry)

    def __bool__(self) -> bool:
        return bool(self._by_destination)

    def add(self, entry: E) -> None:
        """Add one entry, in place of the one with its ``id``."""
        scope = entry.scope
        source = f"@{scope.pool}" if scope.pool is not None else scope.source or ""
        key = (source, getattr(entry, "tag", None), getattr(entry, "sender_domain", None))
        table = self._by_destination.setdefault(_destination(scope), {})
        table[key] = [*(other for other in table.get(key, ()) if other.id != entry.id), entry]
        for used, part in zip(self._used, key, strict=True):
            used.add(part)
        self._remembered.clear()

    def find(
        self,
        source: str | None,
        pools: Sequence[str],
        domain: str,
        site: str | None,
        tags: Sequence[str] = (),
        sender_domain: str | None = None,
    ) -> list[E]:
        """Return all entries that hold, the most specific first; ended ones are among them."""
        tables = self._tables(domain, site)
        if not tables:
            return []
        used_sources, used_tags, used_senders = self._used
        sources = [key for key in (source, *(f"@{pool}" for pool in pools), "") if key in used_sources]
        tag_keys = [*(tag for tag in tags if tag in used_tags), None] if tags else [None]
        senders = [sender_domain, None] if sender_domain is not None and sender_domain in used_senders else [None]
        return [
            entry
            for table in tables
            for key in sources
            for tag in tag_keys
            for sender in senders
            for entry in table.get((key or "", tag, sender), ())
        ]

    def _tables(self, domain: str, site: str | None) -> list[dict[_Key, list[E]]]:
        asked = (domain, site)
        found = self._remembered.get(asked)
        if found is None:
            if len(self._remembered) >= _REMEMBERED:
                self._remembered.clear()
            known = self._by_destination
            found = [known[key] for key in _destinations(domain, site) if key in known]
            self._remembered[asked] = found
        return found


def _destination(scope: Scope) -> str:
    return f"@{scope.domain}" if scope.domain is not None else scope.site or ""


def _destinations(domain: str, site: str | None) -> Iterable[str]:
    keys = [f"@{name}" for name in covering(domain)]
    if site is not None:
        site = site.lower()
        hosts = [covering(host) for host in site.split(",")]
        above = {wildcard for names in hosts for wildcard in names[1:]}
        keys += [site, *(names[0] for names in hosts), *sorted(above, key=lambda name: (-len(name), name))]
    return dict.fromkeys((*keys, ""))
