"""Binary content for servers that do not take it: parts in base64, the rest as it was (RFC 3030 §3, RFC 2045 §6).

Bare LF in header sections and between the parts becomes CRLF, parts that cannot go in lines become base64, and
the encodings that are named become those that hold. Parts that need no conversion stay byte for byte.
Raises ``CannotConvert`` where a conversion would break something: what is signed or encrypted as it is (RFC 1847 §2.1),
nesting that readers see differently, or too much of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from mtaq.mime.entity import (
    DEPTH_LIMIT,
    PARTS_LIMIT,
    Delimiters,
    Entity,
    boundary_of,
    delimiters,
    entity_at,
)
from mtaq.mime.transfer import IDENTITIES, decoded, to_base64

CRLF = b"\r\n"
#: RFC 5321 §4.5.3.1.6, the CRLF not counted.
_LINE_MAX = 998

_LINE_END = re.compile(rb"\r?\n")
_find_unfit = re.compile(rb"\r(?!\n)|(?<!\r)\n|\0").search
_find_long_line = re.compile(rb"[^\r\n]{%d}" % (_LINE_MAX + 1)).search
#: Types whose parts are parts of the message (RFC 2046 §5.1, §5.2.1); they have no encoding of their own.
_MESSAGES = ("message/rfc822", "message/global")
#: Types that are signed or encrypted as they stand.
_SEALED = ("multipart/signed", "multipart/encrypted")


class CannotConvert(Exception):
    """The content must go as it is or not at all; the text is for people."""


def without_binary(content: bytes) -> bytes:
    """
    Return *content*, which may be binary, in lines that DATA can carry.

    Raises:
        CannotConvert: It cannot be converted without breaking it.
    """
    return b"".join(_Converter(content).entity(0, len(content), 0))


def with_crlf_header(content: bytes) -> bytes:
    """Return *content* with CRLF in the place of LF in its header section, and everything else as it is."""
    top = entity_at(content, 0, len(content))
    section = content[: top.body]
    mended = _LINE_END.sub(CRLF, section)
    return content if mended == section else mended + content[top.body :]


class _Converter:
    def __init__(self, content: bytes) -> None:
        self._content = content
        self._parts = 0

    def entity(self, start: int, end: int, depth: int) -> Iterator[bytes]:
        """Yield the entity in pieces."""
        self._parts += 1
        if depth > DEPTH_LIMIT or self._parts > PARTS_LIMIT:
            raise CannotConvert("its parts are too many, or nested too deep")
        entity = entity_at(self._content, start, end)
        media_type = entity.media_type
        if media_type.startswith("multipart/") and entity.encoding in IDENTITIES:
            pieces = list(self._multipart(entity, media_type, depth))
        elif media_type in _MESSAGES and entity.encoding in IDENTITIES:
            pieces = list(self.entity(entity.body, entity.end, depth + 1))
        else:
            yield from self._leaf(entity)
            return
        encoding = b"7bit" if all(piece.isascii() for piece in pieces) else b"8bit"
        yield from self._header(entity, encoding if entity.encoding in ("7bit", "8bit", "binary") else None)
        yield from pieces

    def _leaf(self, entity: Entity) -> Iterator[bytes]:
        body = self._content[entity.body : entity.end]
        if _fits(body):
            encoding = entity.encoding
            holds = None if encoding != "binary" else b"7bit" if body.isascii() else b"8bit"
            yield from self._header(entity, holds)
            yield body
        elif entity.encoding == "base64":
            yield from self._header(entity, None)
            yield to_base64(decoded(body, "base64"), CRLF) + self._end(entity)
        elif entity.encoding not in IDENTITIES:
            raise CannotConvert(f"a part is encoded ({entity.encoding[:40]!r}), and still is not in lines")
        else:
            yield from self._header(entity, b"base64")
            yield to_base64(body, CRLF) + self._end(entity)

    def _end(self, entity: Entity) -> bytes:
        """The line end before a delimiter is the delimiter's; the last line of all has its own."""
        return CRLF if entity.end == len(self._content) else b""

    def _multipart(self, entity: Entity, media_type: str, depth: int) -> Iterator[bytes]:
        values = entity.values(b"content-type")
        boundary = boundary_of(values[0]) if len(values) == 1 else None
        if boundary is None:
            raise CannotConvert("where its parts end is not clear")
        cuts = delimiters(self._content, boundary, entity.body, entity.end)
        if cuts.doubtful or not cuts.lines or len(cuts.lines) > PARTS_LIMIT:
            raise CannotConvert("where its parts end is not clear")
        if media_type in _SEALED and not _fits(self._content[entity.body : entity.end]):
            raise CannotConvert(f"it is {media_type} with binary content, which holds only as it is")
        yield from self._between(cuts, entity, boundary, depth)

    def _between(self, cuts: Delimiters, entity: Entity, boundary: bytes, depth: int) -> Iterator[bytes]:
        preamble = self._content[entity.body : cuts.lines[0][0]]
        yield preamble if _fits(preamble) else b""
        for number, (_, behind, closes) in enumerate(cuts.lines):
            stop = cuts.lines[number + 1][0] if number + 1 < len(cuts.lines) else entity.end
            yield b"--" + boundary + (b"--" if closes else b"") + CRLF
            if closes:
                epilogue = self._content[behind:stop]
                yield epilogue if _fits(epilogue) else b""
                continue
            is_last = number + 1 == len(cuts.lines)
            yield from self.entity(
                behind, stop if is_last else _before_line_end(self._content, behind, stop), depth + 1
            )
            if not is_last:
                yield CRLF

    def _header(self, entity: Entity, encoding: bytes | None) -> Iterator[bytes]:
        """Yield the header section and the empty line; with another *encoding* if it is given."""
        kept, position = [], entity.start
        if encoding is not None:
            for field in entity.fields:
                if field.name == b"content-transfer-encoding":
                    kept.append(self._content[position : field.start])
                    position = field.end
        section = _LINE_END.sub(CRLF, b"".join([*kept, self._content[position : entity.stop]]))
        if section and not section.endswith(CRLF):
            section += CRLF
        if not _fits(section):
            raise CannotConvert(f"a header section has CR, NUL, or a line of more than {_LINE_MAX} octets")
        yield section
        if encoding is not None:
            yield b"Content-Transfer-Encoding: " + encoding + CRLF
        yield CRLF


def _fits(body: bytes) -> bool:
    """Can DATA carry it?"""
    return _find_unfit(body) is None and _find_long_line(body) is None


def _before_line_end(content: bytes, start: int, end: int) -> int:
    for line_end in (CRLF, b"\n"):
        if content.endswith(line_end, start, end):
            return end - len(line_end)
    return end
