"""The parts of a message as places in its octets (RFC 2045, RFC 2046).

Finds where a part's header section, body and end are, so that whoever changes one part leaves all others byte for byte.
Decides nothing about what a part means for its reader. Never fails: any octets are a part with some header fields and
some body. Names and values are read leniently; ``boundary_of`` alone is strict, because two readers that split the same
octets at different places see two different messages.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from mtaq.mime.charsets import decode
from mtaq.mime.headers import unfold
from mtaq.mime.words import decode_words, text_of

#: Nesting of parts, and parts of one message: what is beyond is not looked into.
DEPTH_LIMIT = 50
PARTS_LIMIT = 1_000

#: A header field of a part that is longer is read up to here.
_VALUE_LIMIT = 16_384
_PARAMETERS_LIMIT = 100
_BOUNDARY_MAX = 200  # RFC 2046 §5.1.1 says 70

_EMPTY_LINE = re.compile(rb"\n\r?\n")
# Blanks and folds before the colon are wrong; a reader may accept them all the same.
_FIELD = re.compile(
    rb"^(content-(?:type|transfer-encoding|disposition|id|md5|length)|lines)(?:[ \t]|\r?\n[ \t])*+:"
    rb"([^\n]*+(?:\n[ \t][^\n]*+)*+)(?:\n|\Z)",
    re.MULTILINE | re.IGNORECASE,
)
_REST_OF_DELIMITER = re.compile(rb"(--)?[ \t]*\r?(?:\n|\Z)")
_BOUNDARY = re.compile(
    rb""";\s*boundary\s*=\s*(?:"([^"\\\r\n\x00]{1,%d})"|([A-Za-z0-9'()+_,./:=?-]{1,%d}))\s*(?=;|\Z)"""
    % (_BOUNDARY_MAX, _BOUNDARY_MAX),
    re.IGNORECASE,
)
_PARAMETER = re.compile(r""";\s*([^\s=;*"]{1,60})(\*[0-9]{0,3}\*?)?\s*=\s*("(?:[^"\\]|\\.)*+"?|[^;]*)""", re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_PERCENT = re.compile(rb"%([0-9A-Fa-f]{2})")


class ContentField(NamedTuple):
    """A header field of a part: its name in lower case, its unfolded value, where its lines start and end."""

    name: bytes
    value: bytes
    start: int
    end: int


class Entity(NamedTuple):
    """A message or a part of one.

    Attributes:
        start: Where its header section begins.
        stop: Where its header section ends: the place of the empty line.
        body: Where its body begins; the same as *end* when there is none.
        end: Where it ends; the line end before a delimiter belongs to the delimiter (RFC 2046 §5.1.1).
        fields: Those that say how to read the body.
    """

    start: int
    stop: int
    body: int
    end: int
    fields: tuple[ContentField, ...]

    def values(self, name: bytes) -> list[bytes]:
        """Return the different values of the fields of this name, in order."""
        return list(dict.fromkeys(field.value for field in self.fields if field.name == name))

    def text(self, name: bytes) -> str:
        """Return the first value of this name as text, or nothing."""
        return next((text_of(value[:_VALUE_LIMIT]) for value in self.values(name)), "")

    @property
    def media_type(self) -> str:
        """The first content type in lower case, without parameters; ``text/plain`` when there is none to speak of."""
        word = self.text(b"content-type").partition(";")[0].strip().lower()
        return word if re.fullmatch(r"[!-~]{1,80}/[!-~]{1,80}", word) else "text/plain"

    @property
    def encoding(self) -> str:
        """The first content transfer encoding in lower case; empty when there is none."""
        return self.text(b"content-transfer-encoding").strip(" \t;").lower()


class Delimiters(NamedTuple):
    """Where a body is cut.

    Attributes:
        lines: Start, end and whether it is a closing one, of each delimiter line.
        doubtful: Places that some readers, but not all, take for a delimiter.
    """

    lines: list[tuple[int, int, bool]]
    doubtful: list[int]


def entity_at(content: bytes | bytearray, start: int, end: int) -> Entity:
    """Return the part that fills *content* from *start* to *end*."""
    stop, body = _header_section(content, start, end)
    found = tuple(
        ContentField(match[1].lower(), unfold(match[2]), match.start(), match.end())
        for match in _FIELD.finditer(content, start, stop)
    )
    return Entity(start, stop, body, end, found)


def _header_section(content: bytes | bytearray, start: int, end: int) -> tuple[int, int]:
    for empty in (b"\r\n", b"\n"):
        if content.startswith(empty, start, end):
            return start, start + len(empty)
    match = _EMPTY_LINE.search(content, start, end)
    return (match.start() + 1, match.end()) if match is not None else (end, end)


def boundary_of(value: bytes) -> bytes | None:
    """Return the boundary in a content type; ``None`` unless every reader finds this one and no other."""
    match = _BOUNDARY.search(value[:_VALUE_LIMIT])
    if match is None or len(value) > _VALUE_LIMIT:
        return None
    others = value[: match.start()] + value[match.end() :]
    others_ = b"boundary" not in others.lower()
    boundary = (match[1] or match[2] or b"").rstrip(b" \t")
    return boundary if boundary and others_ else None


def delimiters(content: bytes | bytearray, boundary: bytes, start: int, end: int) -> Delimiters:
    """Find the delimiter lines of *boundary*; *start* is that of a line.

    With more than ``PARTS_LIMIT`` lines, or doubtful places, the rest is not looked for: nobody looks at as many parts.
    """
    found, dash_boundary = Delimiters([], []), b"--" + boundary
    position = content.find(dash_boundary, start, end)
    while position >= 0 and len(found.lines) <= PARTS_LIMIT and len(found.doubtful) <= PARTS_LIMIT:
        behind = position + len(dash_boundary)
        before = content[position - 1] if position > start else 0x0A
        rest = _REST_OF_DELIMITER.match(content, behind, end)
        if before == 0x0A and rest is not None:
            found.lines.append((position, rest.end(), rest[1] is not None))
            behind = rest.end()
        elif before in b"\r\n":
            found.doubtful.append(position)
        position = content.find(dash_boundary, behind, end)
    return found


def parts_between(content: bytes | bytearray, cuts: Delimiters, end: int) -> Iterator[tuple[int, int]]:
    """Yield start and end of each part: what follows a delimiter that does not close."""
    for start, stop, closes in _pieces(content, cuts, end):
        if not closes:
            yield start, stop


def inner_places(content: bytes | bytearray, entity: Entity) -> Iterator[tuple[int, int]]:
    """Yield start and end of each part that a multipart entity holds; none when it names no boundary."""
    boundary = parameters(entity.text(b"content-type")).get("boundary", "").rstrip()
    if boundary:
        cuts = delimiters(content, boundary.encode("utf-8", "replace"), entity.body, entity.end)
        yield from parts_between(content, cuts, entity.end)


def gaps_between(content: bytes | bytearray, cuts: Delimiters, entity: Entity) -> Iterator[tuple[int, int]]:
    """Yield start and end of what is no part: before the first delimiter, and behind closing ones."""
    if cuts.lines:
        yield entity.body, _before_line_end(content, entity.body, cuts.lines[0][0])
    else:
        yield entity.body, entity.end
    for start, stop, closes in _pieces(content, cuts, entity.end):
        if closes:
            yield start, stop


def _pieces(content: bytes | bytearray, cuts: Delimiters, end: int) -> Iterator[tuple[int, int, bool]]:
    for (_, start, closes), following in zip(cuts.lines, [*cuts.lines[1:], None], strict=False):
        yield start, _before_line_end(content, start, following[0]) if following else end, closes


def _before_line_end(content: bytes | bytearray, start: int, end: int) -> int:
    for line_end in (b"\r\n", b"\n"):
        if content.endswith(line_end, start, end):
            return end - len(line_end)
    return end


def parameters(value: str) -> dict[str, str]:
    """Return the parameters of a field by their names in lower case, decoded (RFC 2231, and RFC 2047 as many do)."""
    plain: dict[str, str] = {}
    pieces: dict[str, list[tuple[str, str]]] = {}
    for number, match in enumerate(_PARAMETER.finditer(value)):
        if number == _PARAMETERS_LIMIT:
            break
        name, section, text = match[1].lower(), match[2], match[3].strip()
        if text.startswith('"'):
            text = _ESCAPED.sub(r"\1", text[1:].removesuffix('"'))
        if section is None:
            plain.setdefault(name, decode_words(text))
        else:
            pieces.setdefault(name, []).append((section, text))
    return {name: _joined(sections) for name, sections in pieces.items()} | plain


def _joined(sections: list[tuple[str, str]]) -> str:
    """Put together what was cut and encoded (RFC 2231 §3, §4)."""
    sections.sort(key=lambda piece: int(piece[0].strip("*") or 0))
    charset, octets = "", b""
    for number, (section, text) in enumerate(sections):
        if not section.endswith("*"):
            octets += text.encode("utf-8", "replace")
            continue
        if number == 0 and text.count("'") >= 2:
            charset, _, text = text.split("'", 2)
        octets += _PERCENT.sub(lambda match: bytes.fromhex(match[1].decode()), text.encode("utf-8", "replace"))
    return decode(octets, charset or "utf-8")
