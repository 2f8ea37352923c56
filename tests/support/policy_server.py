"""A web server for MTA-STS policies, on loopback, with TLS; and the fetching of policies from it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from typing import Self

import trustme

from mtaq.net.policy_fetch import PolicyFetcher

OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n"


class PolicyServer:
    """Answers every request with ``response``; an asynchronous context manager.

    Attributes:
        response: All octets of the answer; ``None`` closes without one.
        requests: First line and Host of each request.
        names: SNI of each connection.
    """

    def __init__(
        self,
        authority: trustme.CA,
        *names: str,
        ip: str = "127.0.0.1",
        port: int = 0,
        response: bytes | None = b"",
    ) -> None:
        self.response = response
        self.requests: list[tuple[str, str]] = []
        self.names: list[str | None] = []
        self.ip = ip
        self.port = port
        self.gate = asyncio.Event()
        self.gate.set()
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(*names).configure_cert(self._context)
        self._context.sni_callback = lambda session, name, context: self.names.append(name)
        self._trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        authority.configure_trust(self._trusting)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, self.ip, self.port, ssl=self._context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    def serve(self, policy: str) -> None:
        """Serve *policy* from now on."""
        self.response = OK + policy.encode()

    def fetcher(self, *, addresses: Sequence[str] | None = None, allows: bool = True) -> PolicyFetcher:
        """Return what fetches from here, whatever the domain."""

        async def look_up(host: str) -> Sequence[str]:
            return [self.ip] if addresses is None else addresses

        return PolicyFetcher(
            addresses=look_up, is_allowed=lambda address: allows, context=self._trusting, port=self.port
        )

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            self.requests.append((head[0], next(line[6:] for line in head if line.startswith("Host: "))))
            await self.gate.wait()
            if self.response is not None:
                writer.write(self.response)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


def policy(mode: str = "enforce", *mx: str, max_age: int = 604_800) -> str:
    """Return the text of a policy."""
    lines = ["version: STSv1", f"mode: {mode}", *(f"mx: {each}" for each in mx), f"max_age: {max_age}"]
    return "\n".join(lines) + "\n"
