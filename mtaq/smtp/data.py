"""Content on the wire: where DATA ends, dots, line ends (RFC 5321 §4.5.2, §2.3.8).

Only CRLF.CRLF ends DATA. Nothing received is repaired: the decoder keeps a bare CR or LF and ``has_bare_cr_or_lf``
tells, so that the session can refuse. All works on whole contents or whole blocks, never line by line. Nothing
raises; content beyond the limit is forgotten while it comes in, and ``oversize`` says so.
"""

from __future__ import annotations

import re
from io import BytesIO

#: RFC 5321 §4.5.3.1.6: 1000 octets with CRLF, a dot added for transparency not counted.
LINE_MAX = 998

_END = b"\r\n.\r\n"

# Both patterns begin with a literal, for which the engine jumps from CR to CR; a third faster than bytes.find.
_find_dot = re.compile(rb"\r\n\.").search
_find_end = re.compile(rb"\r\n\.\r\n").search
_find_bare_cr = re.compile(rb"\r(?!\n)").search


def has_bare_cr_or_lf(content: bytes) -> bool:
    """Is there a CR or LF that is not part of a CRLF (RFC 5321 §2.3.8)?"""
    # Where every CR has its LF, a bare LF is one too many.
    return _find_bare_cr(content) is not None or content.count(b"\r") != content.count(b"\n")


def has_long_line(content: bytes) -> bool:
    """Is a line longer than 998 octets, its CRLF not counted (RFC 5321 §4.5.3.1.6)?"""
    start = 0
    while len(content) - start > LINE_MAX:
        # All lines that end inside this window are short enough, so the last of them is a safe place to go on from.
        line_end = content.rfind(b"\r\n", start, start + LINE_MAX + 2)
        if line_end < 0:
            return True
        start = line_end + 2
    return False


def normalise_line_ends(content: bytes) -> bytes:
    """Return *content* with every lone CR or LF made CRLF; the same object when there is none."""
    if not has_bare_cr_or_lf(content):
        return content
    return content.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")


def stuff_dots(content: bytes) -> bytes:
    """
    Return what DATA sends for *content*: dots doubled, a final CRLF ensured, CRLF.CRLF at the end.

    Args:
        content: With CRLF line ends only; see ``normalise_line_ends``.
    """
    stuffed = content.replace(b"\r\n.", b"\r\n..")
    first_dot = b"." if content.startswith(b".") else b""
    # An empty content is just the final dot: it stands at a line's start already (RFC 5321 §4.1.1.4).
    end = b".\r\n" if not content or content.endswith(b"\r\n") else b"\r\n.\r\n"
    return b"".join((first_dot, stuffed, end))


class ContentBuffer:
    """Octets of one content as they come in, up to a limit; memory is about once their size.

    Attributes:
        oversize: More came than the limit; everything has been dropped.
    """

    __slots__ = ("_buffer", "_limit_bytes", "oversize")

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._buffer = BytesIO()
        self.oversize = False

    @property
    def size_bytes(self) -> int:
        """Octets held."""
        return self._buffer.tell()

    def drop(self) -> None:
        """Forget all, now and to come, as if the limit had been passed."""
        self.oversize = True
        self._buffer = BytesIO()

    def append(self, data: bytes | memoryview) -> None:
        """Add *data*, or drop all when the limit is passed."""
        if self.oversize:
            return
        if self._buffer.tell() + len(data) > self._limit_bytes:
            self.drop()
            return
        self._buffer.write(data)

    def take(self, size_bytes: int | None = None) -> bytes:
        """Hand over the first *size_bytes* octets, or all, without a copy, and forget everything."""
        buffer, self._buffer = self._buffer, BytesIO()
        if size_bytes is not None:
            buffer.truncate(max(size_bytes, 0))
        return buffer.getvalue()


class DataDecoder:
    """Finds the end of DATA and returns the content without the added dots.

    Attributes:
        finished: CRLF.CRLF has come; nothing after it was taken.
    """

    __slots__ = ("_buffer", "_dotted", "_limit_bytes", "_raw", "_tail", "finished")

    def __init__(self, max_size_bytes: int) -> None:
        self._limit_bytes = max_size_bytes
        # Undotted content is at least 3/4 of what came (a line ``..`` CRLF is the worst): beyond this it is too big
        # however the octets were cut into blocks.
        self._buffer = ContentBuffer(max_size_bytes * 4 // 3 + len(_END))
        # The last octets seen. The CRLF of the DATA command counts: a dot right after it ends an empty content.
        self._tail = b"\r\n"
        self._raw = b""
        self._dotted = False  # a line may begin with an added dot
        self.finished = False

    @property
    def size_bytes(self) -> int:
        """Octets held."""
        return self._buffer.size_bytes + len(self._raw)

    def drop(self) -> None:
        """Forget the content; its end is still looked for."""
        self._buffer.drop()

    def feed(self, data: bytes, start: int = 0) -> int:
        """
        Take *data* from offset *start* up to the end of DATA or of the block.

        Returns:
            The offset behind what was taken.
        """
        overlap = self._tail + data[start : start + len(_END) - 1]
        in_overlap = overlap.find(_END)
        if in_overlap >= 0:
            return self._finish(data, start, start + in_overlap + len(_END) - len(self._tail))
        self._dotted = self._dotted or b"\r\n." in overlap
        stop = self._find_stop(data, start)
        if stop >= 0:
            return self._finish(data, start, stop)
        self._buffer.append(memoryview(data)[start:])
        self._tail = overlap[-4:] if len(data) - start < 4 else data[-4:]
        return len(data)

    def _find_stop(self, data: bytes, start: int) -> int:
        """Return the offset behind the first CRLF.CRLF, or -1; most contents have no other dot at a line's start."""
        match = _find_dot(data, start)
        if match is None:
            return -1
        if data.startswith(b"\r\n", match.end()):
            return match.end() + 2
        self._dotted = True
        match = _find_end(data, match.start())
        return -1 if match is None else match.end()

    def _finish(self, data: bytes, start: int, stop: int) -> int:
        self.finished = True
        ending = len(_END) - 2  # the CRLF before the dot belongs to the content
        if not self._buffer.size_bytes and not self._buffer.oversize:
            self._raw = data[start : max(stop - ending, start)]  # all in one block, as most messages are
            return stop
        self._buffer.append(memoryview(data)[start:stop])
        if not self._buffer.oversize:
            self._raw = self._buffer.take(self._buffer.size_bytes - ending)
        return stop

    def take_content(self) -> bytes | None:
        """Hand over the content after ``finished``; ``None`` when it is bigger than the limit."""
        raw, self._raw = self._raw, b""
        if self._buffer.oversize:
            return None
        if self._dotted:
            if raw.startswith(b"."):
                raw = raw[1:]  # apart from the next line, so that no third copy exists
            raw = raw.replace(b"\r\n.", b"\r\n")
        return raw if len(raw) <= self._limit_bytes else None
