"""Whose domain does the RFC5322.From of a message claim?

Every domain behind an ``@`` that is neither quoted nor in a comment is one: in ``a@b.test <c@d.test>`` some readers
show the one and some the other, and whoever is shown must be accounted for. What a reader can only guess at is a
problem and not a domain (RFC 9989 §11.5). Display names are not judged (RFC 9989 §11.4), but a name that stands in the
place of an address is none. Bounded, and never an exception.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import idna

from mtaq.mime.headers import TRACE_LIMIT_BYTES, header_end, unfold
from mtaq.mime.words import decode_words, text_of

#: Longer fields are not read, nor those of more tokens: a display name and an address take some hundred octets.
MAX_FIELD_BYTES = 8_192
MAX_TOKENS = 2_000
#: More authors are not told apart: each of them costs DNS questions (RFC 9989 §11.5).
MAX_DOMAINS = 4

_FROM = re.compile(rb"^from[ \t]*+:([^\n]*+(?:\n[ \t][^\n]*+)*+)", re.MULTILINE | re.IGNORECASE)
#: What some readers take for the name of a From field, in lower case: controls, 8-bit octets or a fold behind it …
_LENIENT_FROM = re.compile(rb"from(?:[^\n!-~]|\n[ \t])*+:")
#: … and before it; a line that begins with a blank goes on with the field above.
_BEFORE_NAME = re.compile(rb"(?:[^ \t!-~][^!-~]*+)?+")
#: Some end a line at these as well, and pass over other controls.
_OTHER_LINE_ENDS = bytes.maketrans(b"\r\x0b\x0c", b"\n\n\n")
_PASSED_OVER = bytes({*range(32), 127} - {*b"\t\n\r\x0b\x0c"})
_TOKEN = re.compile(
    rb"""(?P<blank>[ \t\r\n]++)
    |(?P<quoted>"(?:[^"\\\x00-\x08\x0b-\x1f]|\\[^\x00])*+")
    |(?P<word>=\?[^\x00- \x7f"(),.:;<>@\[\\\]?]++\?[bBqQ]\?[^\x00- \x7f"(),:;<>\[\\\]?]*+\?=)  # RFC 2047
    |(?P<atom>[^\x00- \x7f"(),.:;<>@\[\\\]]++)
    |(?P<comment>\()
    |(?P<special>[,.:;<>@\\\]\[])""",
    re.VERBOSE,
)
_COMMENT_MARK = re.compile(rb"\\[^\x00]|[()\x00]")
_ENDS_DOMAIN = frozenset({b",", b";", b":", b"<", b">", b"@"})
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_DOMAIN = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True, slots=True)
class Authors:
    """What the From fields of a message claim.

    Attributes:
        domains: A-labels, lower case, each once, in the order found.
        problem: Why there is no telling who is shown as the author; ``None`` when ``domains`` are all there are.
    """

    domains: tuple[str, ...]
    problem: str | None = None


class _Malformed(ValueError):
    """The field cannot be read; the text says why."""


class _Token(NamedTuple):
    kind: str
    text: bytes


def authors(content: bytes) -> Authors:
    """Return whose domains *content* claims in its header section."""
    end = header_end(content, TRACE_LIMIT_BYTES)
    if end == TRACE_LIMIT_BYTES:
        return Authors((), "the header section is too long")
    found = _FROM.findall(content, 0, end)
    if not found:
        return Authors((), "no From field")
    if len(found) > 1 or _may_have_another(content[:end]):
        return Authors((), "several From fields")
    return authors_of(unfold(found[0]))


def _may_have_another(section: bytes) -> bool:
    """Are there readers who find a second From in *section*, in what is no field by RFC 5322?"""
    if section.startswith((b" ", b"\t")):  # the rest of no field; some take it for one
        return True
    lines = section.replace(b"\r\n", b"\n").translate(_OTHER_LINE_ENDS, _PASSED_OVER).lower()
    found, seen_to = 0, 0
    for match in _LENIENT_FROM.finditer(lines):
        begin = lines.rfind(b"\n", seen_to, match.start()) + 1
        if begin or not seen_to:  # the first of its line
            found += _BEFORE_NAME.fullmatch(lines, begin, match.start()) is not None
        seen_to = match.end()
    return found > 1


def authors_of(value: bytes) -> Authors:
    """Return whose domains the *value* of one From field claims."""
    if len(value) > MAX_FIELD_BYTES:
        return Authors((), "the From field is too long")
    try:
        tokens = list(_tokens(value))
        _refuse_disguised(tokens)
        domains = tuple(dict.fromkeys(_domains(tokens)))
    except _Malformed as error:
        return Authors((), str(error))
    if not domains:
        return Authors((), "no domain in the From field")
    if len(domains) > MAX_DOMAINS:
        return Authors((), "too many domains in the From field")
    return Authors(domains)


def a_label_domain(text: str) -> str | None:
    """Return *text* in A-labels (RFC 9989 §5.3.1), lower case, no dot at its end; ``None`` when it is no domain."""
    text = text.removesuffix(".")
    if not text.isascii():
        # UTS 46 folds upper case and full-width forms, as every browser does, before IDNA 2008 judges.
        try:
            text = idna.encode(text[:256], uts46=True, std3_rules=True).decode("ascii").removesuffix(".")
        except UnicodeError:  # idna.IDNAError is one
            return None
    return text.lower() if _DOMAIN.fullmatch(text) else None


def _tokens(value: bytes) -> Iterator[_Token]:
    position = 0
    for _ in range(MAX_TOKENS):
        if position == len(value):
            return
        match = _TOKEN.match(value, position)
        if match is None:
            raise _Malformed("the From field holds control characters, or a quote that does not end")
        position, kind = match.end(), match.lastgroup or ""
        if kind == "comment":
            position = _after_comment(value, position)
        elif kind != "blank":
            yield _Token(kind, match[0])
    raise _Malformed("the From field is too long")


def _after_comment(value: bytes, position: int) -> int:
    """Return where the comment ends whose parenthesis stands before *position* (RFC 5322 §3.2.2)."""
    depth = 1
    for match in _COMMENT_MARK.finditer(value, position):
        depth += {b"(": 1, b")": -1}.get(match[0], 0)
        if depth == 0:
            return match.end()
        if match[0] == b"\x00":
            break
    raise _Malformed("a comment in the From field does not end")


def _refuse_disguised(tokens: list[_Token]) -> None:
    """Refuse an address in quotes, or as an encoded-word, that is not clearly a name in front of another address.

    Encoded-words mean nothing in quotes (RFC 2047 §5), yet many readers decode them there.
    """
    disguised, before = "", b""
    for kind, text in tokens:
        if text == b"<" or (text == b"@" and disguised == "quoted"):
            disguised = ""
        elif disguised and kind == "special" and text != b".":
            break
        elif kind in ("word", "quoted") and "@" in decode_words(text_of(text)):
            disguised = "quoted" if kind == "quoted" and b"@" in text else "word"
        if disguised == "word" and before == b"<":
            break
        before = text
    if disguised:
        raise _Malformed("a name in the From field stands for an address")


def _domains(tokens: list[_Token]) -> Iterator[str]:
    position = 0
    while position < len(tokens):
        text = tokens[position].text
        position += 1
        if text == b"<":
            position = _after_route(tokens, position)
        elif text == b"@":
            domain, position = _domain(tokens, position)
            yield domain


def _after_route(tokens: list[_Token], start: int) -> int:
    """Return where the address begins behind an obsolete route, which is to be ignored (RFC 5322 §4.4)."""
    if start == len(tokens) or tokens[start].text != b"@":
        return start
    for position in range(start, len(tokens)):
        kind, text = tokens[position]
        if text == b":":
            return position + 1
        if kind != "atom" and text not in (b"@", b".", b",", b"[", b"]"):
            break
    return start


def _domain(tokens: list[_Token], position: int) -> tuple[str, int]:
    """Return the domain that begins at *position*, comments and blanks within left out (RFC 5322 §4.4)."""
    text = b""
    while position < len(tokens) and (tokens[position].kind == "atom" or tokens[position].text == b"."):
        if text and (tokens[position].text == b".") is text.endswith(b"."):
            break  # two words: what a reader makes of them is a guess
        text += tokens[position].text
        position += 1
    ended = position == len(tokens) or tokens[position].text in _ENDS_DOMAIN
    domain = a_label_domain(text.decode("utf-8", "replace")) if ended else None
    if domain is None:
        raise _Malformed("an address in the From field has no domain name")
    return domain, position
