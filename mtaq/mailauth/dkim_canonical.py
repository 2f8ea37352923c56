"""Which octets does a signature cover (RFC 6376 §3.4, §3.7, §5.4.2)?

For signing and for verifying alike. Every function is one pass over its input, whatever that is. Bodies are worked
through in pieces, so that a thread which hashes a large one lets the others run, and nothing is held twice.
Octets are taken as they came: only CRLF is a line end, and a last line without one counts as if it had one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from mtaq.mailauth.dkim_tags import TagError, without_b

CRLF = b"\r\n"
#: Some hundred microseconds of work, and small beside a message.
_PIECE_BYTES = 65_536
_LINE_ENDS = CRLF * (_PIECE_BYTES // 2)
_TAB_TO_SPACE = bytes.maketrans(b"\t", b" ")
_FIELD_END = re.compile(rb"\r\n(?![ \t])")
_FIELD_NAME = re.compile(rb"([!-9;-~]++)[ \t]*+:")


class RawField(NamedTuple):
    """One header field as it stands.

    Attributes:
        name: In lower case.
        octets: The whole field, folds included, without the CRLF at its end.
    """

    name: bytes
    octets: bytes

    @property
    def value(self) -> bytes:
        """What stands behind the colon."""
        return self.octets.partition(b":")[2]


class Canonicalization(NamedTuple):
    """How header fields and body are made canonical: relaxed, or else simple (RFC 6376 §3.4)."""

    relaxed_header: bool
    relaxed_body: bool

    def __str__(self) -> str:
        return "/".join("relaxed" if relaxed else "simple" for relaxed in self)


def parse_canonicalization(text: str) -> Canonicalization:
    """
    Return what a ``c=`` says; without the second part the body is simple (RFC 6376 §3.5).

    Raises:
        TagError: It names something else.
    """
    header, slash, body = text.partition("/")
    words = (header, body if slash else "simple")
    if not {"relaxed", "simple"}.issuperset(words):
        raise TagError("c= is not known")
    return Canonicalization(*(word == "relaxed" for word in words))


def raw_fields(section: bytes) -> list[RawField]:
    """Return the fields of a header section from the top; lines that are no field are passed over."""
    found = []
    for octets in _FIELD_END.split(section):
        match = _FIELD_NAME.match(octets)
        if match is not None:
            found.append(RawField(match[1].lower(), octets))
    return found


def canonical_field(field: RawField, *, relaxed: bool) -> bytes:
    """Return a field in canonical form, without the CRLF at its end (RFC 6376 §3.4.1, §3.4.2)."""
    if not relaxed:
        return field.octets
    words = field.value.replace(CRLF, b"").translate(_TAB_TO_SPACE).split(b" ")
    return field.name + b":" + b" ".join([word for word in words if word])


def without_signature(field: RawField) -> RawField:
    """Return a signature's field as it was when it was signed: its ``b=`` empty (RFC 6376 §3.7)."""
    before, colon, value = field.octets.partition(b":")
    return RawField(field.name, before + colon + without_b(value))


def selected_places(
    index: Mapping[bytes, Sequence[int]], names: Iterable[bytes], own: int | None = None
) -> Iterator[int]:
    """
    Yield the places of the fields that the *names* of ``h=`` mean, of each name from the bottom (RFC 6376 §5.4.2).

    A name without a field left means none, which is how signers rule out that one is added.

    Args:
        index: What ``field_index`` returns.
        own: Place of the signature itself, which it never covers that way.
    """
    left: dict[bytes, Iterator[int]] = {}
    for name in names:
        places = left.setdefault(name, reversed(index.get(name, ())))
        place = next(places, None)
        if place is not None and place == own:
            place = next(places, None)
        if place is not None:
            yield place


def field_index(fields: Iterable[RawField]) -> dict[bytes, list[int]]:
    """Return name → places in *fields*, from the top."""
    index: dict[bytes, list[int]] = {}
    for place, field in enumerate(fields):
        index.setdefault(field.name, []).append(place)
    return index


def header_hash(canonical_fields: Iterable[bytes], signature: RawField, *, relaxed: bool) -> bytes:
    """Return the SHA-256 that a signature signs: of the fields, then of itself, its ``b=`` empty (RFC 6376 §3.7)."""
    own = canonical_field(without_signature(signature), relaxed=relaxed)
    return hashlib.sha256(CRLF.join([*canonical_fields, own])).digest()


class BodyHashes(NamedTuple):
    """Hashes of a canonical body.

    Attributes:
        size_bytes: Of the canonical body.
        whole: SHA-256 of all of it.
        beginnings: SHA-256 of its first octets, by their number; for numbers up to ``size_bytes``.
    """

    size_bytes: int
    whole: bytes
    beginnings: dict[int, bytes]


def body_hashes(content: bytes, start: int, *, relaxed: bool, lengths: Collection[int] = ()) -> BodyHashes:
    """Return the hashes of the body that begins at *start*, and of its beginnings of *lengths* octets, for ``l=``."""
    hasher, size_bytes = hashlib.sha256(), 0
    beginnings = {}
    marks = sorted(set(lengths), reverse=True)
    for piece in canonical_body(content, start, relaxed=relaxed):
        while marks and marks[-1] < size_bytes + len(piece):
            beginning = hasher.copy()
            beginning.update(piece[: marks[-1] - size_bytes])
            beginnings[marks.pop()] = beginning.digest()
        hasher.update(piece)
        size_bytes += len(piece)
    whole = hasher.digest()
    if marks and marks[-1] == size_bytes:
        beginnings[size_bytes] = whole
    return BodyHashes(size_bytes, whole, beginnings)


def canonical_body(content: bytes, start: int, *, relaxed: bool) -> Iterator[bytes]:
    """
    Yield the canonical body in pieces (RFC 6376 §3.4.3, §3.4.4).

    Empty lines at its end do not count; an empty body is one CRLF when simple, nothing when relaxed.
    """
    line_ends, empty = 0, True  # line ends that may turn out to be the last ones
    for piece in _without_blanks(content, start) if relaxed else _pieces(content, start):
        kept = _without_line_ends(piece)
        if kept:
            yield from _repeated_line_ends(line_ends)
            yield kept
            line_ends, empty = 0, False
        line_ends += (len(piece) - len(kept)) // 2
    if not (empty and relaxed):
        yield CRLF


def _pieces(content: bytes, start: int) -> Iterator[bytes]:
    """Yield the octets from *start*, no piece ending in the middle of a CRLF."""
    while start < len(content):
        end = min(start + _PIECE_BYTES, len(content))
        if end < len(content) and content.endswith(b"\r", start, end):
            end -= 1
        yield content[start:end]
        start = end


def _without_blanks(content: bytes, start: int) -> Iterator[bytes]:
    """Yield the octets from *start*, runs of blanks as one space, those at the end of a line left out."""
    blank = b""  # the space that a piece ended with: whether it ends a line, the next one tells
    for piece in _pieces(content, start):
        text = (blank + piece).translate(_TAB_TO_SPACE)
        while b"  " in text:  # a run is halved each time, so few times do
            text = text.replace(b"  ", b" ")
        text = text.replace(b" \r\n", CRLF)
        blank = b" " if text.endswith(b" ") else b""
        yield text.removesuffix(blank)


def _without_line_ends(piece: bytes) -> bytes:
    """Return *piece* without the CRLFs at its end."""
    if not piece.endswith(CRLF):
        return piece
    tail = piece[len(piece.rstrip(CRLF)) :]  # CR and LF in any order; NUL marks those that are pairs
    return piece[: len(piece) - len(tail) + len(tail.replace(CRLF, b"\0\0").rstrip(b"\0"))]


def _repeated_line_ends(count: int) -> Iterator[bytes]:
    while count > 0:
        yield _LINE_ENDS[: 2 * count]
        count -= len(_LINE_ENDS) // 2
