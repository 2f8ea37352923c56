"""Octets received and not yet looked at, and the command lines among them.

Holds at most what it is given plus one line: of a line that gets too long only the beginning is kept, so an endless
one costs nothing. Nothing raises.
"""

from __future__ import annotations


class InputBuffer:
    """Input of a session: append at one end, take command lines or content at the other.

    Attributes:
        data: What is held; looked at up to ``position``.
        position: Offset of the first octet not yet taken. Whoever takes content moves it.
        max_line_bytes: Longest line, CRLF included. May be changed between two lines.
    """

    __slots__ = ("_head", "data", "max_line_bytes", "position")

    def __init__(self, max_line_bytes: int) -> None:
        self.max_line_bytes = max_line_bytes
        self._head: bytes | None = None  # beginning of an over-long line whose rest is being dropped
        self.data = b""
        self.position = 0

    def __len__(self) -> int:
        return len(self.data) - self.position

    def append(self, data: bytes | memoryview) -> None:
        """Add what came from the peer."""
        rest = self.data[self.position :]
        self.data = rest + data if rest else bytes(data)
        self.position = 0

    def clear(self) -> None:
        """Forget everything."""
        self.data = b""
        self.position = 0
        self._head = None

    def take_line(self) -> bytes | None:
        """
        Take the next line, without its CRLF; nothing else ends one (RFC 5321 §2.3.8).

        Returns:
            ``None`` when there is no whole line yet. A line longer than the limit may come without its end, but is
            still longer than the limit.
        """
        end = self.data.find(b"\r\n", self.position)
        if end < 0:
            self._bound_line()
            return None
        line = self.data[self.position : end]
        self.position = end + 2
        if self._head is not None:
            line, self._head = self._head, None
        return line

    def _bound_line(self) -> None:
        """Drop what belongs to a line that can no longer end in time; a final CR may be half of its CRLF."""
        if self._head is None:
            if len(self) < self.max_line_bytes:
                # An idle session must not hold on to the block in which its last command came.
                self.data = self.data[self.position :]
                self.position = 0
                return
            self._head = self.data[self.position : self.position + self.max_line_bytes]
        self.data = b"\r" if self.data.endswith(b"\r") else b""
        self.position = 0
