"""What asking a spam filter needs from elsewhere, and what every filter offers."""

from __future__ import annotations

from asyncio import StreamReader, StreamWriter
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from mtaq.mailauth.origin import Origin
from mtaq.mailauth.spam import SpamResult


class Engine(Protocol):
    """One kind of filter."""

    @property
    def name(self) -> str:
        """What ``engine`` says in the JSON."""

    @property
    def max_bytes(self) -> int:
        """Larger content is not shown to it."""

    async def judge(self, content: bytes, origin: Origin, *, timeout_s: float) -> SpamResult:
        """
        Ask what it says of *content*.

        Raises:
            OSError: It could not be asked, or its answer not understood.
        """


class Connect(Protocol):
    """Opens a TCP connection."""

    def __call__(
        self, host: str, port: int, *, tls: bool, timeout_s: float
    ) -> AbstractAsyncContextManager[tuple[StreamReader, StreamWriter]]:
        """Connect; entering and the block raise ``OSError`` when it fails or takes more than *timeout_s*."""


class Response(Protocol):
    """An HTTP response, as far as it matters."""

    @property
    def status(self) -> int:
        """Its status code."""

    @property
    def body(self) -> bytes:
        """What it holds."""


class Request(Protocol):
    """Makes an HTTP request."""

    async def __call__(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes,
        timeout_s: float,
        max_response_bytes: int,
    ) -> Response:
        """Return the response; raise ``OSError`` when there is none within *timeout_s*."""


@dataclass(frozen=True)
class Network:
    """The ways out of this machine.

    Attributes:
        connect: For spamd.
        request: For Rspamd.
    """

    connect: Connect
    request: Request
