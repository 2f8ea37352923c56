"""Whom we count as one client, and what it did wrong lately.

One IPv4 address is one client, and so is one IPv6 /64, because that is what a single customer is given. What is
counted here holds across the processes of an instance; the blocked list that grows from it, across all instances.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from functools import lru_cache

from mtaq.receive.ports import Counts, RuntimeState

#: Misdeeds older than this are forgiven, and a client is refused for as long.
WINDOW_S = 600.0

#: Sessions ended for protocol abuse within the window before the client is refused.
MOST_ABUSES = 10


@lru_cache(maxsize=16384)
def client_network(ip: str) -> str:
    """Return the network that counts as one client: the address itself, or its /64 for IPv6."""
    address = ipaddress.ip_address(ip)
    return str(ipaddress.ip_network((address, 64 if address.version == 6 else 32), strict=False))


class Misdeeds:
    """Failed logins and abused sessions, by client."""

    def __init__(self, *, counts: Counts, state: RuntimeState, now: Callable[[], float]) -> None:
        """Count in *counts*, a window of ``WINDOW_S``, by its clock *now*, and block in *state*."""
        self._counts = counts
        self._state = state
        self._now = now

    def failed_logins(self, ip: str) -> int:
        """Return how many logins from this client failed within the window."""
        return self._counts.count(_key("login", ip), now=self._now())

    async def login_failed(self, ip: str, *, most: int, block: bool) -> bool:
        """Count a failed login; with the last of *most* the client is blocked. Return whether that was it."""
        count = self._counts.add(_key("login", ip), now=self._now())
        if count < most:
            return False
        if block:
            await self._block(ip, f"{count} failed logins")
        return True

    async def abused(self, ip: str, *, block: bool) -> None:
        """Count a session that was ended for abuse of the protocol; one too many and the client is blocked."""
        count = self._counts.add(_key("abuse", ip), now=self._now())
        if count >= MOST_ABUSES and block:
            await self._block(ip, f"{count} sessions with protocol abuse")

    async def _block(self, ip: str, reason: str) -> None:
        await self._state.add_block(client_network(ip), reason=reason, duration_s=WINDOW_S, automatic=True)


def _key(kind: str, ip: str) -> bytes:
    return f"{kind} {client_network(ip)}".encode()
