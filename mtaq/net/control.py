"""What supervisor and worker tell each other: one JSON object a line over a socket pair.

The worker learns its settings here and not from its arguments, which everybody may read in the process list. When the
line breaks, the other side is gone: a worker then stops as on SIGTERM.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from typing import Any

#: Longest line; settings with many per-port values stay far below.
LINE_BYTES = 4 * 1024 * 1024


class Control:
    """One end of the line."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @staticmethod
    def pair() -> tuple[int, int]:
        """Return the descriptors of a new line's two ends."""
        ours, theirs = socket.socketpair()
        return ours.detach(), theirs.detach()

    @classmethod
    async def open(cls, fd: int) -> Control:
        """Take over the descriptor *fd*, one end of a socket pair; no program that we start inherits it."""
        sock = socket.socket(fileno=fd)
        sock.setblocking(False)
        os.set_inheritable(fd, False)
        reader, writer = await asyncio.open_connection(sock=sock, limit=LINE_BYTES)
        return cls(reader, writer)

    def send(self, **message: Any) -> None:
        """Tell the other side; does nothing when it is gone."""
        if not self._writer.is_closing():
            self._writer.write(json.dumps(message).encode() + b"\n")

    async def receive(self) -> dict[str, Any] | None:
        """Return what the other side says next, or ``None`` when it is gone."""
        try:
            line = await self._reader.readline()
        except (OSError, ValueError):
            return None
        if not line.endswith(b"\n"):
            return None
        message: dict[str, Any] = json.loads(line)
        return message

    def close(self) -> None:
        """Hang up."""
        self._writer.close()
