"""May this user log in? Asks the forms of one ``smtp-auth`` in order.

The first that accepts decides; one that refuses or cannot be asked leaves it to the next. When nobody accepts and
somebody could not be asked, nobody knows. Each form is bounded in time and in how many are asked at once; whatever
goes wrong in one is told to ``on_unavailable`` and never raised. Delaying and counting failures is the session's work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple

from mtaq.model.login import Verdict
from mtaq.smtp.scram import ScramKeys
from mtaq.smtpauth.hardcoded import Hardcoded
from mtaq.smtpauth.ports import TIMEOUT_S, Backend
from mtaq.smtpauth.recent import RecentlyAccepted

#: Seconds an accepted login is remembered: a password that was changed keeps working that long.
REMEMBER_S = 60.0
_MOST_REMEMBERED = 10_000
_MAX_USER_BYTES = 255
_MAX_PASSWORD_BYTES = 1024


class Answer(NamedTuple):
    """What one form said.

    Attributes:
        verdict: Yes, no, or nobody knows.
        reason: Why nobody knows; empty otherwise. Fit for the log.
    """

    verdict: Verdict
    reason: str = ""


class Form:
    """One back end, bounded.

    Attributes:
        name: The form as it may be printed.
    """

    def __init__(self, backend: Backend, *, timeout_s: float = TIMEOUT_S) -> None:
        self.name = backend.name
        self.backend = backend
        self._room = asyncio.Semaphore(backend.at_once)
        self._timeout_s = timeout_s

    async def ask(self, user: str, password: str, client_ip: str) -> Answer:
        """Ask for a login that ``may_be_asked``; waits for a turn at most as long as for an answer. Never raises."""
        try:
            async with asyncio.timeout(self._timeout_s) as limit, self._room:
                return Answer(await self.backend.check(user, password, client_ip))
        except OSError as error:
            silent = isinstance(error, TimeoutError) and (limit.expired() or not str(error))
            return Answer(Verdict.UNAVAILABLE, "no answer in time" if silent else str(error))
        except Exception as error:  # its text may quote what must not be logged
            return Answer(Verdict.UNAVAILABLE, f"a bug: {type(error).__name__}")


class Authenticator:
    """The logins of a port."""

    def __init__(
        self,
        backends: Sequence[Backend],
        *,
        clock: Callable[[], float],
        on_unavailable: Callable[[str, str], None],
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """
        Ask *backends* in order.

        Args:
            clock: Monotonic seconds.
            on_unavailable: Told the form and the reason when one could not be asked.
            timeout_s: Longest wait for each.
        """
        self.forms = tuple(Form(backend, timeout_s=timeout_s) for backend in backends)
        self._hardcoded = [backend for backend in backends if isinstance(backend, Hardcoded)]
        self._recent = RecentlyAccepted(keep_s=REMEMBER_S, most=_MOST_REMEMBERED)
        self._clock = clock
        self._on_unavailable = on_unavailable

    @property
    def knows_passwords(self) -> bool:
        """
        Can every user log in by SCRAM?

        False as soon as one form does not know its passwords: clients take the strongest mechanism announced and do
        not try another, so its users could not log in any more.
        """
        return len(self._hardcoded) == len(self.forms) > 0

    async def check(self, user: str, password: str, *, client_ip: str) -> Verdict:
        """Judge a login. Never raises; refuses what no back end may be asked."""
        if not may_be_asked(user, password):
            return Verdict.REFUSED
        key = self._recent.key_of(user, password, client_ip)
        if self._recent.holds(key, now_s=self._clock()):
            return Verdict.ACCEPTED
        verdict = Verdict.REFUSED
        for form in self.forms:
            answer = await form.ask(user, password, client_ip)
            if answer.verdict is Verdict.ACCEPTED:
                self._recent.add(key, now_s=self._clock())
                return Verdict.ACCEPTED
            if answer.verdict is Verdict.UNAVAILABLE:
                self._on_unavailable(form.name, answer.reason)
                verdict = Verdict.UNAVAILABLE
        return verdict

    async def scram_keys(self, user: str) -> ScramKeys | None:
        """Return the keys of *user* (prepared by SASLprep), or ``None`` when no form knows that password."""
        found = [await backend.scram_keys(user) for backend in self._hardcoded]  # all, so that nobody is found sooner
        return next((keys for keys in found if keys is not None), None)

    async def close(self) -> None:
        """Give back what the back ends hold; nothing may be asked any more."""
        for form in self.forms:
            await form.backend.close()


def may_be_asked(user: str, password: str) -> bool:
    """Is this a login that a back end may see: of bounded length, not empty, nothing in it that ends a line?"""
    return _is_plain(user, _MAX_USER_BYTES) and _is_plain(password, _MAX_PASSWORD_BYTES)


def _is_plain(text: str, most_bytes: int) -> bool:
    try:
        return 0 < len(text.encode()) <= most_bytes and not set(text) & set("\0\r\n")
    except UnicodeEncodeError:  # lone surrogates
        return False
