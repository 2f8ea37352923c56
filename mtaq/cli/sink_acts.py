"""The wire of a scripted session, and misbehaviour on it: octets that are no SMTP, slow ones, silence, a sudden end.

An act ends the session (``Over``). Every wait is bounded, by this module or by whoever reads.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import struct

from mtaq.cli.sink_connection import HANDSHAKE_TIMEOUT_S
from mtaq.model.message import TlsFacts
from mtaq.net.tls import tls_facts

READ_BYTES = 65_536
#: Longest silence kept, and longest time that an endless reply goes on: longer than any client should wait.
PATIENCE_S = 3600.0
#: Longest time that the last octets of a session may take.
CLOSING_S = 5.0
LINES = 10_000

_CODES = {"connect": b"220", "starttls": b"220", "auth": b"235", "data": b"354", "quit": b"221"}
_CHUNK = 1000
_ESTABLISHED = 1  # TCP_ESTABLISHED of Linux's netinet/tcp.h
#: How often a connection that is not read is looked at.
LOOK_S = 0.1


class Over(Exception):
    """The session has ended, in a way that the log calls ``how``."""

    def __init__(self, how: str, *, abort: bool = False) -> None:
        super().__init__(how)
        self.how = how
        self.abort = abort


class Wire:
    """A connection: what came and was not yet taken, and what is said and not yet sent.

    Attributes:
        held: The former.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.held = bytearray()
        self.reader = reader
        self.writer = writer
        self._said: list[bytes] = []

    def take(self, size: int) -> bytes:
        """Take so many octets of what is held."""
        taken = bytes(self.held[:size])
        del self.held[:size]
        return taken

    async def read(self) -> bytes:
        """Return what comes next; nothing at the end."""
        return await self.reader.read(READ_BYTES)

    async def read_slowly(self, bytes_per_s: int) -> bytes:
        """Return a little of what comes next, and not before its time."""
        data = await self.reader.read(max(1, bytes_per_s // 10))
        await asyncio.sleep(len(data) / bytes_per_s)
        return data

    def say(self, octets: bytes) -> None:
        """Let *octets* be sent with the next ``flush``."""
        self._said.append(octets)

    async def flush(self, *, pause_s: float = 0.0) -> None:
        """Send what was said, with a pause behind each octet or in one write (RFC 2920 §3.2)."""
        octets = b"".join(self._said)
        self._said.clear()
        if pause_s:
            for octet in octets:
                self.writer.write(bytes((octet,)))
                await asyncio.sleep(pause_s)
        elif octets:
            self.writer.write(octets)
            await self.writer.drain()

    def pause_reading(self) -> None:
        """Leave with the kernel what comes from now on, until TLS begins."""
        self.writer.transport.pause_reading()  # type: ignore[attr-defined]  # typed as a write transport
        self.held.clear()

    async def start_tls(self, context: ssl.SSLContext) -> None:
        """
        Shake hands, as the server.

        Raises:
            OSError: That failed.
        """
        await self.writer.start_tls(context, ssl_handshake_timeout=HANDSHAKE_TIMEOUT_S)

    @property
    def tls(self) -> TlsFacts | None:
        """What was agreed on; ``None`` in clear."""
        ssl_object = self.writer.get_extra_info("ssl_object")
        return tls_facts(ssl_object) if ssl_object is not None else None

    async def act(self, act: str, stage: str) -> None:
        """
        Do *act* (``Fault.act``) at *stage*.

        Raises:
            Over: Always.
            OSError: The client closed meanwhile.
        """
        if act == "drop":
            raise Over(act, abort=True)
        if act == "reset":
            self._linger_no_more()
            raise Over(act, abort=True)
        if act == "stall" and stage == "content":
            await self._read_no_more()
        if act in ("endless", "line"):
            await self._talk(act, _CODES.get(stage, b"250"))
        self.writer.write(_garbage(act, _CODES.get(stage, b"250")))
        await self.stall()

    async def stall(self) -> None:
        """Say nothing, and look at nothing, until the client closes."""
        with contextlib.suppress(RuntimeError):  # it was not paused
            self.writer.transport.resume_reading()  # type: ignore[attr-defined]  # typed as a write transport
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                while await self.read():
                    pass
        raise Over("stall", abort=True)

    async def close(self, *, abort: bool) -> None:
        """Close, at once or when everything is sent; not later than after some seconds."""
        if not abort:
            self.writer.close()
            with contextlib.suppress(OSError):
                async with asyncio.timeout(CLOSING_S):
                    await self.writer.wait_closed()
        self.writer.transport.abort()

    async def _talk(self, act: str, code: bytes) -> None:
        piece = b"and so on " * (_CHUNK // 10)
        if act == "endless":
            piece = code + b"-" + piece + b"\r\n"
        else:
            self.writer.write(code + b" ")
        async with asyncio.timeout(PATIENCE_S):
            while not self.reader.at_eof():
                self.writer.write(piece)
                await self.writer.drain()
                await asyncio.sleep(0.001)  # for others, also when the client reads quickly
        raise Over("client")

    async def _read_no_more(self) -> None:
        """Leave everything unread until the client closes; behind what is unread, nobody sees that it did."""
        self.writer.transport.pause_reading()  # type: ignore[attr-defined]  # typed as a write transport
        end = asyncio.get_running_loop().time() + PATIENCE_S
        with self._socket() as sock:
            while sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _ESTABLISHED:
                await asyncio.sleep(LOOK_S)
                if asyncio.get_running_loop().time() > end:
                    break
        raise Over("stall", abort=True)

    def _linger_no_more(self) -> None:
        """Let the end of the connection be a RST."""
        with self._socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _socket(self) -> socket.socket:
        """Return the connection's socket once more: loops do not show theirs with everything it can."""
        return socket.socket(fileno=os.dup(self.writer.get_extra_info("socket").fileno()))


def _garbage(act: str, code: bytes) -> bytes:
    if act == "noise":
        return bytes(range(256)) * 4 + b"\r\n"
    if act == "nul":
        return b"\0" * _CHUNK + b"\r\n"
    if act == "lines":
        return (code + b"-one of many\r\n") * LINES + code + b" the last\r\n"
    return code + b" 2.0.0 this is in clear\r\n" if act == "plaintext" else b""
