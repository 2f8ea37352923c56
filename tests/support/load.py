"""A load with a ledger: sends messages over SMTP and notes which were answered 250.

Each message has a recipient of its own, so that whatever arrives can be told apart. A message that is refused or whose
connection breaks is not sent again: only what was promised counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from dataclasses import dataclass, field


@dataclass
class Ledger:
    """What the relay said.

    Attributes:
        accepted: Recipients whose message was answered 250.
        refused: Replies to messages that were not, and how often.
        broken: Connections that ended in the middle of a transaction.
    """

    accepted: list[str] = field(default_factory=list)
    refused: dict[str, int] = field(default_factory=dict)
    broken: int = 0


class Load:
    """Sends over some sessions at once until stopped."""

    def __init__(self, port: int, *, sessions: int = 8, size_bytes: int = 2000, prefix: str = "m") -> None:
        self.ledger = Ledger()
        self._port = port
        self._prefix = prefix
        self._numbers = itertools.count(1)
        self._line = b"x" * 76 + b"\r\n"
        self._lines = max(1, size_bytes // len(self._line))
        self._running = True
        self._tasks = [asyncio.create_task(self._session()) for _ in range(sessions)]

    async def stop(self) -> Ledger:
        """Let the messages under way finish, and return the ledger."""
        self._running = False
        await asyncio.gather(*self._tasks)
        return self.ledger

    async def sent(self, count: int) -> None:
        """Wait until *count* messages have been answered 250."""
        while len(self.ledger.accepted) < count:
            await asyncio.sleep(0.05)

    async def _session(self) -> None:
        while self._running:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            except OSError:
                await asyncio.sleep(0.05)
                continue
            try:
                await self._talk(reader, writer)
            except (OSError, EOFError):
                self.ledger.broken += 1
                await asyncio.sleep(0.05)
            finally:
                writer.transport.abort()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (await read_reply(reader))[:3] != "220":
            await asyncio.sleep(0.2)
            return
        await self._command(reader, writer, b"EHLO load.test\r\n")
        while self._running:
            recipient = f"{self._prefix}{next(self._numbers)}@example.com"
            envelope = f"MAIL FROM:<load@example.org>\r\nRCPT TO:<{recipient}>\r\nDATA\r\n".encode()
            writer.write(envelope)
            replies = [await read_reply(reader) for _ in range(3)]
            if replies[-1][:3] != "354":
                self._note(replies[-1])
                return
            writer.write(b"Subject: " + recipient.encode() + b"\r\n\r\n" + self._line * self._lines + b".\r\n")
            final = await read_reply(reader)
            if final.startswith("250"):
                self.ledger.accepted.append(recipient)
            else:
                self._note(final)
                await asyncio.sleep(0.05)
        with contextlib.suppress(OSError, EOFError):
            await self._command(reader, writer, b"QUIT\r\n")

    def _note(self, reply: str) -> None:
        key = reply[:9]
        self.ledger.refused[key] = self.ledger.refused.get(key, 0) + 1

    @staticmethod
    async def _command(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, line: bytes) -> str:
        writer.write(line)
        return await read_reply(reader)


async def read_reply(reader: asyncio.StreamReader) -> str:
    """
    Read one reply, all its lines.

    Raises:
        EOFError: The connection ended.
    """
    lines = []
    while True:
        line = await reader.readline()
        if not line.endswith(b"\n"):
            raise EOFError("the connection ended inside a reply")
        lines.append(line.decode("utf-8", "replace").rstrip())
        if line[3:4] != b"-":
            return "\n".join(lines)
