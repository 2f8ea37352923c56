"""One question to one name server: a datagram, and TCP when the answer does not fit into one.

EDNS with 1,232 octets, so that no answer is fragmented. Every datagram has a port and an id of its own, and the kernel
lets only the server asked answer it; what has another id, another question or cannot be read is ignored as if it had
not come. What is cheap to send must not be dear to read: answers of very many records are refused unread, and what is
larger than a datagram is read in a thread, one at a time. Sets no time-outs: who asks bounds the wait.
"""

from __future__ import annotations

import asyncio
import socket  # names of its kinds only; dnspython opens them
import struct
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dns.asyncbackend
import dns.exception
import dns.flags
import dns.inet
import dns.message

from mtaq.telemetry.metrics import counter

#: Largest UDP answer asked for: what passes everywhere without fragments (DNS flag day 2020).
EDNS_PAYLOAD = 1232
#: Records in all sections of one answer. Each costs a tenth of a millisecond, and far more with long names.
MAX_RECORDS = 500

TRUNCATED = counter("mtaq_dns_truncated", "Answers that did not fit into a datagram and were asked for over TCP.")

_HEADER = struct.Struct("!HHHHHH")
_READER = ThreadPoolExecutor(1, "dns-reader")
_BACKEND = dns.asyncbackend.get_backend("asyncio")


class UnusableAnswer(Exception):
    """The server itself sent something that is no answer to the question."""


async def exchange(
    query: dns.message.QueryMessage, server: tuple[str, int], *, wait_for_restart: bool
) -> dns.message.QueryMessage:
    """
    Send *query* to *server* and return its response, whatever that says.

    Args:
        wait_for_restart: When nobody listens there, wait all the same: a server that restarts hears the next one.

    Raises:
        UnusableAnswer: It answered nonsense over TCP, or far too much.
        OSError: It cannot be reached, or ended the connection.
    """
    wire = query.to_wire()
    response = await _by_datagram(query, wire, server, wait_for_restart)
    if response is None:
        TRUNCATED.inc()
        data = await _by_tcp(wire, server)
        response = await _read(data, query) if _is_for(data, query) else None
    if response is None:
        raise UnusableAnswer(f"nonsense from {server[0]}")
    return response


async def _by_datagram(
    query: dns.message.QueryMessage, wire: bytes, server: tuple[str, int], wait_for_restart: bool
) -> dns.message.QueryMessage | None:
    """Return the answer, or ``None`` when it was truncated."""
    async with await _connected(socket.SOCK_DGRAM, server) as stream:
        await stream.sendto(wire, None, None)
        while True:
            try:
                data, _ = await stream.recvfrom(65_535, None)
            except ConnectionRefusedError:
                if not wait_for_restart:
                    raise
                continue
            if not _is_for(data, query):
                continue
            if _is_truncated(data, query):
                return None
            response = await _read(data, query)
            if response is not None:
                return response


async def _by_tcp(wire: bytes, server: tuple[str, int]) -> bytes:
    async with await _connected(socket.SOCK_STREAM, server) as stream:
        await stream.sendall(len(wire).to_bytes(2, "big") + wire, None)
        size = int.from_bytes(await _read_exactly(stream.recv, 2), "big")
        return await _read_exactly(stream.recv, size)


async def _connected(kind: int, server: tuple[str, int]) -> Any:
    """Return dnspython's socket, whose peer can be nobody but *server*."""
    family = dns.inet.af_for_address(server[0])
    return await _BACKEND.make_socket(family, kind, 0, None, server)  # type: ignore[no-untyped-call]  # has no types


async def _read_exactly(receive: Callable[[int, float | None], Awaitable[bytes]], size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        chunk = await receive(size - len(data), None)
        if not chunk:
            raise ConnectionResetError("connection ended within an answer")
        data += chunk
    return bytes(data)


def _is_for(data: bytes, query: dns.message.QueryMessage) -> bool:
    """Is this a response with the id of *query* and one question? Looked at before anything else is read."""
    if len(data) < _HEADER.size:
        return False
    id_, flags, questions, *_ = _HEADER.unpack_from(data)
    return id_ == query.id and bool(flags & dns.flags.QR) and questions == 1


def _is_truncated(data: bytes, query: dns.message.QueryMessage) -> bool:
    return bool(_HEADER.unpack_from(data)[1] & dns.flags.TC) and _parse(data, query, question_only=True) is not None


async def _read(data: bytes, query: dns.message.QueryMessage) -> dns.message.QueryMessage | None:
    """
    Return the response in *data*, or ``None`` when it cannot be read or answers another question.

    Raises:
        UnusableAnswer: It has too many records to be read here.
    """
    if sum(_HEADER.unpack_from(data)[3:]) > MAX_RECORDS:
        if _parse(data, query, question_only=True) is not None:
            raise UnusableAnswer("too many records")
        return None
    if len(data) <= EDNS_PAYLOAD:
        return _parse(data, query)
    return await asyncio.get_running_loop().run_in_executor(_READER, _parse, data, query)


def _parse(
    data: bytes, query: dns.message.QueryMessage, question_only: bool = False
) -> dns.message.QueryMessage | None:
    try:
        response = dns.message.from_wire(data, question_only=question_only)
    except (dns.exception.DNSException, ValueError):
        return None
    return response if isinstance(response, dns.message.QueryMessage) and query.is_response(response) else None
