"""Connections to servers that the operator named: a TCP or TLS stream, and a question and its answer over UDP.

For back ends of logins and hooks; mail goes through ``mtaq.net.connect``. Names are looked up by the system, so
``/etc/hosts`` counts. Every wait is bounded by the caller's ``timeout_s``; failures are ``OSError`` (``TimeoutError``
is one), whatever the library below raised.
"""

from __future__ import annotations

import asyncio
import errno
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache
from typing import Any, cast

from mtaq.model.errors import ConfigError
from mtaq.net.tls import client_context

#: Longest line, and bytes held unread before the peer is made to wait.
READ_LIMIT = 65_536
#: Replies that were not the one waited for, beyond which somebody is flooding us.
_STRAY_DATAGRAMS = 100


@asynccontextmanager
async def connected(
    host: str, port: int, *, tls: bool | ssl.SSLContext, timeout_s: float, address: str | None = None
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """
    Connect, hand out reader and writer, and close when the block ends.

    Args:
        host: Name or IP address; with TLS the certificate must name it.
        tls: ``True`` verifies against the system's authorities; a context does what it says; ``False`` is in clear.
        timeout_s: For all of it: look-up, connection, handshake and the block.
        address: IP address to connect to instead of looking up *host*.

    Raises:
        OSError: No connection, no valid certificate, or the block took too long.
    """
    async with asyncio.timeout(timeout_s):
        reader, writer = await _open(host, port, await _context_of(tls), address or host)
        try:
            yield reader, writer
        finally:
            writer.transport.abort()  # closing politely would wait for the peer once more


async def _open(
    host: str, port: int, context: ssl.SSLContext | None, address: str
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    try:
        name = host if context is not None else None
        return await asyncio.open_connection(address, port, ssl=context, server_hostname=name, limit=READ_LIMIT)
    except ValueError as error:
        raise _no_name(host, error) from error


def _no_name(host: str, error: ValueError) -> OSError:
    """Return what a failed certificate was already (it is both), and what to say of a text that is no host's name."""
    return error if isinstance(error, OSError) else OSError(errno.EINVAL, f"{host!r} is not the name of a host")


async def _context_of(tls: bool | ssl.SSLContext) -> ssl.SSLContext | None:
    if tls is True:
        return await asyncio.to_thread(system_context, verified=True)
    return tls or None


@cache
def system_context(*, verified: bool) -> ssl.SSLContext:
    """
    Return the context that trusts whom the system trusts (``SSL_CERT_FILE`` counts), or everybody; made once.

    Raises:
        OSError: The authorities cannot be read.
    """
    try:
        return client_context(verified=verified)
    except ConfigError as error:
        raise OSError(errno.EIO, error.problem) from error


async def exchange(
    host: str,
    port: int,
    datagram: bytes,
    *,
    is_answer: Callable[[bytes], bool],
    again_after_s: float,
    timeout_s: float,
) -> bytes:
    """
    Send *datagram* over UDP, again and again, until an answer comes.

    Args:
        is_answer: Is this the answer? What it says no to is dropped: anybody can send it.
        again_after_s: How long to wait before the datagram is repeated.

    Raises:
        OSError: Nobody listens there, or no answer came in time.
    """
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(timeout_s):
        try:
            transport, protocol = await loop.create_datagram_endpoint(_Datagrams, remote_addr=(host, port))
        except ValueError as error:
            raise _no_name(host, error) from error
        try:
            while True:
                transport.sendto(datagram)
                answer = await _first(protocol, is_answer, again_after_s)
                if answer is not None:
                    return answer
        finally:
            transport.abort()


async def _first(protocol: _Datagrams, is_answer: Callable[[bytes], bool], wait_s: float) -> bytes | None:
    try:
        async with asyncio.timeout(wait_s):
            while True:
                arrived = await protocol.arrived.get()
                if isinstance(arrived, OSError):
                    raise arrived
                if is_answer(arrived):
                    return arrived
    except TimeoutError:
        return None


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.arrived: asyncio.Queue[bytes | OSError] = asyncio.Queue(_STRAY_DATAGRAMS)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Called by the loop; of a flood, what does not fit is lost as UDP loses things."""
        self._put(data)

    def error_received(self, exc: Exception) -> None:
        """Called by the loop when the host says that nobody listens."""
        self._put(cast(OSError, exc))

    def _put(self, item: bytes | OSError) -> None:
        if not self.arrived.full():
            self.arrived.put_nowait(item)
