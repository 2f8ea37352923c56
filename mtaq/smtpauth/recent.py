"""Logins that were accepted a moment ago, so that a client with many connections does not cost a back end each time.

Holds no passwords and nothing that one could be found from: keys are HMACs under a random key that never leaves the
process. What was refused is never kept. No clock of its own.
"""

from __future__ import annotations

import hmac
import secrets
from collections import OrderedDict


class RecentlyAccepted:
    """A bounded memory of accepted logins."""

    def __init__(self, *, keep_s: float, most: int) -> None:
        """Keep a login for *keep_s* seconds, and at most *most* of them."""
        self._secret = secrets.token_bytes(32)
        self._keep_s = keep_s
        self._most = most
        self._until: OrderedDict[bytes, float] = OrderedDict()

    def key_of(self, user: str, password: str, client_ip: str) -> bytes:
        """Return the key of a login. The address belongs to it, because a back end may have judged by it."""
        parts = (part.encode() for part in (user, password, client_ip))
        message = b"".join(len(part).to_bytes(4) + part for part in parts)
        return hmac.digest(self._secret, message, "sha256")

    def holds(self, key: bytes, *, now_s: float) -> bool:
        """Was this login accepted, not long before *now_s*?"""
        until_s = self._until.get(key)
        if until_s is None:
            return False
        if now_s < until_s:
            return True
        del self._until[key]
        return False

    def add(self, key: bytes, *, now_s: float) -> None:
        """Remember that a login was accepted at *now_s*; the oldest give way."""
        self._until[key] = now_s + self._keep_s
        self._until.move_to_end(key)
        while len(self._until) > self._most:
            self._until.popitem(last=False)
