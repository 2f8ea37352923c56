"""Responses of HTTP, right ones and hostile ones."""

from __future__ import annotations

import asyncio

import pytest

from mtaq.net.http import BadResponse, Response, basic, read_response

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


async def read(data: bytes, *, method: str = "GET", max_bytes: int = 100, bytewise: bool = False) -> Response:
    """Read a response that arrives whole, or byte by byte."""
    reader = asyncio.StreamReader()
    reading = asyncio.create_task(read_response(reader, method=method, max_bytes=max_bytes))
    for piece in (data[n : n + 1] for n in range(len(data))) if bytewise else [data]:
        reader.feed_data(piece)
        await asyncio.sleep(0)
    reader.feed_eof()
    return await reading


@pytest.mark.parametrize("bytewise", [False, True])
@pytest.mark.parametrize(
    ("data", "status", "body"),
    [
        (OK + b"Content-Length: 5\r\n\r\nhello", 200, b"hello"),
        (OK + b"Content-Length: 5, 5\r\n\r\nhello", 200, b"hello"),
        (OK + b"content-length:\t5 \r\nContent-Length: 5\r\n\r\nhello and more", 200, b"hello"),
        (OK + b"\r\nto the end", 200, b"to the end"),
        (CHUNKED + b"5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nTrailer: x\r\n\r\n", 200, b"hello world"),
        (b"HTTP/1.0 204 No Content\r\n\r\n", 204, b""),
        (b"HTTP/1.1 304\r\nContent-Length: 5\r\n\r\n", 304, b""),
        (b"HTTP/1.1 401 No\nContent-Length: 0\n\n", 401, b""),
        (b"HTTP/1.1 100 Go\r\n\r\nHTTP/1.1 103 Hints\r\nA: b\r\n\r\n" + OK + b"Content-Length: 0\r\n\r\n", 200, b""),
    ],
)  # fmt: skip
async def test_responses(data, status, body, bytewise):
    """However a body is delimited and the response arrives, it is read right."""
    response = await read(data, bytewise=bytewise)
    assert (response.status, response.body) == (status, body)


async def test_header_fields():
    """Names are in lower case, values without blanks around; those of a repeated field are joined."""
    response = await read(
        OK + b"X-A: 1 \r\nx-a:2\r\nX-\xc3: ok\r\n".replace(b"X-\xc3", b"X-B") + b"Content-Length: 0\r\n\r\n"
    )
    assert response.headers == {"x-a": "1, 2", "x-b": "ok", "content-length": "0"}


async def test_head_has_no_body():
    """The response to HEAD has no body, whatever its length says."""
    assert (await read(OK + b"Content-Length: 5\r\n\r\n", method="HEAD")).body == b""


@pytest.mark.parametrize("bytewise", [False, True])
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"HTTP/1.1",
        b"HTTP/1.1 200 OK\r\nConte",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 20\r\n\r\n",
        b"HTTP/1.1 099 x\r\n\r\n",
        b"HTTP/1.1 2000 x\r\n\r\n",
        b"220 mail.example ESMTP\r\n",
        b"\r\n" + OK + b"\r\n",
        b"HTTP/1.1 101 Switch\r\n\r\n",
        OK + b"no colon\r\n\r\n",
        OK + b"a b: c\r\n\r\n",
        OK + b": c\r\n\r\n",
        OK + b"A: b\r\n folded\r\n\r\n",
        OK + b"Content-Length: 5\r\n\r\nhell",
        OK + b"Content-Length: -1\r\n\r\n",
        OK + b"Content-Length: 5, 6\r\n\r\nhello",
        OK + b"Content-Length: +5\r\n\r\nhello",
        OK + b"Content-Length: 5x\r\n\r\nhello",
        OK + b"Content-Length:\r\n\r\n",
        OK + b"Content-Length: 101\r\n\r\n",
        OK + b"Content-Length: 99999999999999999999\r\n\r\n",
        OK + b"\r\n" + b"x" * 101,
        OK + b"Transfer-Encoding: gzip\r\n\r\n",
        OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        CHUNKED + b"5\r\nhello",
        CHUNKED + b"5\r\nhello!\r\n0\r\n\r\n",
        CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n",
        CHUNKED + b"\r\n",
        CHUNKED + b"65\r\n" + b"x" * 101 + b"\r\n0\r\n\r\n",
        CHUNKED + b"20\r\n" + b"x" * 32 + b"\r\n" + b"50\r\n" + b"x" * 80 + b"\r\n0\r\n\r\n",
        CHUNKED + b"ffffffffffffff\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 11,
    ],
)
async def test_bad_responses(data, bytewise):
    """What is not HTTP, contradicts itself, ends early or is too large is a ``BadResponse``, and nothing else."""
    with pytest.raises(BadResponse):
        await read(data, bytewise=bytewise)


@pytest.mark.parametrize("data", [b"x" * 200_000, OK + b"A: " + b"x" * 200_000, OK + b"A: b\r\n" * 20_000])
async def test_endless_headers(data):
    """A line or a header section without an end is not taken into memory."""
    with pytest.raises(BadResponse):
        await read(data)


def test_basic_credentials():
    """The example of RFC 7617 §2.1, and its second one in UTF-8."""
    assert basic("Aladdin", "open sesame") == "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
    assert basic("test", "123£") == "Basic dGVzdDoxMjPCow=="
