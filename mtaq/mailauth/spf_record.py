"""SPF records and their macros as text, parsed (RFC 7208 §4.6.1, §7.1, §12).

A record is legal or not as a whole: what follows a term that would match is read too. Decides nothing about clients
and asks nothing. What does not fit raises ``RecordError``; time and memory grow with the length of the text alone.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple
from urllib.parse import quote

Mechanism = Literal["all", "include", "a", "mx", "ptr", "ip4", "ip6", "exists"]
Qualified = Literal["pass", "fail", "softfail", "neutral"]

_QUALIFIERS: dict[str, Qualified] = {"": "pass", "+": "pass", "-": "fail", "~": "softfail", "?": "neutral"}
_CACHED_CHARACTERS = 2048
"""Records beyond that are parsed anew each time, or a stranger could fill the memory with them."""
MAX_OTHER_TERMS = 50
"""Terms of one record that are no addresses. Only 10 that ask DNS may be looked at; 64 KB of them would cost a lot."""
MAX_MACROS = 512
"""Characters of text with macros in it, for the same reason; a name has half of them."""
_MANY_PARTS = 9999

_match_version = re.compile(r"v=spf1(?: |\Z)", re.IGNORECASE).match
_match_modifier = re.compile(r"([a-z][a-z0-9_.-]*)=(.*)", re.IGNORECASE).fullmatch
_match_directive = re.compile(r"([-+?~]?)([a-z0-9]+)((?:[:/].*)?)", re.IGNORECASE).fullmatch
_match_dual_cidr = re.compile(r"(.*?)(?:/(0|[1-9][0-9]?))?(?://(0|[1-9][0-9]{0,2}))?").fullmatch
_QNUM = r"(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_match_ip4 = re.compile(rf":{_QNUM}\.{_QNUM}\.{_QNUM}\.{_QNUM}(?:/(0|[1-9][0-9]?))?").fullmatch
_match_ip6 = re.compile(r":([0-9a-f:.]{2,45})(?:/(0|[1-9][0-9]{0,2}))?", re.IGNORECASE).fullmatch
_find_macros = re.compile(r"%(?:([%_-])|\{([slodiphcrtv])([0-9]*)(r?)([.+,/_=-]*)\})", re.IGNORECASE).finditer
_is_printable = re.compile(r"[ -~]*").fullmatch
_is_hyphenated = re.compile(r"[0-9a-z](?:[0-9a-z-]*[0-9a-z])?", re.IGNORECASE).fullmatch


class RecordError(Exception):
    """A record that means nothing; the text says why and may quote printable ASCII of it."""


class Macro(NamedTuple):
    """``%{...}`` (RFC 7208 §7.1).

    Attributes:
        letter: Lower case.
        parts: How many of the parts on the right are kept; ``None`` for all.
        is_reversed: Are they taken from right to left?
        delimiters: What the parts are divided by.
        is_escaped: Are characters escaped as in URLs?
    """

    letter: str
    parts: int | None
    is_reversed: bool
    delimiters: str
    is_escaped: bool


MacroString = tuple[str | Macro, ...]
"""Literal text, ready to use, and macros."""


class Directive(NamedTuple):
    """A mechanism with its qualifier.

    Attributes:
        text: As published.
        word: What a match means.
        target: The name it is about; ``None`` for the domain itself.
        bits4: Length of the prefix that must agree, for IPv4.
        bits6: The same for IPv6.
        network: The address of ``ip4`` and ``ip6`` as a number.
    """

    text: str
    word: Qualified
    mechanism: Mechanism
    target: MacroString | None = None
    bits4: int = 32
    bits6: int = 128
    network: int = 0


@dataclass(frozen=True, slots=True)
class Record:
    """One record; modifiers that are not there are ``None``, unknown ones are forgotten."""

    directives: tuple[Directive, ...]
    redirect: MacroString | None
    explanation: MacroString | None


def is_record(text: str) -> bool:
    """Is *text* an SPF record, legal or not (RFC 7208 §4.5)?"""
    return _match_version(text) is not None


def parse_record(text: str) -> Record:
    """
    Parse *text*, for which ``is_record`` is true.

    Raises:
        RecordError: It breaks the grammar.
    """
    return _parse_cached(text) if len(text) <= _CACHED_CHARACTERS else _parse(text)


def _parse(text: str) -> Record:
    if not _is_printable(text):
        raise RecordError("the record is not printable ASCII")
    directives: list[Directive] = []
    modifiers: dict[str, MacroString] = {}
    others = 0
    for term in filter(None, text[len("v=spf1") :].split(" ")):
        modifier = _match_modifier(term)
        if modifier is None:
            directives.append(_parse_directive(term))
        else:
            _add_modifier(modifiers, modifier[1].lower(), modifier[2])
        others += modifier is not None or directives[-1].mechanism not in ("ip4", "ip6")
        if others > MAX_OTHER_TERMS:
            raise RecordError(f"more than {MAX_OTHER_TERMS} terms that are no addresses")
    return Record(tuple(directives), modifiers.get("redirect"), modifiers.get("exp"))


_parse_cached = lru_cache(maxsize=1024)(_parse)


def _add_modifier(modifiers: dict[str, MacroString], name: str, value: str) -> None:
    if name not in ("redirect", "exp"):
        _scan(value, is_explanation=False)  # a mistake in what is ignored is a mistake of the record (RFC 7208 §6)
        return
    if name in modifiers:
        raise RecordError(f"{name}= stands there twice")
    modifiers[name] = _parse_domain(value)


def _parse_directive(term: str) -> Directive:
    match = _match_directive(term)
    known = None if match is None else _MECHANISMS.get(match[2].lower())
    if match is None or known is None:
        raise RecordError(f"unknown mechanism {_shown(term)}")
    mechanism, with_argument = known
    return with_argument(Directive(term, _QUALIFIERS[match[1]], mechanism), match[3])


def _all(directive: Directive, argument: str) -> Directive:
    if argument:
        raise RecordError(f"{_shown(directive.text)} may have no argument")
    return directive


def _named(directive: Directive, argument: str) -> Directive:
    if not argument.startswith(":"):
        raise RecordError(f"{_shown(directive.text)} needs a domain")
    return directive._replace(target=_parse_domain(argument[1:]))


def _maybe_named(directive: Directive, argument: str) -> Directive:
    return _named(directive, argument) if argument else directive


def _hosts(directive: Directive, argument: str) -> Directive:
    match = _match_dual_cidr(argument)
    assert match is not None
    domain, bits4, bits6 = match.groups()
    return _maybe_named(directive, domain)._replace(
        bits4=_bits(directive, bits4, 32), bits6=_bits(directive, bits6, 128)
    )


def _ip4(directive: Directive, argument: str) -> Directive:
    match = _match_ip4(argument)
    if match is None:
        raise RecordError(f"{_shown(directive.text)} is no IPv4 network")
    a, b, c, d, digits = match.groups()
    network = (int(a) << 24) | (int(b) << 16) | (int(c) << 8) | int(d)
    text, word, mechanism, *_ = directive
    return Directive(text, word, mechanism, None, _bits(directive, digits, 32), 128, network)


def _ip6(directive: Directive, argument: str) -> Directive:
    match = _match_ip6(argument)
    try:
        network = int(ipaddress.IPv6Address(match[1])) if match else None
    except ValueError:
        network = None
    if match is None or network is None:
        raise RecordError(f"{_shown(directive.text)} is no IPv6 network")
    return directive._replace(bits6=_bits(directive, match[2], 128), network=network)


_MECHANISMS: dict[str, tuple[Mechanism, Callable[[Directive, str], Directive]]] = {
    "all": ("all", _all),
    "include": ("include", _named),
    "a": ("a", _hosts),
    "mx": ("mx", _hosts),
    "ptr": ("ptr", _maybe_named),
    "ip4": ("ip4", _ip4),
    "ip6": ("ip6", _ip6),
    "exists": ("exists", _named),
}


def _bits(directive: Directive, digits: str | None, most: int) -> int:
    bits = most if digits is None else int(digits)
    if bits > most:
        raise RecordError(f"the prefix of {_shown(directive.text)} is too long")
    return bits


def _parse_domain(text: str) -> MacroString:
    """Parse a ``domain-spec``: it ends in a macro or in a dot and a top label (RFC 7208 §7.1)."""
    pieces, ends_in_macro = _scan(text, is_explanation=False)
    if ends_in_macro:
        return pieces
    _, dot, top = text.removesuffix(".").rpartition(".")
    if not dot or top.isdigit() or not _is_hyphenated(top):
        raise RecordError(f"{_shown(text)} is no domain")
    return pieces


def parse_explanation(text: str) -> MacroString:
    """
    Parse an ``explain-string``, which may hold spaces, and macros that domains may not (RFC 7208 §6.2).

    Raises:
        RecordError: It breaks the grammar.
    """
    if not _is_printable(text):
        raise RecordError("the explanation is not printable ASCII")
    return _scan(text, is_explanation=True)[0]


def _scan(text: str, *, is_explanation: bool) -> tuple[MacroString, bool]:
    """Return the pieces of a ``macro-string``, and whether its last one is a macro."""
    if len(text) > MAX_MACROS:
        raise RecordError(f"{_shown(text)} is too long")
    pieces: list[str | Macro] = []
    end = 0
    for match in _find_macros(text):
        pieces += [_literal(text[end : match.start()]), _piece(match, is_explanation)]
        end = match.end()
    pieces.append(_literal(text[end:]))
    return tuple(piece for piece in pieces if piece), 0 < end == len(text)


def _literal(text: str) -> str:
    if "%" in text:
        raise RecordError(f"{_shown(text)} is no macro")
    return text


def _piece(match: re.Match[str], is_explanation: bool) -> str | Macro:
    sign, letter, digits, reverse, delimiters = match.groups()
    if sign:
        return {"%": "%", "_": " ", "-": "%20"}[sign]
    if letter in "crtCRT" and not is_explanation:
        raise RecordError(f"{match[0]} is for explanations only")
    kept = digits.lstrip("0")
    if digits and not kept:
        raise RecordError(f"{_shown(match[0])} keeps no part")
    parts = (int(kept) if len(kept) < 5 else _MANY_PARTS) if kept else None
    return Macro(letter.lower(), parts, bool(reverse), delimiters or ".", letter.isupper())


def expand(pieces: MacroString, value_of: Callable[[str], str]) -> str:
    """Return *pieces* with every macro replaced by what *value_of* returns for its letter."""
    return "".join(piece if isinstance(piece, str) else _expanded(piece, value_of(piece.letter)) for piece in pieces)


def _expanded(macro: Macro, value: str) -> str:
    first = macro.delimiters[0]
    for delimiter in macro.delimiters[1:]:
        value = value.replace(delimiter, first)
    parts = value.split(first)
    if macro.is_reversed:
        parts.reverse()
    value = ".".join(parts if macro.parts is None else parts[-macro.parts :])
    return quote(value, safe="", errors="replace") if macro.is_escaped else value


def uses(pieces: MacroString, letters: str) -> bool:
    """Is one of *letters* expanded there?"""
    return any(piece.letter in letters for piece in pieces if not isinstance(piece, str))


def _shown(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."
