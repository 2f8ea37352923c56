"""Reads a PROXY header off a socket that nobody else reads yet.

Takes the header's bytes and not one more: a ClientHello or a command that came in the same segment stays in the kernel,
for whoever speaks TLS or SMTP next. Decides nothing but when it has waited enough.
"""

from __future__ import annotations

import asyncio
import socket

from mtaq.receive.proxy import MAX_BYTES, HeaderParser, MalformedHeader, ProxyHeader


async def read_header(client: socket.socket, *, timeout_s: float) -> ProxyHeader:
    """
    Read the header that *client*, non-blocking, begins with.

    Args:
        timeout_s: Longest wait for all of it.

    Raises:
        MalformedHeader: It sends something else, or closes within the header.
        TimeoutError: The header is not there in time.
        OSError: The connection broke.
    """
    loop, parser = asyncio.get_running_loop(), HeaderParser()
    async with asyncio.timeout(timeout_s):
        while parser.header is None:
            seen = await _peek(loop, client)
            if not seen:
                raise MalformedHeader("closed within the header" if parser.begun else "closed without a header")
            # Also a part of a header is taken: left there, it would keep the socket readable.
            client.recv(parser.feed(seen))
    return parser.header


async def _peek(loop: asyncio.AbstractEventLoop, client: socket.socket) -> bytes:
    while True:
        try:
            return client.recv(MAX_BYTES, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            await _wait_readable(loop, client)


async def _wait_readable(loop: asyncio.AbstractEventLoop, client: socket.socket) -> None:
    readable: asyncio.Future[None] = loop.create_future()
    loop.add_reader(client.fileno(), _tell, readable)
    try:
        await readable
    finally:
        loop.remove_reader(client.fileno())


def _tell(readable: asyncio.Future[None]) -> None:
    if not readable.done():  # the loop says it again until somebody has read
        readable.set_result(None)
