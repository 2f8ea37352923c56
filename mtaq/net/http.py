"""One HTTP/1.1 request to a server that the operator named, and its response (RFC 9112).

Small on purpose: a connection per request, no redirects, no cookies, no compression, no proxies. Whatever the server
does is bounded in bytes and time; everything that goes wrong is an ``OSError``. What a status means is the caller's
to decide.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urlsplit

from mtaq.net.streams import connected, system_context
from mtaq.version import __version__

_DEFAULT_PORTS = {"http": 80, "https": 443}
_MAX_HEADER_BYTES = 65_536
_MAX_INTERIM_RESPONSES = 10
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2})(?: .*)?")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*?)[ \t]*")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,12})[ \t]*(?:;.*)?")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class BadResponse(OSError):
    """The server's response is not HTTP, or larger than wanted."""


@dataclass(frozen=True)
class Response:
    """
    What the server answered.

    Attributes:
        status: Three digits, 200 or more.
        headers: By lower-case name; of a repeated field the values are joined by ``, ``.
        body: Decoded from chunks; not longer than was allowed.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


async def request(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    timeout_s: float,
    max_response_bytes: int,
    verify: bool | ssl.SSLContext = True,
    address: str | None = None,
) -> Response:
    """
    Send one request and read its response.

    Args:
        url: ``http://`` or ``https://``; a name and password in it become Basic credentials (RFC 7617).
        headers: Beside those that every request has (Host, Content-Length, Connection, User-Agent, Accept-Encoding).
        timeout_s: For all of it.
        max_response_bytes: Longest body taken.
        verify: Whether the certificate must be valid for the host; or a context that says so.
        address: IP address to connect to instead of looking up the host.

    Raises:
        OSError: No connection, no valid certificate, no response in time, or one that is not HTTP or too large.
        ValueError: *url* or *headers* cannot be sent.
    """
    parts = urlsplit(url)
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        raise ValueError("expected a URL like https://host/path")
    message = _head(method, parts, headers or {}, len(body)) + body
    port = parts.port or _DEFAULT_PORTS[parts.scheme]
    tls = _tls(parts, verify)
    async with connected(parts.hostname, port, tls=tls, timeout_s=timeout_s, address=address) as (reader, writer):
        writer.write(message)
        with contextlib.suppress(ConnectionError):  # a server may answer and close before it has read everything
            await writer.drain()
        return await read_response(reader, method=method, max_bytes=max_response_bytes)


def _tls(parts: SplitResult, verify: bool | ssl.SSLContext) -> bool | ssl.SSLContext:
    if parts.scheme == "http":
        return False
    return system_context(verified=False) if verify is False else verify


def _head(method: str, parts: SplitResult, headers: Mapping[str, str], body_bytes: int) -> bytes:
    fields = {
        "Host": parts.netloc.rpartition("@")[2],
        "User-Agent": f"mtaq/{__version__}",
        "Accept-Encoding": "identity",
        "Connection": "close",
    }
    if parts.username is not None:
        fields["Authorization"] = basic(unquote(parts.username), unquote(parts.password or ""))
    if body_bytes or method not in ("GET", "HEAD"):
        fields["Content-Length"] = str(body_bytes)
    fields |= headers
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not all(_TOKEN.fullmatch(name) and _is_value(value) for name, value in fields.items()):
        raise ValueError("a header field that cannot be sent")
    if not _TOKEN.fullmatch(method) or not re.fullmatch(r"[!-~]+", target):
        raise ValueError("a method or URL that cannot be sent")
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def basic(user: str, password: str) -> str:
    """Return the value of Authorization for Basic credentials, in UTF-8 (RFC 7617 §2.1)."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def _is_value(text: str) -> bool:
    return re.fullmatch(r"[\t -~\x80-\xff]*", text) is not None


async def read_response(reader: asyncio.StreamReader, *, method: str, max_bytes: int) -> Response:
    """
    Read one response to *method*, interim ones before it skipped (RFC 9112 §6.3, RFC 9110 §15.2).

    Raises:
        BadResponse: Not HTTP, cut off, or a body of more than *max_bytes*.
        OSError: The connection broke.
    """
    try:
        for _ in range(_MAX_INTERIM_RESPONSES):
            status, headers = await _read_head(reader)
            if status >= 200:
                return Response(status, headers, await _read_body(reader, method, status, headers, max_bytes))
            if status == 101:
                raise BadResponse("the server wants another protocol")
    except asyncio.IncompleteReadError:
        raise BadResponse("the response ends too early") from None
    except asyncio.LimitOverrunError:
        raise BadResponse("a line of the response is too long") from None
    raise BadResponse("too many interim responses")


async def _read_head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    line = await _line(reader)
    status = _STATUS_LINE.fullmatch(line)
    if status is None:
        raise BadResponse("not a response in HTTP/1.1")
    headers: dict[str, str] = {}
    size_bytes = 0
    while line := await _line(reader):
        size_bytes += len(line)
        field = _FIELD.fullmatch(line)
        if field is None or size_bytes > _MAX_HEADER_BYTES:
            raise BadResponse("a header section that is malformed or too large")
        name, value = field[1].decode().lower(), field[2].decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return int(status[1]), headers


async def _read_body(
    reader: asyncio.StreamReader, method: str, status: int, headers: Mapping[str, str], max_bytes: int
) -> bytes:
    if method == "HEAD" or status in (204, 304):
        return b""
    if "transfer-encoding" in headers:
        if headers["transfer-encoding"].lower() != "chunked" or "content-length" in headers:
            raise BadResponse("a transfer coding that is not understood")
        return await _read_chunks(reader, max_bytes)
    if "content-length" in headers:
        return await reader.readexactly(_length(headers["content-length"], max_bytes))
    return await _read_to_end(reader, max_bytes)


def _length(text: str, max_bytes: int) -> int:
    values = {value.strip() for value in text.split(",")}  # the same value repeated is allowed, RFC 9112 §6.3
    value = values.pop()
    if values or not re.fullmatch("[0-9]{1,15}", value):
        raise BadResponse("a Content-Length that is no length")
    if int(value) > max_bytes:
        raise BadResponse(f"a response of more than {max_bytes} bytes")
    return int(value)


async def _read_chunks(reader: asyncio.StreamReader, max_bytes: int) -> bytes:
    body = bytearray()
    while True:
        size = _CHUNK_SIZE.fullmatch(await _line(reader))
        if size is None:
            raise BadResponse("a chunk without its size")
        length = int(size[1], 16)
        if len(body) + length > max_bytes:
            raise BadResponse(f"a response of more than {max_bytes} bytes")
        if length == 0:
            return bytes(body)  # trailer fields are of no interest, and the connection is not used again
        body += await reader.readexactly(length)
        if await _line(reader):
            raise BadResponse("a chunk longer than its size")


async def _read_to_end(reader: asyncio.StreamReader, max_bytes: int) -> bytes:
    body = bytearray()
    while piece := await reader.read(65_536):
        body += piece
        if len(body) > max_bytes:
            raise BadResponse(f"a response of more than {max_bytes} bytes")
    return bytes(body)


async def _line(reader: asyncio.StreamReader) -> bytes:
    """Return the next line without its end; a lone LF ends one as well (RFC 9112 §2.2)."""
    return (await reader.readuntil(b"\n")).removesuffix(b"\n").removesuffix(b"\r")
