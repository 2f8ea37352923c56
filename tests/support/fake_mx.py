"""A mail host on loopback that misbehaves on request.

A real server on a real socket: it reads commands, content by DATA or BDAT, and answers each *stage* with what the
script of that connection says. Stages are ``banner``, the verbs in capitals, and ``content`` (the final dot, or the
last BDAT chunk).
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

OK: dict[str, bytes] = {
    "banner": b"220 mx.test ESMTP fake\r\n",
    "EHLO": b"250-mx.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 SIZE 100000000\r\n",
    "HELO": b"250 mx.test\r\n",
    "STARTTLS": b"220 2.0.0 go ahead\r\n",
    "MAIL": b"250 2.1.0 sender ok\r\n",
    "RCPT": b"250 2.1.5 recipient ok\r\n",
    "DATA": b"354 go ahead\r\n",
    "content": b"250 2.0.0 queued as 42\r\n",
    "RSET": b"250 2.0.0 reset\r\n",
    "QUIT": b"221 2.0.0 bye\r\n",
}


@dataclass(kw_only=True)
class Script:
    """What a connection is like.

    Attributes:
        replies: Per stage: one answer for always, or several to be given in turn, of which the last repeats.
        tls: With a context STARTTLS is announced and works.
        break_tls: STARTTLS is announced and the handshake broken off.
        drop: Stages at which the connection is closed in place of an answer.
        stall: Stages that are never answered.
        close_after: Stages after whose answer the connection is closed.
        refuse_after_bytes: So many bytes of content are read and then ``early`` is said.
        early: See above; when empty, nothing is said and nothing more read.
        byte_pause_s: Answers go out byte by byte with this pause between.
        idle_words: Said, unasked, behind the answer to each content.
    """

    replies: dict[str, bytes | Sequence[bytes]] = field(default_factory=dict)
    tls: ssl.SSLContext | None = None
    break_tls: bool = False
    drop: frozenset[str] = frozenset()
    stall: frozenset[str] = frozenset()
    close_after: frozenset[str] = frozenset()
    refuse_after_bytes: int = 0
    early: bytes = b"552 5.3.4 enough\r\n"
    byte_pause_s: float = 0.0
    idle_words: bytes = b""


@dataclass(frozen=True)
class Mail:
    """A message that was accepted.

    Attributes:
        connection: Number of the connection, from 0.
        commands: MAIL and every RCPT, as they came.
        content: Dots removed.
        secure: It came by TLS.
        client_ip: Where it came from.
    """

    connection: int
    commands: tuple[str, ...]
    content: bytes
    secure: bool
    client_ip: str


class FakeMx:
    """The server; ``async with`` starts and stops it.

    Attributes:
        scripts: One per connection, the last for all further ones; may be changed while it runs.
        mail: What was accepted.
        dialogs: Commands of each connection, in order.
        most_open: Most connections open at once.
    """

    def __init__(self, *scripts: Script, ip: str = "127.0.0.1", port: int = 0) -> None:
        self.scripts = list(scripts) or [Script()]
        self.ip = ip
        self.port = port
        self.mail: list[Mail] = []
        self.dialogs: list[list[str]] = []
        self.open = 0
        self.most_open = 0
        self.changed = asyncio.Condition()
        self.gate = asyncio.Event()
        self.gate.set()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, self.ip, self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def wait_for(self, condition: object, *, timeout_s: float = 20.0) -> None:
        """Wait until *condition* (a function of nothing) is true; it is looked at whenever something happens here."""
        assert callable(condition)
        async with asyncio.timeout(timeout_s), self.changed:
            await self.changed.wait_for(condition)

    async def tell(self) -> None:
        """Something happened."""
        async with self.changed:
            self.changed.notify_all()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = len(self.dialogs)
        self.dialogs.append([])
        script = self.scripts[min(number, len(self.scripts) - 1)]
        task = asyncio.ensure_future(self._run(_Dialog(self, number, script, reader, writer)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, dialog: _Dialog) -> None:
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, _Hangup):
                await dialog.run()
        finally:
            self.open -= 1
            dialog.writer.transport.abort()
            await self.tell()


class _Hangup(Exception):
    """The script ends the connection."""


class _Dialog:
    """One connection."""

    def __init__(
        self, mx: FakeMx, number: int, script: Script, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.writer = writer
        self._mx = mx
        self._number = number
        self._script = script
        self._reader = reader
        self._given: defaultdict[str, int] = defaultdict(int)
        self._envelope: list[str] = []
        self._chunks = b""
        self._secure = False

    async def run(self) -> None:
        await self._answer("banner")
        while True:
            line = (await self._reader.readuntil(b"\r\n"))[:-2].decode("utf-8", "replace")
            self._mx.dialogs[self._number].append(line)
            await self._mx.tell()
            await self._obey(line)

    async def _obey(self, line: str) -> None:
        verb = line.split(" ", 1)[0].upper()
        if verb == "BDAT":
            await self._take_chunk(line)
            return
        if verb in ("MAIL", "RSET"):
            self._envelope = []
        if verb in ("MAIL", "RCPT"):
            self._envelope.append(line)
        reply = await self._answer(verb)
        if verb == "DATA" and reply.startswith(b"354"):
            await self._take_data()
        elif verb == "STARTTLS" and reply.startswith(b"220"):
            await self._start_tls()
        elif verb == "QUIT":
            raise _Hangup

    async def _take_data(self) -> None:
        if self._script.refuse_after_bytes:
            await self._reader.readexactly(self._script.refuse_after_bytes)
            if not self._script.early:
                await asyncio.Event().wait()
            await self._send(self._script.early)
            await self._reader.read()
            raise _Hangup
        lines = []
        while (line := await self._reader.readuntil(b"\r\n")) != b".\r\n":
            lines.append(line[1:] if line.startswith(b".") else line)
        await self._finish(b"".join(lines))

    async def _take_chunk(self, line: str) -> None:
        _, size, *last = line.split()
        self._chunks += await self._reader.readexactly(int(size))
        if last:
            content, self._chunks = self._chunks, b""
            await self._finish(content)
        else:
            await self._send(b"250 chunk\r\n")

    async def _finish(self, content: bytes) -> None:
        await self._mx.gate.wait()
        if self._reply_to("content", peek=True).startswith(b"2"):
            peer = self.writer.get_extra_info("peername")[0]
            self._mx.mail.append(Mail(self._number, tuple(self._envelope), content, self._secure, peer))
            await self._mx.tell()
        await self._answer("content")
        if self._script.idle_words:
            await self._send(self._script.idle_words)

    async def _start_tls(self) -> None:
        if self._script.break_tls or self._script.tls is None:
            self.writer.write(b"this is no TLS\r\n" * 10)
            raise _Hangup
        await self.writer.start_tls(self._script.tls)
        self._secure = True

    async def _answer(self, stage: str) -> bytes:
        script = self._script
        if stage in script.drop:
            raise _Hangup
        if stage in script.stall:
            await asyncio.Event().wait()
        reply = self._reply_to(stage)
        await self._send(reply)
        if stage in script.close_after:
            raise _Hangup
        return reply

    def _reply_to(self, stage: str, *, peek: bool = False) -> bytes:
        replies = self._script.replies.get(stage, OK.get(stage, b"502 5.5.1 unknown\r\n"))
        if stage == "EHLO" and stage not in self._script.replies and not self._secure and self._offers_tls:
            replies = OK["EHLO"].replace(b"250-PIPELINING", b"250-STARTTLS\r\n250-PIPELINING")
        if isinstance(replies, bytes):
            return replies
        reply = replies[min(self._given[stage], len(replies) - 1)]
        if not peek:
            self._given[stage] += 1
        return reply

    @property
    def _offers_tls(self) -> bool:
        return self._script.tls is not None or self._script.break_tls

    async def _send(self, data: bytes) -> None:
        pause_s = self._script.byte_pause_s
        size = 1 if pause_s else max(1, len(data))
        for start in range(0, len(data), size):
            self.writer.write(data[start : start + size])
            await self.writer.drain()
            if pause_s:
                await asyncio.sleep(pause_s)
