"""Pumps bytes between one TCP connection and its ``ServerSession``.

Decides nothing: syntax and order are the session's, permission is ``receive.policy``'s, what happens to a message is
``receive.intake``'s. The carrier is aiosmtpd's ``SMTP`` protocol class; its stream reader, command loop and
constructor are left out, because they cost more than everything else here (about 90 µs a connection and two task
switches a command, docs/develop/performance.md).

A client that goes away in the middle of a transaction loses nothing but its reply: the publish is a task of the
service and runs on.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, cast

from aiosmtpd.smtp import SMTP

from mtaq.model.message import ConnectionFacts, TlsFacts
from mtaq.model.reply import Reply
from mtaq.receive.draft import SessionFacts
from mtaq.receive.envelope import Answer
from mtaq.receive.holding import Holding
from mtaq.receive.listener import is_secured
from mtaq.receive.policy import PortPolicy
from mtaq.receive.proxy import ProxyHeader
from mtaq.smtp import codes
from mtaq.smtp.server_events import (
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

#: Input kept while an answer is awaited; beyond it the client is not read.
MAX_WAITING_BYTES = 256 * 1024

#: Content must come at this rate, in bytes per second, once ``smtp-timeout`` is over.
LEAST_RATE = 500

#: How long a closed connection may take to send what is left.
CLOSING_S = 10.0


class SmtpConnection(SMTP):
    """One client, from accept to close.

    Attributes:
        tls: What TLS the connection has now.
        smtp: The SMTP session.
        opened_at: When, on the loop's clock.
        policy: What holds on its port.
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
        self.loop = service.loop
        self.event_handler = service
        self.transport: asyncio.Transport | None = None
        self.tls: TlsFacts | None = None
        self.opened_at = self._heard_at = self._progressed_at = service.loop.time()
        self._phase_bytes = 0
        self.session_id = session_id
        self.messages = 0
        self.close_reason = ""
        self._service = service
        self.policy = policy
        self._slot = slot
        self._header = header
        self._spoke_early = spoke_early
        self._greeting: asyncio.TimerHandle | None = None
        self._proxy: tuple[str, int] | None = None
        self._remote: tuple[str, int] | None = None
        self._local = ("", 0)
        self._read_paused = False
        self._write_paused = False
        self._half_closed = False
        self._farewell: Reply | None = None
        self._task: asyncio.Task[None] | None = None
        self._session: SessionFacts | None = None  # of the transaction
        self._user: str | None = None
        self._holding = Holding(service.memory)
        self.smtp: ServerSession

    def __del__(self) -> None:
        """aiosmtpd's expects a stream reader's future; there is none."""

    # The transport's calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet, or refuse, whoever connected; after STARTTLS only note the new transport."""
        self.transport = cast(asyncio.Transport, transport)
        if self._remote is not None:
            return
        peer, local = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
        if not peer or not local:  # gone before we looked
            transport.close()
            return
        self._remote = (plain_ip(peer[0]), peer[1])
        self._local = (plain_ip(local[0]), local[1])
        self._note_tls()
        if self._header is not None:
            self._believe(self._header)
        self.smtp = ServerSession(self._session_options(), secure=self.tls is not None)
        self.smtp.user = self._user
        self._service.opened(self)
        is_proxy = self._header is not None and self._header.is_local
        refusal = self._service.refuse_connection(self.policy, self._remote[0], self._slot, is_proxy=is_proxy)
        if refusal is not None or self._spoke_early:
            self._turn_away(refusal or codes.EARLY_TALKER)
        elif self.policy.options.smtp_greeting_delay and self.tls is None and self._header is None:
            self._greeting = self.loop.call_later(self.policy.options.smtp_greeting_delay, self._greet)
        else:
            self._greet()

    def data_received(self, data: bytes) -> None:
        """Hand the client's bytes to the session, and carry its answers back."""
        self._heard_at = self.loop.time()
        if self._greeting is not None:
            self._turn_away(codes.EARLY_TALKER)
            return
        self.smtp.receive_data(data)
        if self.smtp.in_content:
            self._phase_bytes += len(data)
        self._advance()
        held = self.smtp.content_bytes
        if held != self._holding.size_bytes and self._task is None and not self._holding.reach(held):
            self._start(self._hold_more())

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
        assert self._remote is not None
        return ConnectionFacts(
            local_ip=self._local[0],
            local_port=self._local[1],
            remote_ip=self._remote[0],
            remote_port=self._remote[1],
            helo=self.smtp.helo,
            tls=self.tls,
            user=self._user,
            proxy=self._proxy,
        )

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
        """Cut a client that is silent or trickles, or whose session lasts too long (RFC 5321 §4.5.3.2.7).

        What counts is progress: a command is to come whole within ``smtp-timeout``, content may take as much longer as
        ``LEAST_RATE`` allows.
        """
        if self._task is not None or self.transport is None:
            return
        options = self.policy.options
        if self.transport.is_closing():
            if now - self._progressed_at > CLOSING_S:
                self.abort()
        elif now - self._heard_at > options.smtp_timeout:
            self._cut("idle too long", now)
        elif now - self._progressed_at > options.smtp_timeout + self._phase_bytes / LEAST_RATE:
            self._cut("too slow", now)
        elif now - self.opened_at > options.smtp_session_timeout:
            self._cut("session too long", now)

    def _cut(self, reason: str, now: float) -> None:
        self.close_reason = reason
        self._heard_at = self._progressed_at = now
        self.finish(codes.TIMEOUT)

    # Carrying.

    def _greet(self) -> None:
        self._greeting = None
        self.smtp.greet()
        self._flush()

    def _turn_away(self, refusal: Reply) -> None:
        """Say *refusal* in place of the greeting, and close."""
        self._service.refused(self, refusal)
        self.smtp.refuse(refusal)
        self._flush()

    def _advance(self) -> None:
        if not self._is_open:
            return  # whoever is gone never learns what became of commands not yet looked at, and repeats them
        while self._task is None and not self._write_paused:
            if self._content_must_wait:
                self._start(self._wait_for_room())
                break
            event = self.smtp.next_event()
            if event is None:
                if not self.smtp.must_send:
                    break
                self._flush()
            elif isinstance(event, MessageComplete):
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
        self._flush()
        self._apply_back_pressure()

    def _give(self, answer: Answer) -> None:
        """Answer the last event, now or when it is known what."""
        if isinstance(answer, Reply):
            self.smtp.answer(answer)
        else:
            self._start(self._give_later(answer))

    async def _give_later(self, answer: Coroutine[Any, Any, Reply]) -> None:
        try:
            self.smtp.answer(await self._service.guarded(answer, self))
        finally:
            self._settled()

    def _flush(self) -> None:
        transport = self.transport
        if transport is None:
            return
        data = self.smtp.data_to_send()
        if data:
            transport.write(data)
            self._heard_at = self._progressed_at = self.loop.time()
            self._phase_bytes = 0
        if self.smtp.finished and self._task is None:
            transport.close()

    def _apply_back_pressure(self) -> None:
        if self.transport is None or self.transport.is_closing():
            return
        full = (self._task is not None or self._write_paused) and self.smtp.buffered_bytes > MAX_WAITING_BYTES
        if full != self._read_paused:
            self._read_paused = full
            if full:
                self.transport.pause_reading()
            else:
                self.transport.resume_reading()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        self._task = self.loop.create_task(work)
        self._service.watch(self._task)

    def _done(self) -> None:
        self._task = None
        if self.transport is None:
            self._holding.release()
        if self._service.stopping:
            self._farewell = self._farewell or codes.SHUTTING_DOWN
        if self._farewell is not None:
            self.smtp.refuse(self._farewell)
        self._advance()
        self._close_if_half_closed()
        self._release_slot()

    def _release_slot(self) -> None:
        """Free the slot, once nothing of the connection is left: a content being stored takes memory like a client."""
        if self._slot is not None and self._task is None and self.transport is None:
            self._service.release(self._slot)
            self._slot = None

    @property
    def _is_open(self) -> bool:
        return self.transport is not None and not self.transport.is_closing()

    def _close_if_half_closed(self) -> None:
        if self._half_closed and self._task is None and not self._write_paused and self.transport is not None:
            self.transport.close()

    # The budget of content.

    @property
    def _content_must_wait(self) -> bool:
        """Is content next, and is there no room for it?"""
        transaction = self.smtp.transaction
        if transaction is None or not transaction.forward_paths or transaction.refusal or self.smtp.in_content:
            return False
        return self._holding.must_wait

    async def _wait_for_room(self) -> None:
        """Let content begin once there is room, or have it refused."""
        transaction = self.smtp.transaction
        assert transaction is not None
        try:
            if not await self._holding.wait(transaction.size_bytes or 1):
                transaction.refusal = codes.NO_MEMORY
        finally:
            self._done()

    async def _hold_more(self) -> None:
        """Let content go on once there is room for it, or forget it and refuse it at its end."""
        try:
            if not await self._holding.wait(self.smtp.content_bytes):
                self.smtp.abandon_content(codes.NO_MEMORY)
        finally:
            self._done()

    async def _take(self, event: MessageComplete) -> None:
        assert self._session is not None
        size_bytes = len(event.content)
        taking = self._service.intake.take(event.transaction, event.content, self._session)
        del event  # a large content must not be held here while its JSON is published
        try:
            if self._holding.reach(size_bytes) or await self._holding.wait(size_bytes):
                answer = await self._service.guarded(taking, self)
            else:
                taking.close()
                answer = codes.NO_MEMORY
            self.smtp.answer(answer)
            self.messages += answer.is_positive
        finally:
            self._holding.release()
            self._settled()

    async def _log_in(self, event: Login | ScramKeysWanted | LoginProved) -> None:
        desk, back_ends, facts = self._service.logins, self.policy.logins, self._session_facts()
        assert back_ends is not None  # else no mechanism is offered
        try:
            if isinstance(event, Login):
                self.smtp.answer(await self._service.guarded(desk.check(event, back_ends, facts), self))
            elif isinstance(event, LoginProved):
                self.smtp.answer(await self._service.guarded(desk.proved(event, facts), self))
            else:
                keys = await desk.scram_keys(event, back_ends, facts)
                if isinstance(keys, Reply):
                    self.smtp.answer(keys)
                else:
                    self.smtp.give_scram_keys(keys)
            if self.smtp.user is not None:
                self._user = self.smtp.user
                self.smtp.reconfigure(self._session_options())
        finally:
            self._settled()

    def _settled(self) -> None:
        """Go on with the session; without an answer, the client is told to try again."""
        if self.smtp.awaiting_answer:
            self.smtp.answer(codes.TRY_LATER)
        self._done()

    def _session_options(self) -> SessionOptions:
        assert self._remote is not None
        return self.policy.session_options(self._local[0], self._remote[0], logged_in=self._user is not None)

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
        self.smtp.answer(codes.START_TLS)
        self.transport.write(self.smtp.data_to_send())
        self.smtp.reset_for_tls()
        self._start(self._shake_hands())

    async def _shake_hands(self) -> None:
        plain = self.transport
        assert plain is not None
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
            self._task = None
            self.connection_lost(error)  # inside a handshake the loop tells nobody
            return
        self._task = None
        if self.transport is None:  # lost since
            self._release_slot()
            return
        self.transport = cast(asyncio.Transport, secured)
        self._read_paused = False
        self._note_tls()
        self.smtp.user = self._user
        self.smtp.reconfigure(self._session_options())
        self._done()

    def _believe(self, header: ProxyHeader) -> None:
        """What a trusted proxy says of its client counts in place of what we see of the proxy."""
        self._proxy = self._remote
        self._remote = header.source or self._remote
        self._local = header.destination or self._local
        self.tls = header.tls or self.tls

    def _note_tls(self) -> None:
        assert self.transport is not None
        session: ssl.SSLObject | None = self.transport.get_extra_info("ssl_object")
        if session is not None:
            tls = self._service.tls(self.policy)
            self.tls = tls.facts(session)
            self._user = tls.peer_user(session)


def plain_ip(address: str) -> str:
    """Return an address as the JSON spells it: IPv4-mapped IPv6 as IPv4, without a zone."""
    address = address.partition("%")[0]
    return address[7:] if address.startswith("::ffff:") and "." in address else address
