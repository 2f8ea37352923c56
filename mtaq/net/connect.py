"""One TCP connection to a peer, opened from a chosen source address: the streams that delivery works with.

Fits ``deliver.ports.Connect`` and ``deliver.ports.Stream``; runs on asyncio's own loop and on uvloop. Bounded both
ways: a peer that sends faster than it is read is held back, and ``drain`` waits while a peer does not take what was
written. Sets no timeouts (the caller bounds every wait by cancelling it) and raises ``OSError`` only.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import socket
import ssl
from typing import Any, cast

from mtaq.deliver.ports import SourceUnusable

#: Bytes handed out by one read, and bytes held unread before the peer is made to wait.
READ_LIMIT = 65_536
#: Bytes held unsent before ``drain`` waits.
WRITE_LIMIT = 65_536
#: A handshake is bounded by the caller; this only keeps the loop's own, shorter limit out of the way.
_HANDSHAKE_TIMEOUT_S = 3_600.0
#: ``linux/in.h``; Python 3.11 has no name for it.
_IP_BIND_ADDRESS_NO_PORT = 24


class TcpStream(asyncio.Protocol):
    """An open connection; see ``deliver.ports.Stream``."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._reading_paused = False
        self._writing_paused = False
        self._ended = False
        self._lost: OSError | None = None
        self._arrival: asyncio.Future[None] | None = None
        self._writers: list[asyncio.Future[None]] = []
        self._local_ip = self._remote_ip = ""

    @property
    def local_ip(self) -> str:
        """Our address."""
        return self._local_ip

    @property
    def remote_ip(self) -> str:
        """The peer's address."""
        return self._remote_ip

    @property
    def tls(self) -> ssl.SSLObject | None:
        """The TLS session, or ``None`` in clear."""
        if self._transport is None:
            return None
        return cast("ssl.SSLObject | None", self._transport.get_extra_info("ssl_object"))

    async def read(self, until: float | None = None) -> bytes:
        """
        Return what arrived next, at most 64 KB; empty at the end of the stream. One reader at a time.

        Args:
            until: The loop's time at which to give up. Cheaper than cancelling from outside, which works as well.

        Raises:
            TimeoutError: Nothing arrived until then.
            OSError: The connection broke; what arrived before that was returned first.
        """
        while not self._buffer:
            if self._lost is not None:
                raise self._lost
            if self._ended:
                return b""
            arrival = self.arrival()
            timer = None if until is None else arrival.get_loop().call_at(until, _give_up, arrival)
            try:
                await arrival
            finally:
                if timer is not None:
                    timer.cancel()
        data = bytes(self._buffer[:READ_LIMIT])
        del self._buffer[:READ_LIMIT]
        if self._reading_paused and len(self._buffer) < READ_LIMIT and self._transport is not None:
            self._reading_paused = False
            self._transport.resume_reading()
        return data

    def arrival(self) -> asyncio.Future[None]:
        """Return what is done as soon as ``read`` would not wait; or never, when a reader has given up."""
        if self._arrival is None or self._arrival.done():
            self._arrival = asyncio.get_running_loop().create_future()
            if self._buffer or self._ended or self._lost is not None:
                self._arrival.set_result(None)
        return self._arrival

    def write(self, data: bytes) -> None:
        """Queue *data* for sending. On a broken connection it is lost; ``drain`` and ``read`` say so."""
        if self._transport is not None and self._lost is None:
            self._transport.write(data)

    async def drain(self) -> None:
        """
        Wait until less than 64 KB are unsent.

        Raises:
            OSError: The connection broke.
        """
        while self._writing_paused and self._lost is None:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._writers.append(waiter)
            try:
                await waiter
            finally:
                self._writers.remove(waiter)
        if self._lost is not None:
            raise self._lost

    async def start_tls(self, context: ssl.SSLContext, server_name: str) -> None:
        """
        Shake hands as a client.

        Args:
            server_name: For SNI, and what the certificate must name when *context* checks that.

        Raises:
            OSError: The handshake failed, or bytes in clear followed the reply to STARTTLS (RFC 3207 §4.2): an
                attacker may have put them there. The connection is aborted.
        """
        try:
            await self._start_tls(context, server_name)
        except BaseException:
            self.abort()
            raise

    async def _start_tls(self, context: ssl.SSLContext, server_name: str) -> None:
        if self._lost is not None:
            raise self._lost
        if self._buffer:
            raise ConnectionAbortedError(errno.ECONNABORTED, "the peer sent bytes in clear after its reply to STARTTLS")
        if self._transport is None or self._ended:
            raise ConnectionResetError(errno.ECONNRESET, "the peer closed instead of a TLS handshake")
        try:
            transport = await asyncio.get_running_loop().start_tls(
                self._transport,
                self,
                context,
                server_hostname=server_name,
                ssl_handshake_timeout=_HANDSHAKE_TIMEOUT_S,
            )
        except OSError:
            raise
        except Exception as error:  # the loops raise ValueError for a bad name and RuntimeError for a closed transport
            raise OSError(errno.EPROTO, f"TLS handshake: {error}") from error
        if transport is None:
            raise ConnectionResetError(errno.ECONNRESET, "the peer closed during the TLS handshake")
        self._transport = transport
        transport.set_write_buffer_limits(high=WRITE_LIMIT)

    def abort(self) -> None:
        """Close now, without waiting. Never fails; may be called twice."""
        if self._lost is None:
            self._lost = ConnectionAbortedError(errno.ECONNABORTED, "closed on this side")
            self._wake_all()
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=WRITE_LIMIT)
        self._local_ip = _ip_of(transport.get_extra_info("sockname"))
        self._remote_ip = _ip_of(transport.get_extra_info("peername"))

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        self._buffer += data
        if len(self._buffer) >= READ_LIMIT and not self._reading_paused and self._transport is not None:
            self._reading_paused = True
            self._transport.pause_reading()
        self._wake_reader()

    def eof_received(self) -> bool:
        """Called by the loop. Half-closed connections are of no use to SMTP: what is unsent goes out, and it closes."""
        self._ended = True
        self._wake_reader()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        if self._lost is None and not (self._ended and exc is None):
            self._lost = exc if isinstance(exc, OSError) else ConnectionResetError(errno.ECONNRESET, _reason(exc))
        elif self._lost is None and self._writing_paused:
            self._lost = ConnectionResetError(errno.ECONNRESET, "the peer closed before everything was sent")
        self._ended = True
        self._wake_all()

    def pause_writing(self) -> None:
        """Called by the loop."""
        self._writing_paused = True

    def resume_writing(self) -> None:
        """Called by the loop."""
        self._writing_paused = False
        self._wake_writers()

    def _wake_all(self) -> None:
        self._wake_reader()
        self._wake_writers()

    def _wake_reader(self) -> None:
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)

    def _wake_writers(self) -> None:
        for waiter in self._writers:
            if not waiter.done():
                waiter.set_result(None)


async def connect(address: str, port: int, *, source: str | None = None) -> TcpStream:
    """
    Connect to *address* (an IP address), from *source* or from where the kernel chooses.

    The caller bounds the time.

    Raises:
        SourceUnusable: *source* cannot be bound here.
        OSError: Refused, unreachable, reset; or *source* is of the other family.
    """
    loop = asyncio.get_running_loop()
    sock = _prepared_socket(address, source)
    try:
        await loop.sock_connect(sock, (address, port))
        _, stream = await loop.create_connection(TcpStream, sock=sock)
    except BaseException:
        sock.close()
        raise
    return stream


def _prepared_socket(address: str, source: str | None) -> socket.socket:
    family = _family(address)
    if source is not None and _family(source) != family:
        raise OSError(errno.EAFNOSUPPORT, f"no way from {source} to {address}: other address family")
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if source is not None:
            _bind(sock, source)
    except BaseException:
        sock.close()
        raise
    return sock


def _bind(sock: socket.socket, source: str) -> None:
    with contextlib.suppress(OSError):  # a kernel before 4.2, or not Linux
        # Let the port be chosen at connect: it must then be free for this destination only, so that one source address
        # is not limited to some 28,000 connections in all.
        sock.setsockopt(socket.SOL_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
    try:
        sock.bind((source, 0))
    except OSError as error:
        raise SourceUnusable(error.errno, f"cannot send from {source}: {error.strerror}") from error


def _family(ip: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in ip else socket.AF_INET


def _give_up(arrival: asyncio.Future[None]) -> None:
    if not arrival.done():
        arrival.set_exception(TimeoutError())


def _ip_of(name: Any) -> str:
    """Return the IP address of a socket name; empty when the peer was gone before it could be asked for."""
    if not name:
        return ""
    ip = ipaddress.ip_address(name[0])
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return str(mapped or ip)


def _reason(error: Exception | None) -> str:
    return "connection lost" if error is None else str(error)
