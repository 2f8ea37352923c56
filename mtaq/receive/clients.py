"""What a client did wrong lately.

Who is one client is ``mtaq.limits.clients``'. What is counted here holds across the processes of an instance; the
blocked list that grows from it, across all instances.
"""

from __future__ import annotations

from collections.abc import Callable

from mtaq.limits.clients import client_key
from mtaq.receive.ports import Counts, RuntimeState

#: Misdeeds older than this are forgiven, and a client is refused for as long.
WINDOW_S = 600.0

#: Sessions ended for protocol abuse within the window before the client is refused.
MOST_ABUSES = 10


class Misdeeds:
    """Failed logins and abused sessions, by client."""

    def __init__(self, *, counts: Counts, state: RuntimeState, now: Callable[[], float]) -> None:
        """Count in *counts*, a window of ``WINDOW_S``, by its clock *now*, and block in *state*."""
        self._counts = counts
        self._state = state
        self._now = now

    def failed_logins(self, ip: str) -> int:
        """Return how many logins from this client failed within the window."""
        return self._counts.count(_key(b"login ", ip), now=self._now())

    async def login_failed(self, ip: str, *, most: int, block: bool) -> bool:
        """Count a failed login; with the last of *most* the client is blocked. Return whether that was it."""
        count = self._counts.add(_key(b"login ", ip), now=self._now())
        if count < most:
            return False
        if block:
            await self._block(ip, f"{count} failed logins")
        return True

    async def abused(self, ip: str, *, block: bool) -> None:
        """Count a session that was ended for abuse of the protocol; one too many and the client is blocked."""
        count = self._counts.add(_key(b"abuse ", ip), now=self._now())
        if count >= MOST_ABUSES and block:
            await self._block(ip, f"{count} sessions with protocol abuse")

    async def _block(self, ip: str, reason: str) -> None:
        await self._state.add_block(ip, reason=reason, duration_s=WINDOW_S, automatic=True)


def _key(kind: bytes, ip: str) -> bytes:
    return kind + client_key(ip)
