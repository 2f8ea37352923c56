"""What a carrier of a report holds: the octets themselves, a gzip stream, or the one file in a zip archive.

Everything comes out in pieces, and never more than ``UNPACKED_LIMIT`` of them for a whole mail, whatever the octets
promise. Nothing is written anywhere, so names in an archive do no harm; they only choose the file. Archives that are
encrypted, in several volumes, or of the 64-bit form are not opened.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Generator, Iterator
from typing import NamedTuple

from mtaq.reports.report import NotAReport

#: Octets unpacked from all carriers of one mail.
UNPACKED_LIMIT = 25 * 1024 * 1024
#: Files of an archive that are looked at: a report is alone in its archive.
ENTRIES_LIMIT = 10
#: Members of a gzip stream.
MEMBERS_LIMIT = 100

_PIECE_BYTES = 65_536
_GZIP, _ZIP = b"\x1f\x8b", b"PK\x03\x04"

_END = struct.Struct("<4s4H2LH")
_END_MAGIC = b"PK\x05\x06"
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_CENTRAL_MAGIC = b"PK\x01\x02"
_LOCAL = struct.Struct("<4s5H3L2H")
_COMMENT_MAX = 65_535
_STORED, _DEFLATED = 0, 8
_ENCRYPTED = 0x0001 | 0x0040


class Budget:
    """How much may still be unpacked of a mail."""

    def __init__(self, limit_bytes: int = UNPACKED_LIMIT) -> None:
        self._left_bytes = limit_bytes

    def take(self, piece: bytes) -> bytes:
        """
        Return *piece*, which counts from now on.

        Raises:
            NotAReport: It is too much.
        """
        self._left_bytes -= len(piece)
        if self._left_bytes < 0:
            raise NotAReport("too large once unpacked")
        return piece


def is_packed(first_octets: bytes) -> bool:
    """Does this begin like a gzip stream or a zip archive?"""
    return first_octets.startswith((_GZIP, _ZIP))


def unpacked(octets: bytes, budget: Budget) -> Iterator[bytes]:
    """
    Yield what *octets* hold, in pieces.

    Raises:
        NotAReport: They are broken, cut off, of an unknown form, or hold too much.
    """
    if octets.startswith(_GZIP):
        pieces = _gunzipped(octets)
    elif octets.startswith(_ZIP):
        pieces = _unzipped(octets)
    else:
        pieces = (octets[start : start + _PIECE_BYTES] for start in range(0, len(octets), _PIECE_BYTES))
    for piece in pieces:
        yield budget.take(piece)


def _gunzipped(octets: bytes) -> Iterator[bytes]:
    """Yield the members of a gzip stream (RFC 1952 §2.2), one after the other; garbage behind the last is left."""
    start = 0
    for _ in range(MEMBERS_LIMIT):
        start = yield from _inflated(zlib.decompressobj(16 + zlib.MAX_WBITS), octets, start)
        if not octets.startswith(_GZIP, start):
            return
    raise NotAReport("a compressed stream in too many pieces")


def _inflated(stream: zlib._Decompress, octets: bytes, start: int) -> Generator[bytes, None, int]:
    """Yield what the stream that begins at *start* holds; return where it ends."""
    try:
        while not stream.eof:
            waiting = octets[start : start + _PIECE_BYTES]
            if not waiting:
                raise NotAReport("a compressed stream is cut off")
            start += len(waiting)
            while waiting and not stream.eof:
                yield stream.decompress(waiting, _PIECE_BYTES)
                waiting = stream.unconsumed_tail
    except zlib.error as error:
        raise NotAReport(f"a compressed stream is broken: {error}") from error
    return start - len(stream.unused_data)


class _Entry(NamedTuple):
    """A file in an archive: its name in lower case, and what its central directory header says of it."""

    name: bytes
    flags: int
    method: int
    size: int
    offset: int


def _unzipped(octets: bytes) -> Iterator[bytes]:
    entry = _chosen(_entries(octets))
    if entry.flags & _ENCRYPTED:
        raise NotAReport("an archive is encrypted")
    try:
        header = _LOCAL.unpack_from(octets, entry.offset)
    except struct.error as error:
        raise NotAReport("an archive is cut off") from error
    start = entry.offset + _LOCAL.size + header[9] + header[10]
    data = octets[start : start + entry.size]
    if header[0] != _ZIP or len(data) != entry.size:
        raise NotAReport("an archive is broken")
    if entry.method == _DEFLATED:
        yield from _inflated(zlib.decompressobj(-zlib.MAX_WBITS), data, 0)
    elif entry.method == _STORED:
        yield data
    else:
        raise NotAReport("an archive is compressed in another way")


def _chosen(entries: list[_Entry]) -> _Entry:
    """Return the file that may be a report: the only one, or the first by its name."""
    files = [entry for entry in entries if not entry.name.endswith(b"/")]
    named = [entry for entry in files if entry.name.endswith((b".xml", b".json"))]
    if not named and len(files) != 1:
        raise NotAReport("an archive without a report")
    return (named or files)[0]


def _entries(octets: bytes) -> list[_Entry]:
    end = octets.rfind(_END_MAGIC, max(0, len(octets) - _END.size - _COMMENT_MAX))
    try:
        _, disk, first_disk, _, count, _, position, _ = _END.unpack_from(octets, end) if end >= 0 else (0,) * 8
        if end < 0 or disk or first_disk or not 0 < count <= ENTRIES_LIMIT:
            raise NotAReport("an archive with too many files, or none")
        found = []
        for _ in range(count):
            entry, position = _entry(octets, position)
            found.append(entry)
    except struct.error as error:
        raise NotAReport("an archive is cut off") from error
    return found


def _entry(octets: bytes, position: int) -> tuple[_Entry, int]:
    """Return the file whose central directory header is at *position*, and where the next one is."""
    (magic, _, _, flags, method, _, _, _, size, _, name_length, extra, comment, _, _, _, offset) = _CENTRAL.unpack_from(
        octets, position
    )
    if magic != _CENTRAL_MAGIC:
        raise NotAReport("an archive is broken")
    start = position + _CENTRAL.size
    name = octets[start : start + name_length].lower()
    return _Entry(name, flags, method, size, offset), start + name_length + extra + comment
