"""``hardcoded://``: users and passwords that stand in the configuration.

The only form that knows the passwords, and so the only one that can serve SCRAM. Neither what it answers nor how long
that takes tells which users exist: salts come from the secret that salts of unknown users are made of too, and the keys
of all users are derived at once, when anybody asks for the first time.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import secrets
from collections.abc import Mapping

from mtaq.model.login import Verdict
from mtaq.smtp.saslprep import saslprep
from mtaq.smtp.scram import ScramKeys, derive_keys, salt_for


class Hardcoded:
    """A few users."""

    at_once = 1000

    def __init__(self, passwords: Mapping[str, str], *, scram_secret: bytes) -> None:
        """Know *passwords* by user; *scram_secret* is what ``mtaq.smtp.scram.fake_keys`` is given for the others."""
        self._secret = secrets.token_bytes(32)
        self._scram_secret = scram_secret
        self._digests = {user: self._digest(password) for user, password in passwords.items()}
        self._prepared = {name: password for user, password in passwords.items() if (name := _prepared(user))}
        self._deriving: asyncio.Task[dict[str, ScramKeys]] | None = None

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
        """Return the keys of *user* (prepared by SASLprep), or ``None``."""
        if self._deriving is None:
            self._deriving = asyncio.create_task(asyncio.to_thread(self._derive))
        keys = await asyncio.shield(self._deriving)  # a client that goes away leaves it to the next
        return keys.get(user)

    async def close(self) -> None:
        """Nothing is held."""

    def _derive(self) -> dict[str, ScramKeys]:
        """Return the keys of all users whose password a client can prove; some milliseconds for each."""
        found = {}
        for user, password in self._prepared.items():
            with contextlib.suppress(ValueError):
                found[user] = derive_keys(password, salt=salt_for(user, secret=self._scram_secret))
        return found

    def _digest(self, password: str) -> bytes:
        return hmac.digest(self._secret, password.encode(), "sha256")


def _prepared(user: str) -> str:
    """Return the name as a client would prepare it; empty when it cannot be."""
    try:
        return saslprep(user)
    except ValueError:
        return ""
