"""What asking for a login needs from elsewhere, and what every back end offers."""

from __future__ import annotations

from asyncio import StreamReader, StreamWriter
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from mtaq.model.login import Verdict

TIMEOUT_S = 10.0
"""Longest wait for any back end's answer, waiting for its turn included."""


class Backend(Protocol):
    """One form of ``smtp-auth``."""

    @property
    def name(self) -> str:
        """The form as it may be printed: no password, no secret."""

    @property
    def at_once(self) -> int:
        """How many may be asked at once; others wait."""

    async def check(self, user: str, password: str, client_ip: str) -> Verdict:
        """
        Judge a login.

        Args:
            user: At most 255 bytes in UTF-8, not empty, without NUL, CR and LF.
            password: Likewise, at most 1024 bytes.

        Raises:
            OSError: Nobody could say; never quotes the password. Anything else is a bug and counts the same.
        """

    async def close(self) -> None:
        """Give back what is held."""


class Connect(Protocol):
    """Opens a TCP connection, with verified TLS when asked to."""

    def __call__(
        self, host: str, port: int, *, tls: bool, timeout_s: float
    ) -> AbstractAsyncContextManager[tuple[StreamReader, StreamWriter]]:
        """Connect; entering and the block raise ``OSError`` when it fails or takes more than *timeout_s*."""


class Exchange(Protocol):
    """Sends a datagram until its answer comes."""

    async def __call__(
        self,
        host: str,
        port: int,
        datagram: bytes,
        *,
        is_answer: Callable[[bytes], bool],
        again_after_s: float,
        timeout_s: float,
    ) -> bytes:
        """Return the first datagram that *is_answer*; raise ``OSError`` when there is none within *timeout_s*."""


class Response(Protocol):
    """An HTTP response, as far as it matters."""

    @property
    def status(self) -> int:
        """Its status code."""


class Request(Protocol):
    """Makes an HTTP request."""

    async def __call__(
        self, method: str, url: str, *, headers: Mapping[str, str], timeout_s: float, max_response_bytes: int
    ) -> Response:
        """Return the response; raise ``OSError`` when there is none within *timeout_s*."""


@dataclass(frozen=True)
class Network:
    """The ways out of this machine.

    Attributes:
        connect: For LDAP.
        exchange: For RADIUS.
        request: For HTTP.
    """

    connect: Connect
    exchange: Exchange
    request: Request
