"""Connections to servers that the operator named, on both event loops."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import trustme
import uvloop

from mtaq.net.http import BadResponse, request
from mtaq.net.streams import connected, exchange
from tests.support.login_servers import free_port


def on_both_loops(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Make a test of a coroutine function that runs on asyncio's own loop and on uvloop."""

    @functools.wraps(test)
    def run_it(*args: Any, run: Callable[[Any], None], **kwargs: Any) -> None:
        run(test(*args, **kwargs))

    signature = inspect.signature(test)
    run = inspect.Parameter("run", inspect.Parameter.KEYWORD_ONLY)
    run_it.__signature__ = signature.replace(  # type: ignore[attr-defined]  # where pytest looks for arguments
        parameters=[*signature.parameters.values(), run]
    )
    return pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])(run_it)


@contextlib.asynccontextmanager
async def server(serve: Any, **options: Any) -> AsyncIterator[int]:
    """Run a server and yield its port."""
    listening = await asyncio.start_server(serve, "127.0.0.1", 0, **options)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        listening.close()


async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say nothing until the client goes."""
    with contextlib.suppress(OSError):
        await reader.read()
    writer.close()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say the first line again."""
    writer.write(await reader.readline())
    writer.close()


class TestConnected:
    """TCP and TLS."""

    @on_both_loops
    async def test_in_clear(self) -> None:
        """What is written arrives, and so does what comes back."""
        async with server(echo) as port, connected("localhost", port, tls=False, timeout_s=10) as (reader, writer):
            writer.write(b"hello\n")
            assert await reader.read() == b"hello\n"

    @on_both_loops
    async def test_tls_is_verified(self) -> None:
        """The certificate must name the host and come from whom is trusted; by default that is the system's choice."""
        authority = trustme.CA()
        ours, theirs = ssl.create_default_context(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.configure_trust(ours)
        authority.issue_cert("localhost").configure_cert(theirs)
        async with server(echo, ssl=theirs) as port:
            async with connected("localhost", port, tls=ours, timeout_s=10) as (reader, writer):
                writer.write(b"hello\n")
                assert await reader.read() == b"hello\n"
            for host, trust in [("127.0.0.1", ours), ("localhost", True)]:
                with pytest.raises(ssl.SSLCertVerificationError):
                    async with connected(host, port, tls=trust, timeout_s=10):
                        pass

    @on_both_loops
    async def test_time_is_bounded(self) -> None:
        """A server that is silent, in the handshake or behind it, is left in time."""
        async with server(hang) as port:
            with pytest.raises(TimeoutError):
                async with connected("127.0.0.1", port, tls=False, timeout_s=0.05) as (reader, _):
                    await reader.read()
            with pytest.raises(TimeoutError):
                async with connected("127.0.0.1", port, tls=True, timeout_s=0.3):
                    pass

    @pytest.mark.parametrize("host", ["127.0.0.1", "x" * 300, "a\0b", "ü" * 70])
    @on_both_loops
    async def test_no_connection(self, host: str) -> None:
        """Nobody there, and what is no host's name at all, are an ``OSError``."""
        with pytest.raises(OSError):  # noqa: PT011 - that it is nothing else is the point
            async with connected(host, free_port(), tls=False, timeout_s=10):
                pass


class Lossy(asyncio.DatagramProtocol):
    """Answers the third datagram, after two that nobody asked for."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.seen.append(data)
        if len(self.seen) == 3:
            for answer in (b"", b"no", b"yes"):
                self.transport.sendto(answer, addr)


class TestExchange:
    """UDP."""

    @on_both_loops
    async def test_again_until_the_answer(self) -> None:
        """A lost datagram is sent again, and only the answer is taken."""
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.create_datagram_endpoint(Lossy, ("127.0.0.1", 0))
        port = transport.get_extra_info("sockname")[1]
        answer = await exchange(
            "127.0.0.1", port, b"?", is_answer=lambda data: data == b"yes", again_after_s=0.02, timeout_s=10
        )
        assert answer == b"yes"
        assert set(protocol.seen) == {b"?"}
        transport.close()

    @on_both_loops
    async def test_nobody_there(self) -> None:
        """A port where nobody listens is told at once."""
        with pytest.raises(ConnectionRefusedError):
            await exchange("127.0.0.1", free_port(), b"?", is_answer=bool, again_after_s=30, timeout_s=30)

    @on_both_loops
    async def test_time_is_bounded(self) -> None:
        """A server that is silent is left in time."""
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, ("127.0.0.1", 0))
        port = transport.get_extra_info("sockname")[1]
        with pytest.raises(TimeoutError):
            await exchange("127.0.0.1", port, b"?", is_answer=bool, again_after_s=0.02, timeout_s=0.1)
        transport.close()

    @on_both_loops
    async def test_no_host(self) -> None:
        """What is no host's name is an ``OSError`` too."""
        with pytest.raises(OSError):  # noqa: PT011 - that it is nothing else is the point
            await exchange("x" * 300, 1812, b"?", is_answer=bool, again_after_s=1, timeout_s=10)


@pytest.fixture
def web() -> Iterator[tuple[int, list[tuple[str, str, dict[str, str], bytes]]]]:
    """A web server that notes requests and answers with what it was sent."""
    seen: list[tuple[str, str, dict[str, str], bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            seen.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for start in range(0, len(body), 10_000):
                piece = body[start : start + 10_000]
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n")

        do_GET = do_POST

        def log_message(self, format: str, *args: object) -> None:
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    yield running.server_port, seen
    running.shutdown()
    running.server_close()
    thread.join()


LIMITS: dict[str, Any] = {"timeout_s": 10, "max_response_bytes": 1_000_000}


class TestRequest:
    """HTTP."""

    @on_both_loops
    async def test_post(self, web: Any) -> None:
        """Headers and body arrive, also a large one; the answer comes back whole."""
        port, seen = web
        body = bytes(range(256)) * 2000
        url = f"http://127.0.0.1:{port}/hook?x=1"
        response = await request("POST", url, headers={"Content-Type": "application/json"}, body=body, **LIMITS)
        assert (response.status, response.body) == (200, body)
        method, path, headers, arrived = seen[0]
        assert (method, path, arrived) == ("POST", "/hook?x=1", body)
        assert headers["host"] == f"127.0.0.1:{port}"
        assert headers["content-type"] == "application/json"

    @on_both_loops
    async def test_credentials_in_the_url(self, web: Any) -> None:
        """Name and password of the URL are sent as Basic credentials, and stand nowhere else."""
        port, seen = web
        await request("GET", f"http://Aladdin:open%20sesame@127.0.0.1:{port}", **LIMITS)
        _, path, headers, _ = seen[0]
        assert (path, headers["authorization"]) == ("/", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==")
        assert headers["host"] == f"127.0.0.1:{port}"

    @on_both_loops
    async def test_too_large(self, web: Any) -> None:
        """A response beyond its limit is not taken."""
        with pytest.raises(BadResponse, match="more than 99 bytes"):
            await request("POST", f"http://127.0.0.1:{web[0]}/", body=b"x" * 100, timeout_s=10, max_response_bytes=99)

    @on_both_loops
    async def test_answered_before_the_body_was_read(self) -> None:
        """A server that says no without reading everything is heard, if the system lets it be."""

        async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
            await hang(reader, writer)

        async with server(refuse) as port:
            response = await request("POST", f"http://127.0.0.1:{port}/", body=b"x" * 3_000_000, **LIMITS)
        assert response.status == 413

    @on_both_loops
    async def test_time_is_bounded(self) -> None:
        """A server that takes the request and says nothing is left in time."""
        async with server(hang) as port:
            with pytest.raises(TimeoutError):
                await request("GET", f"http://127.0.0.1:{port}/", timeout_s=0.05, max_response_bytes=1)

    @pytest.mark.parametrize(
        ("url", "headers"),
        [("ftp://h/", {}), ("http:///x", {}), ("http://h/a b", {}), ("http://h/\u00e9", {}), ("http://h:x/", {}),
         ("http://h/", {"A": "b\r\nC: d"}), ("http://h/", {"A\r\nC": "d"}), ("http://h/", {"A": "\u20ac"})],
    )  # fmt: skip
    @on_both_loops
    async def test_what_cannot_be_sent(self, url: str, headers: dict[str, str]) -> None:
        """Nothing that would become another request or field is sent."""
        with pytest.raises(ValueError, match=r"URL|header|[Pp]ort"):
            await request("GET", url, headers=headers, **LIMITS)
