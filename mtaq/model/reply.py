"""An SMTP reply (RFC 5321 §4.2) with its enhanced status code (RFC 3463, RFC 2034)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply, ours or a peer's.

    Attributes:
        code: Reply code, 200-599.
        status: Enhanced status code such as ``2.1.0``; ``None`` where RFC 2034 §4 wants none (greeting, EHLO, 354) or
            the peer sent none.
        lines: Text of each line, without code, status and line end; at least one.
    """

    code: int
    status: str | None
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        """The text of all lines, joined by one blank."""
        return " ".join(self.lines)

    @property
    def is_positive(self) -> bool:
        """2yz or 3yz."""
        return self.code < 400

    @property
    def is_transient(self) -> bool:
        """4yz: a transient failure."""
        return 400 <= self.code < 500

    @property
    def is_permanent(self) -> bool:
        """5yz: a permanent failure."""
        return self.code >= 500

    def encode(self) -> bytes:
        """Return the bytes for the wire, the enhanced status code repeated on every line (RFC 2034 §3)."""
        prefix = "" if self.status is None else self.status + " "
        last = len(self.lines) - 1
        return "".join(
            f"{self.code}{' ' if index == last else '-'}{prefix}{line}\r\n" for index, line in enumerate(self.lines)
        ).encode("utf-8", "replace")

    def __str__(self) -> str:
        return " ".join(part for part in (str(self.code), self.status, self.text) if part)


def reply(code: int, status: str | None, *lines: str) -> Reply:
    """Build a ``Reply`` from its parts: ``reply(250, "2.1.0", "sender ok")``."""
    return Reply(code, status, lines)
