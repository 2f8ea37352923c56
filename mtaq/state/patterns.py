"""Patterns of addresses and texts, and how many of them are tried at once.

Regular expressions are RE2's, whose time grows with the length of the text and with nothing else: Python's own ``re``
would let one careless ``(a+)+`` or ``*a*b*c*`` stop the process. Letters are the same in either case.

Most patterns that operators write end in a domain; those are found by looking it up. All others are one automaton, so
that a thousand of them cost little more than one.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import re2

from mtaq.model.control import PatternKind

#: Memory that RE2 may use for one pattern. A pattern that would need more is refused, which bounds its time as well:
#: the slowest one found that is let in takes six milliseconds for the longest address, usual ones some microseconds.
_MOST_BYTES = 2**18
#: The same for many at once, built while it is used; what does not fit is tried in halves.
_MOST_SET_BYTES = 2**23

_WILDCARD_SIGNS = frozenset("*?")


class Match(Protocol):
    """What a pattern found."""

    def group(self, *groups: int) -> Any:
        """Return what a group matched; ``None`` when it took no part."""


class Matcher(Protocol):
    """A compiled pattern."""

    groups: int
    """How many groups it has."""

    def fullmatch(self, octets: bytes) -> Match | None:
        """Match all of *octets*, or return ``None``."""

    def search(self, octets: bytes) -> Match | None:
        """Match somewhere in *octets*, or return ``None``."""


@functools.lru_cache(maxsize=8192)
def compiled(pattern: str, kind: PatternKind, *, captures: bool = False) -> Matcher:
    """Compile a wildcard or a regular expression; the same one again costs nothing.

    Args:
        captures: Are its groups asked for? In a wildcard each ``*`` and ``?`` is one.

    Raises:
        ValueError: Not a regular expression of RE2, or one that is too large.
    """
    try:
        matcher: Matcher = re2.compile(_expression(pattern, kind), _options(_MOST_BYTES, captures=captures))
    except re2.error as error:
        words = error.args[0].decode("utf-8", "replace") if isinstance(error.args[0], bytes) else str(error)
        raise ValueError(f"{pattern!r} is not a regular expression: {words}; expected RE2's syntax") from None
    return matcher


def _options(most_bytes: int, *, captures: bool) -> re2.Options:
    options = re2.Options()
    options.max_mem = most_bytes
    options.log_errors = False
    options.case_sensitive = False
    options.never_capture = not captures
    return options


def _expression(pattern: str, kind: PatternKind) -> str:
    if kind == "regex":
        return pattern
    if kind == "exact":
        return str(re2.escape(pattern))
    signs = {"*": "(.*)", "?": "(.)"}
    return "".join(signs.get(sign) or re2.escape(sign) for sign in pattern)


def covering(domain: str) -> tuple[str, ...]:
    """Return the domain patterns that hold *domain*, the most specific first: itself, ``*.`` and what is above it."""
    found = [domain]
    dot = domain.find(".")
    while dot >= 0:
        found.append("*" + domain[dot:])
        dot = domain.find(".", dot + 1)
    return tuple(found)


class PatternSet:
    """Which of many regular expressions match a text? One pass for all. Immutable."""

    def __init__(self, patterns: Sequence[tuple[str, PatternKind]], *, whole: bool) -> None:
        """Compile; what does not compile by itself matches nothing, for it was refused when it was added.

        Args:
            patterns: Patterns and how they are read.
            whole: Must the whole text match, or a part of it?
        """
        self._patterns = patterns
        self._whole = whole
        good = [index for index, pattern in enumerate(patterns) if self._matcher(*pattern) is not None]
        self._sets = list(self._built(good)) if good else []

    def matching(self, octets: bytes) -> list[int]:
        """Return the numbers of the patterns that match, ascending."""
        found: list[int] = []
        for automaton, indexes in self._sets:
            hits = automaton.Match(octets) or ()
            # The last pattern matches anything. Without it the automaton ran out of memory, which is no answer.
            if len(indexes) in hits:
                found += [indexes[hit] for hit in hits if hit < len(indexes)]
            else:
                found += [index for index in indexes if self._matches(index, octets)]
        return sorted(found)

    def _built(self, indexes: list[int]) -> Iterator[tuple[Any, list[int]]]:
        options = _options(_MOST_SET_BYTES, captures=False)
        automaton = re2.Set.FullMatchSet(options) if self._whole else re2.Set.SearchSet(options)
        try:
            for index in indexes:
                automaton.Add(_expression(*self._patterns[index]))
            automaton.Add("(?s:.*)")
            automaton.Compile()
        except re2.error:
            if len(indexes) > 1:
                yield from self._built(indexes[: len(indexes) // 2])
                yield from self._built(indexes[len(indexes) // 2 :])
        else:
            yield automaton, indexes

    def _matcher(self, pattern: str, kind: PatternKind) -> Matcher | None:
        try:
            return compiled(pattern, kind)
        except ValueError:
            return None

    def _matches(self, index: int, octets: bytes) -> bool:
        matcher = self._matcher(*self._patterns[index])
        assert matcher is not None
        return (matcher.fullmatch(octets) if self._whole else matcher.search(octets)) is not None


class AddressPatterns:
    """Which of many patterns hold an address? Exact ones and those of a domain are looked up. Immutable.

    An exact pattern is an address, or a domain for all addresses in it; a wildcard without ``@`` is one of domains.
    """

    def __init__(self, patterns: Sequence[tuple[str, PatternKind]]) -> None:
        self._known: dict[str, list[int]] = {}
        self._by_domain: dict[str, list[tuple[int, Matcher]]] = {}
        rest: list[int] = []
        for index, (pattern, kind) in enumerate(patterns):
            local_part, at, domain = pattern.rpartition("@")
            is_plain = not _WILDCARD_SIGNS & set(domain.removeprefix("*."))
            if kind == "exact" or (kind == "wildcard" and is_plain and (local_part == "*" or not at)):
                self._known.setdefault(pattern if kind == "exact" and at else domain, []).append(index)
            elif kind == "wildcard" and is_plain:
                self._by_domain.setdefault(domain, []).append((index, compiled(pattern, kind)))
            else:
                rest.append(index)
        self._rest_indexes = rest
        self._rest = PatternSet([_of_address(*patterns[index]) for index in rest], whole=True)

    def matching(self, address: str) -> list[int]:
        """Return the numbers of the patterns that hold *address*, ascending; its domain is in lower case."""
        octets = b""
        found = list(self._known.get(address, ()))
        domain = address.rpartition("@")[2]
        if self._known or self._by_domain:
            for key in covering(domain):
                found += self._known.get(key, ())
                for index, matcher in self._by_domain.get(key, ()):
                    octets = octets or address.encode("utf-8", "replace")
                    if matcher.fullmatch(octets) is not None:
                        found.append(index)
        if self._rest_indexes:
            octets = octets or address.encode("utf-8", "replace")
            found += [self._rest_indexes[index] for index in self._rest.matching(octets)]
        return sorted(found)


def _of_address(pattern: str, kind: PatternKind) -> tuple[str, PatternKind]:
    return (pattern, kind) if kind == "regex" or "@" in pattern else (f"*@{pattern}", kind)
