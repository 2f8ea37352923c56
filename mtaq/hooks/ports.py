"""What hooks need from others, and what each kind of hook offers. ``mtaq.assembly`` hands in the first."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

Point = Literal["sender", "recipient", "message", "pipeline"]
"""Where code is asked."""

Verdict = Literal["accept", "reject", "drop"]

HOOK_POINTS: tuple[Point, ...] = ("sender", "recipient", "message")
CONTENT_POINTS: tuple[Point, ...] = ("message", "pipeline")
"""Where there is a message that can be changed or dropped."""


class HookFailure(Exception):
    """The operator's code gave no usable answer; ``str()`` is the reason for the log.

    Attributes:
        detail: What it said beside, such as on its standard error; a few hundred characters at most.
    """

    def __init__(self, reason: str, detail: str | None = None) -> None:
        super().__init__(reason)
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Said:
    """What code said, not yet judged.

    Attributes:
        verdict: By exit status, HTTP status or return value alone.
        value: Python's value, or the JSON's; ``None`` when there is none.
    """

    verdict: Verdict
    value: Any = None


class HookCode(Protocol):
    """One piece of the operator's code, or a built-in step."""

    @property
    def label(self) -> str:
        """How logs and metrics call it."""

    @property
    def points(self) -> frozenset[Point]:
        """Where it wants to be asked."""

    async def ask(self, point: Point, data: Mapping[str, Any]) -> Said:
        """
        Ask it; whoever calls bounds the wait by cancelling.

        Args:
            data: The JSON of the point; never changed.

        Raises:
            HookFailure: No usable answer.
            Exception: Anything that the code itself raised.
        """

    async def close(self) -> None:
        """The worker ends."""


class HttpResponse(Protocol):
    """What a web service answered."""

    @property
    def status(self) -> int:
        """Three digits."""

    @property
    def headers(self) -> Mapping[str, str]:
        """By lower-case name."""

    @property
    def body(self) -> bytes:
        """Decoded from chunks."""


class HttpRequest(Protocol):
    """Sends one request (``mtaq.net.http.request``); raises ``OSError``."""

    def __call__(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        timeout_s: float,
        max_response_bytes: int,
    ) -> Awaitable[HttpResponse]:
        """Send *body* to *url*, credentials in it included, and return the response."""
