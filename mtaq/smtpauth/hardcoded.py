"""``hardcoded://``: users and passwords that stand in the configuration.

The only form that knows the passwords, and so the only one that can serve SCRAM.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
from collections.abc import Mapping

from mtaq.model.login import Verdict
from mtaq.smtp.saslprep import saslprep
from mtaq.smtp.scram import ScramKeys, derive_keys, salt_for


class Hardcoded:
    """A few users."""

    at_once = 1000

    def __init__(self, passwords: Mapping[str, str]) -> None:
        self._secret = secrets.token_bytes(32)
        self._digests = {user: self._digest(password) for user, password in passwords.items()}
        self._prepared = {name: password for user, password in passwords.items() if (name := _prepared(user))}
        self._keys: dict[str, ScramKeys] = {}

    @property
    def name(self) -> str:
        """The form without users and passwords."""
        return "hardcoded://"

    async def check(self, user: str, password: str, client_ip: str) -> Verdict:
        """Compare; takes as long for a user that does not exist."""
        wanted = self._digests.get(user, self._secret)
        same = hmac.compare_digest(self._digest(password), wanted)
        return Verdict.ACCEPTED if same else Verdict.REFUSED

    async def scram_keys(self, user: str) -> ScramKeys | None:
        """Return the keys of *user* (prepared by SASLprep), derived when first asked for."""
        password = self._prepared.get(user)
        if password is not None and user not in self._keys:
            salt = salt_for(user, secret=self._secret)
            try:
                self._keys[user] = await asyncio.to_thread(derive_keys, password, salt=salt)
            except ValueError:  # a password that no client can prove
                return None
        return self._keys.get(user)

    async def close(self) -> None:
        """Nothing is held."""

    def _digest(self, password: str) -> bytes:
        return hmac.digest(self._secret, password.encode(), "sha256")


def _prepared(user: str) -> str:
    """Return the name as a client would prepare it; empty when it cannot be."""
    try:
        return saslprep(user)
    except ValueError:
        return ""
