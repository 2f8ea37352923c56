"""Is a recipient suppressed, or answered by a forced error?

There may be millions of suppressions, added one at a time and changed while mail goes on. So addresses and domains are
one dictionary from text to one small number, which holds when the entry ends and which reason it has: 130 bytes an
entry, and nothing that the garbage collector looks at. Wildcards are few and matched.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime

from mtaq.model.control import ForcedError, PatternKind, Suppression
from mtaq.state.patterns import AddressPatterns

#: Different reasons that are remembered; those of further entries stay in the database. Imported lists have one, those
#: that programs write may have one for each address.
MOST_REASONS = 2**16 - 1
_REASON_BITS = 16
_REASON_MASK = 2**_REASON_BITS - 1

_SEPARATOR = "\n"


class ForcedErrors:
    """All forced errors. Immutable."""

    def __init__(self, errors: Iterable[ForcedError] = ()) -> None:
        self._errors = sorted(errors, key=lambda error: (rank(error.pattern), error.id))
        self._patterns = AddressPatterns([(error.pattern, kind_of(error.pattern)) for error in self._errors])

    def find(
        self, address: str, sender_domain: str, tags: Sequence[str], clock: Callable[[], datetime]
    ) -> ForcedError | None:
        """Return the one for *address*, as ``plain_text`` spells it: the most specific; or ``None``."""
        if not self._errors:
            return None
        for index in self._patterns.matching(address):
            error = self._errors[index]
            if (
                error.sender_domain in (None, sender_domain)
                and (error.tag is None or error.tag in tags)
                and not (error.expires_at is not None and error.is_over(clock()))
            ):
                return error
        return None


class Suppressions:
    """All suppressions. One thread may change it while others ask: each step is a single change of a dictionary."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._wildcards: dict[str, Suppression] = {}
        self._patterns: tuple[AddressPatterns, Sequence[Suppression]] = (AddressPatterns([]), ())
        self._reasons: list[str] = [""]
        self._places: dict[str, int] = {"": 0}
        self._senders: set[str] = set()
        self._tags: set[str] = set()

    def __len__(self) -> int:
        return len(self._numbers) + len(self._wildcards)

    def change(self, added: Iterable[Suppression], removed: Iterable[Suppression]) -> None:
        """Add and remove entries; one that is there is replaced."""
        before = self._wildcards.copy()
        for entry in removed:
            key = _key(entry.pattern, entry.sender_domain, entry.tag)
            self._numbers.pop(key, None)
            self._wildcards.pop(key, None)
        for entry in added:
            self._add(entry)
        if before != self._wildcards:
            wildcards = list(self._wildcards.values())
            self._patterns = (AddressPatterns([(entry.pattern, "wildcard") for entry in wildcards]), wildcards)

    def forget_ended(self, now: datetime) -> None:
        """Take out what has ended."""
        limit = _epoch(now)
        for key in [key for key, number in self._numbers.items() if 0 < number >> _REASON_BITS <= limit]:
            del self._numbers[key]
        self.change((), [entry for entry in self._wildcards.values() if entry.expires_at and entry.expires_at <= now])

    def find(
        self, address: str, sender_domain: str, tags: Sequence[str], clock: Callable[[], datetime]
    ) -> Suppression | None:
        """Return one for *address*, as ``plain_text`` spells it, or ``None``."""
        if self._numbers:
            domain = address.rpartition("@")[2]
            for pattern in (address, domain):
                for sender, tag in self._conditions(sender_domain, tags):
                    number = self._numbers.get(_key(pattern, sender, tag))
                    if number is not None and not _is_over(number, clock):
                        return self._entry(pattern, sender, tag, number)
        patterns, wildcards = self._patterns
        for entry in (wildcards[index] for index in patterns.matching(address)) if wildcards else ():
            if (
                entry.sender_domain in (None, sender_domain)
                and (entry.tag is None or entry.tag in tags)
                and (entry.expires_at is None or clock() < entry.expires_at)
            ):
                return entry
        return None

    def _conditions(self, sender_domain: str, tags: Sequence[str]) -> Iterator[tuple[str | None, str | None]]:
        """Return the senders and tags that entries may be about, as far as any entry is."""
        senders: list[str | None] = [None, sender_domain] if sender_domain in self._senders else [None]
        return itertools.product(senders, [None, *(tag for tag in tags if tag in self._tags)])

    def _add(self, entry: Suppression) -> None:
        if entry.sender_domain is not None:
            self._senders.add(entry.sender_domain)
        if entry.tag is not None:
            self._tags.add(entry.tag)
        key = _key(entry.pattern, entry.sender_domain, entry.tag)
        if kind_of(entry.pattern) == "wildcard":
            self._wildcards[key] = entry
        else:
            ends = 0 if entry.expires_at is None else _epoch(entry.expires_at)
            self._numbers[key] = ends << _REASON_BITS | self._place(entry.reason)

    def _place(self, reason: str) -> int:
        place = self._places.get(reason)
        if place is None:
            if len(self._reasons) > MOST_REASONS:
                return 0
            place = self._places[reason] = len(self._reasons)
            self._reasons.append(reason)
        return place

    def _entry(self, pattern: str, sender_domain: str | None, tag: str | None, number: int) -> Suppression:
        ends = number >> _REASON_BITS
        return Suppression(
            pattern=pattern,
            sender_domain=sender_domain,
            tag=tag,
            reason=self._reasons[number & _REASON_MASK],
            expires_at=datetime.fromtimestamp(ends, UTC) if ends else None,
        )


def kind_of(pattern: str) -> PatternKind:
    """Return how a pattern of recipients is read."""
    return "wildcard" if "*" in pattern or "?" in pattern else "exact"


def rank(pattern: str) -> tuple[int, int]:
    """Return the place of a pattern among others: addresses, domains, domains below, others; longer ones first."""
    if kind_of(pattern) == "exact":
        return (0 if "@" in pattern else 1), 0
    return (3 if "@" in pattern else 2), -len(pattern)


def _key(pattern: str, sender_domain: str | None, tag: str | None) -> str:
    if sender_domain is None and tag is None:
        return pattern
    return _SEPARATOR.join((pattern, "*" if sender_domain is None else sender_domain, tag or ""))


def _epoch(moment: datetime) -> int:
    return int(moment.timestamp())


def _is_over(number: int, clock: Callable[[], datetime]) -> bool:
    ends = number >> _REASON_BITS
    return ends > 0 and ends <= clock().timestamp()
