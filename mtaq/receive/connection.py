"""Pumps bytes between one TCP connection and its ``ServerSession``.

Decides nothing: syntax and order are the session's, permission is ``receive.policy``'s, what happens to a message is
``receive.intake``'s. Here is who is asked what the session asks, and what the transport and the service may call; how
bytes are carried is ``receive.carrier``'s.

A client that goes away in the middle of a transaction loses nothing but its reply: the publish is a task of the
service and runs on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, cast

from mtaq.model.message import ConnectionFacts
from mtaq.model.reply import Reply
from mtaq.receive.carrier import Carrier
from mtaq.receive.draft import SessionFacts
from mtaq.receive.endpoints import Endpoints, endpoints_of
from mtaq.receive.envelope import Answer
from mtaq.receive.listener import is_secured
from mtaq.receive.policy import PortPolicy
from mtaq.receive.proxy import ProxyHeader
from mtaq.smtp import codes
from mtaq.smtp.server_events import (
    Event,
    Login,
    LoginProved,
    Mail,
    MessageComplete,
    Rcpt,
    ScramKeysWanted,
    StartTls,
)
from mtaq.smtp.server_options import SessionOptions
from mtaq.smtp.server_session import ServerSession

if TYPE_CHECKING:
    from mtaq.receive.service import ReceptionService


class SmtpConnection(Carrier):
    """One client, from accept to close.

    Attributes:
        smtp: The SMTP session.
        policy: What holds on its port.
        progress: When the client did what.
        messages: How many were accepted.
        close_reason: Why we closed it; empty when the client did.
    """

    def __init__(
        self,
        service: ReceptionService,
        policy: PortPolicy,
        slot: int | None,
        session_id: str,
        header: ProxyHeader | None = None,
        *,
        spoke_early: bool = False,
    ) -> None:
        super().__init__(service, policy, slot)
        self.session_id = session_id
        self.messages = 0
        self.close_reason = ""
        self._header = header
        self._spoke_early = spoke_early
        self._greeting: asyncio.TimerHandle | None = None
        self._ends: Endpoints | None = None
        self._session: SessionFacts | None = None  # of the transaction

    # The transport's calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet, or refuse, whoever connected; after STARTTLS only note the new transport."""
        self.transport = cast(asyncio.Transport, transport)
        if self._ends is not None:
            return
        ends = self._ends = endpoints_of(transport)
        if ends is None:
            transport.close()
            return
        self._note_tls()
        if self._header is not None:
            ends.believe(self._header)
        self.smtp = ServerSession(self._session_options(), secure=ends.tls is not None)
        self._service.opened(self)
        is_proxy = self._header is not None and self._header.is_local
        refusal = self._service.refuse_connection(self.policy, ends.remote[0], self._slot, is_proxy=is_proxy)
        if refusal is not None or self._spoke_early:
            self._turn_away(refusal or codes.EARLY_TALKER)
        elif self.policy.options.smtp_greeting_delay and ends.tls is None and self._header is None:
            self._greeting = self.loop.call_later(self.policy.options.smtp_greeting_delay, self._greet)
        else:
            self._greet()

    def data_received(self, data: bytes) -> None:
        """Hand the client's bytes to the session, and carry its answers back."""
        self.progress.heard_at = self.loop.time()
        if self._greeting is not None:
            self._turn_away(codes.EARLY_TALKER)
            return
        self.smtp.receive_data(data)
        if self.smtp.in_content:
            self.progress.content_bytes += len(data)
        self._advance()

    def eof_received(self) -> bool:
        """The client sends no more; what it sent before is still answered."""
        if self._task is None and not self._write_paused:
            return False
        self._half_closed = True
        return not is_secured(self.transport)  # TLS has no half-closed connection

    def connection_lost(self, error: Exception | None) -> None:
        """Forget the connection; its publish, if any, runs on and keeps the slot. May be called twice."""
        self.transport = None
        if self._greeting is not None:
            self._greeting.cancel()
        if self._task is None:
            self._holding.release()
        self._service.closed(self, error)
        self._release_slot()

    def pause_writing(self) -> None:
        """The client does not read our replies: work on none of its commands until it does."""
        self._write_paused = True

    def resume_writing(self) -> None:
        """The client reads again."""
        self._write_paused = False
        self._advance()
        self._close_if_half_closed()

    # The service's calls.

    def facts(self) -> ConnectionFacts:
        """Return what the JSON and the logs say of this connection."""
        assert self._ends is not None
        return self._ends.facts(self.smtp.helo)

    def shown(self, now: float) -> dict[str, Any]:
        """Return what operators are shown of it; *now* is the loop's time."""
        facts = self.facts()
        return {
            "direction": "in",
            "site": None,
            "remote": facts.remote_ip,
            "host": facts.helo or None,
            "local": f"{facts.local_ip}:{facts.local_port}",
            "state": "content" if self.smtp.in_content else "busy" if self.is_busy else "idle",
            "seconds": round(now - self.progress.opened_at, 1),
            "messages": self.messages,
            "tls": facts.tls.version if facts.tls else None,
        }

    @property
    def is_busy(self) -> bool:
        """Is a message being received or stored?"""
        return self._task is not None or self.smtp.in_content

    def finish(self, reply: Reply) -> None:
        """Say *reply* (a 421) and close; a message under way is answered first."""
        if not self._is_open:
            return
        if self._task is not None:
            self._farewell = reply
            return
        self.smtp.refuse(reply)
        self._flush()

    def abort(self) -> None:
        """Close without a word."""
        if self.transport is not None:
            self.transport.abort()

    def check_deadlines(self, now: float) -> None:
        """Cut a client that takes too long."""
        if self._task is not None or self.transport is None:
            return
        if self.transport.is_closing():
            if self.progress.closes_too_slowly(now):
                self.abort()
        elif reason := self.progress.overdue(now, self.policy.options):
            self.close_reason = reason
            self.progress.spoke(now)
            self.finish(codes.TIMEOUT)

    def _greet(self) -> None:
        self._greeting = None
        self.smtp.greet()
        self._flush()

    def _turn_away(self, refusal: Reply) -> None:
        """Say *refusal* in place of the greeting, and close."""
        self._service.refused(self, refusal)
        self.smtp.refuse(refusal)
        self._flush()

    # The session's questions.

    def _ask(self, event: Event) -> None:
        """Have an event of the session answered, at once or by a task."""
        if isinstance(event, MessageComplete):
            self._start(self._take(event))
        elif isinstance(event, Rcpt):
            assert self._session is not None
            assert self.smtp.transaction is not None
            self._give(self._service.envelopes.recipient(event, self.smtp.transaction, self._session))
        elif isinstance(event, Mail):
            self._session = self._session_facts()
            self._give(self._service.envelopes.sender(event, self._session))
        elif isinstance(event, StartTls):
            self._begin_tls()
        else:
            self._start(self._log_in(event))

    def _give(self, answer: Answer) -> None:
        """Answer the last event, now or when it is known what."""
        if isinstance(answer, Reply):
            self.smtp.answer(answer)
        else:
            self._start(self._give_later(answer))

    async def _give_later(self, answer: Coroutine[Any, Any, Reply]) -> None:
        self.smtp.answer(await self._service.guarded(answer, self))

    async def _take(self, event: MessageComplete) -> None:
        assert self._session is not None
        size_bytes = len(event.content)
        taking = self._service.intake.take(event.transaction, event.content, self._session)
        del event  # a large content must not be held here while its JSON is published
        try:
            if self._holding.reach(size_bytes) or await self._holding.wait(size_bytes):
                answer = await self._service.guarded(taking, self)
            else:
                answer = codes.NO_MEMORY
            self.smtp.answer(answer)
            self.messages += answer.is_positive
        finally:
            taking.close()
            self._holding.release()

    async def _log_in(self, event: Login | ScramKeysWanted | LoginProved) -> None:
        back_ends, ends = self.policy.logins, self._ends
        assert back_ends is not None  # else no mechanism is offered
        assert ends is not None
        response = self._service.logins.respond(event, back_ends, self._session_facts())
        answer = await self._service.guarded(response, self)
        if isinstance(answer, Reply):
            self.smtp.answer(answer)
        else:
            self.smtp.give_scram_keys(answer)
        if self.smtp.user is not None:
            ends.user = self.smtp.user
            self.smtp.reconfigure(self._session_options())

    def _session_options(self) -> SessionOptions:
        ends = self._ends
        assert ends is not None
        return self.policy.session_options(ends.local[0], ends.remote[0], logged_in=ends.user is not None)

    def _session_facts(self) -> SessionFacts:
        return SessionFacts(
            session_id=self.session_id,
            connection=self.facts(),
            hostname=self.smtp.options.hostname,
            esmtp=self.smtp.esmtp,
            policy=self.policy,
        )

    def _begin_tls(self) -> None:
        assert self.transport is not None
        # Nothing of the handshake may be read here, and nothing sent in clear after STARTTLS may survive it.
        self.transport.pause_reading()
        self._read_paused = False  # not for back pressure, which would let it go on
        self.smtp.answer(codes.START_TLS)
        self.transport.write(self.smtp.data_to_send())
        self.smtp.reset_for_tls()
        self._start(self._shake_hands())

    async def _shake_hands(self) -> None:
        plain = self.transport
        if plain is None:  # gone before it read that it may begin
            return
        try:
            secured = await self.loop.start_tls(
                plain,
                self,
                self._service.tls(self.policy).context,
                server_side=True,
                ssl_handshake_timeout=self.policy.handshake_timeout_s,
            )
            if not is_secured(secured):
                raise ConnectionResetError("the client went away")
        except Exception as error:  # the top of a task: whatever it was, this connection ends here
            self._service.tls_failed(self, error)
            plain.abort()
            self.connection_lost(error)  # inside a handshake the loop tells nobody
            return
        if self.transport is not None:  # else lost since
            self.transport = cast(asyncio.Transport, secured)
            self._note_tls()
            self.smtp.reconfigure(self._session_options())

    def _note_tls(self) -> None:
        assert self.transport is not None
        assert self._ends is not None
        session = self.transport.get_extra_info("ssl_object")
        if session is not None:
            self._ends.note_tls(self._service.tls(self.policy), session)
