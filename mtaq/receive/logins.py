"""What becomes of an attempt to log in.

The back ends decide (``receive.ports.Logins``); here is what they do not: that failures cost time and are counted by
client, that a client with too many of them is shown the door, and that a back end that is down refuses for now and
never lets anybody in. Neither user names that failed nor passwords are logged: people type the one in place of the
other.
"""

from __future__ import annotations

import asyncio

from mtaq.model.login import Verdict
from mtaq.model.reply import Reply
from mtaq.receive.clients import Misdeeds
from mtaq.receive.draft import SessionFacts
from mtaq.receive.ports import Logins
from mtaq.smtp import codes
from mtaq.smtp.scram import ScramKeys
from mtaq.smtp.server_events import Login, LoginProved, ScramKeysWanted
from mtaq.telemetry.events import EventLog
from mtaq.telemetry.metrics import counter
from mtaq.telemetry.vocabulary import Fields

#: A failed login is answered after this.
FAILURE_DELAY_S = 1.0

LOGINS = counter("mtaq_logins", "Attempts to log in, by outcome.", ("outcome",))


class LoginDesk:
    """Answers logins of all sessions of a process."""

    def __init__(self, *, misdeeds: Misdeeds, events: EventLog, failure_delay_s: float = FAILURE_DELAY_S) -> None:
        self._misdeeds = misdeeds
        self._events = events
        self._failure_delay_s = failure_delay_s

    async def respond(
        self, event: Login | ScramKeysWanted | LoginProved, back_ends: Logins, facts: SessionFacts
    ) -> Reply | ScramKeys | None:
        """Return what answers *event*: a reply, or what SCRAM is to be proved against, ``None`` for nobody's keys."""
        if isinstance(event, Login):
            return await self.check(event, back_ends, facts)
        if isinstance(event, LoginProved):
            return await self.proved(event, facts)
        return await self.scram_keys(event, back_ends, facts)

    async def check(self, login: Login, back_ends: Logins, facts: SessionFacts) -> Reply:
        """Return the answer to a user name with a password."""
        if self._is_shut_out(facts):
            return codes.TOO_MANY_LOGINS
        client_ip = facts.connection.remote_ip
        verdict = await back_ends.check(login.user, login.password, client_ip=client_ip)
        return await self._answer(verdict, login.mechanism, login.user, facts)

    async def scram_keys(
        self, wanted: ScramKeysWanted, back_ends: Logins, facts: SessionFacts
    ) -> ScramKeys | Reply | None:
        """Return what SCRAM is to be proved against, or the refusal of the exchange."""
        if self._is_shut_out(facts):
            return codes.TOO_MANY_LOGINS
        return await back_ends.scram_keys(wanted.user)

    async def proved(self, proof: LoginProved, facts: SessionFacts) -> Reply:
        """Return the answer to the end of a SCRAM exchange."""
        return await self._answer(Verdict.ACCEPTED if proof.ok else Verdict.REFUSED, proof.mechanism, proof.user, facts)

    def _is_shut_out(self, facts: SessionFacts) -> bool:
        most = facts.policy.options.smtp_auth_failures
        return self._misdeeds.failed_logins(facts.connection.remote_ip) >= most

    async def _answer(self, verdict: Verdict, mechanism: str, user: str, facts: SessionFacts) -> Reply:
        LOGINS.labels(verdict.value).inc()
        client: Fields = {"session_id": facts.session_id, "peer_ip": facts.connection.remote_ip, "mechanism": mechanism}
        if verdict is Verdict.ACCEPTED:
            client["user"] = user
            self._events.login_accepted(**client)
            return codes.LOGGED_IN
        if verdict is Verdict.UNAVAILABLE:
            self._events.login_unavailable(**client)
            return codes.NO_LOGIN_NOW
        self._events.login_refused(**client)
        options = facts.policy.options
        was_last = await self._misdeeds.login_failed(
            facts.connection.remote_ip, most=options.smtp_auth_failures, block=options.smtp_protection
        )
        await asyncio.sleep(self._failure_delay_s)
        return codes.TOO_MANY_LOGINS if was_last else codes.LOGIN_FAILED
