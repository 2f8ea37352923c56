"""One connection to a mail host: carries a ``ClientSession`` over a ``Stream`` and keeps every time-out.

A phase's time begins with the answer before it and bounds the whole answer, so a host that sends slow bytes or never
ends its greeting is cut off like a silent one. Which host, which source and what after a failure is decided elsewhere.
``open`` raises ``HostFailure``; ``deliver`` never fails but returns how it ended, and after anything out of order
``usable`` is false.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

from mtaq.config import DeliveryTimeouts
from mtaq.deliver.certificate import read_names
from mtaq.deliver.ending import Ending, HostFailure, PeerFacts, answered
from mtaq.deliver.ports import Stream
from mtaq.deliver.tls_policy import Check
from mtaq.deliver.tls_session import Objection, TlsSession
from mtaq.model.errors import RemoteProtocolError
from mtaq.model.outcome import ResultWord, State
from mtaq.smtp.client_commands import Transaction
from mtaq.smtp.client_session import ClientSession

#: Taking leave is a courtesy (RFC 5321 §4.1.1.10); nobody waits long for the answer.
QUIT_TIMEOUT_S = 1.0
#: Behind a time-out: enough for the event loop to fetch what has arrived.
LAST_LOOK_S = 0.05

_STATUS: dict[ResultWord, str] = {"timeout": "4.4.2", "lost": "4.4.2", "invalid": "4.5.0", "error": "4.7.0"}


class PeerClosed(ConnectionError):
    """The peer ended the connection."""


class Distrusted(HostFailure):
    """A host is encrypted, and not who it should be."""

    def __init__(self, objection: Objection, peer: PeerFacts) -> None:
        text = f"{peer.host} is not trusted: {objection.text}"
        super().__init__(Ending(state="starttls", result="error", status="4.7.5", description=text, peer=peer))
        self.objection = objection


class Connection:
    """An open TCP connection and the session on it.

    Attributes:
        messages: Transactions begun on it.
    """

    def __init__(self, stream: Stream, session: ClientSession, timeouts: DeliveryTimeouts, facts: PeerFacts) -> None:
        self.messages = 0
        self._stream = stream
        self._session = session
        self._timeouts = timeouts
        self._facts = facts._replace(source=stream.local_ip, destination=stream.remote_ip)
        self._sent = 0
        self._on_content: Callable[[], None] | None = None
        self._broken = False
        self._now = asyncio.get_running_loop().time

    @property
    def usable(self) -> bool:
        """May another transaction begin?"""
        return self._session.ready and not self._broken

    @property
    def is_busy(self) -> bool:
        """Is a transaction under way?"""
        return not self._session.ready and not self._broken

    @property
    def offers_tls(self) -> bool:
        """Did the host announce STARTTLS?"""
        return self._session.extensions.starttls

    @property
    def is_secure(self) -> bool:
        """Is it inside TLS?"""
        return self._stream.tls is not None

    async def greet(self, deadline: float) -> None:
        """
        Wait for the greeting and say EHLO.

        Args:
            deadline: The loop's time at which to give up in any case.

        Raises:
            HostFailure: It does not want us, or does not answer properly.
        """
        await self._or_host_failure(deadline)
        session = self._session
        self._facts = self._facts._replace(mta=session.banner_name or None, dsn=session.extensions.dsn)
        if session.refusal is not None:
            raise HostFailure(answered(session.refusal.state, session.refusal.reply, self._peer()))

    @property
    def facts(self) -> PeerFacts:
        """What is known of it by now."""
        return self._facts

    def arrived_by(self, sessions: tuple[TlsSession, ...]) -> None:
        """Note the handshakes on the way to it: each message that goes over it has come this way."""
        self._facts = self._facts._replace(sessions=sessions)

    async def start_tls(self, context: ssl.SSLContext, check: Check, deadline: float, *, today: datetime) -> bool:
        """
        Begin TLS and say EHLO again, unless the host fails *check*.

        Args:
            today: For dates in certificates that *context* does not verify.

        Returns:
            False when the host, having announced STARTTLS, refuses it; the session is still good in clear.

        Raises:
            HostFailure: The connection is of no more use; ``state`` is ``starttls`` when the handshake failed.
            Distrusted: It succeeded, with somebody else.
        """
        self._session.start_tls()
        await self._or_host_failure(deadline)
        reply = self._session.tls_answer
        if reply is None or reply.code != 220:
            if reply is not None and not self._session.ready:
                raise HostFailure(answered("starttls", reply, self._peer()))
            return False
        try:
            async with asyncio.timeout_at(min(deadline, self._now() + self._timeouts.tls)):
                await self._stream.start_tls(context, check.server_name)
        except OSError as error:
            self._broken = True
            raise HostFailure(self._network_ending(error, "starttls")) from error
        self._note_tls(verified=False)
        tls = self._stream.tls
        objection = check.objection(tls, today) if tls is not None else None
        if objection is not None:
            self._broken = True
            raise Distrusted(objection, self._peer())
        self._note_tls(verified=check.verifies)
        self._session.tls_started()
        await self.greet(deadline)
        return True

    async def log_in(self, user: str, password: str, deadline: float) -> None:
        """
        Log in (RFC 4954); the caller sees to it that nobody listens.

        Raises:
            HostFailure: Not accepted. Transient, whatever was answered: credentials are the operator's to mend, and no
                reason to return mail.
        """
        if not self._session.log_in(user, password):
            text = "the mail host offers no way to log in that is known here (PLAIN, LOGIN)"
            ending = Ending(state="auth", result="error", status="4.7.0", description=text, peer=self._peer())
            raise HostFailure(ending)
        await self._or_host_failure(deadline)
        reply = self._session.login_answer
        assert reply is not None, "without an error the login has been answered"
        if reply.code >= 300:
            raise HostFailure(replace(answered("auth", reply, self._peer()), final=False))
        self._facts = self._facts._replace(authentication=self._session.mechanism)

    def _note_tls(self, *, verified: bool) -> None:
        tls = self._stream.tls
        cipher = tls.cipher() if tls is not None else None
        der = tls.getpeercert(binary_form=True) if tls is not None else None
        names = read_names(der) if der else None
        certificate: dict[str, Any] = {"verified": verified}
        if names is not None:
            certificate |= {"subject": names.subject, "issuer": names.issuer, "notafter": names.not_after}
        self._facts = self._facts._replace(
            cipher={"name": cipher[0], "version": cipher[1], "bits": cipher[2]} if cipher else None,
            certificate=certificate,
        )

    async def _or_host_failure(self, deadline: float) -> None:
        try:
            await self._exchange(deadline)
        except (OSError, RemoteProtocolError) as error:
            self._broken = True
            raise HostFailure(self._network_ending(error, self._session.state)) from error

    async def deliver(self, transaction: Transaction, deadline: float) -> tuple[Ending, ...]:
        """Make one transaction; return how it ended for each forward-path.

        Args:
            deadline: The loop's time at which to give up, unless the whole content has been sent: the answer to the
                final dot is waited for as long as the timeouts say.
        """
        session = self._session
        if transaction.variant_for is not None:
            try:
                transaction = await transaction.variant_for(transaction, session.extensions)
            except HostFailure as failure:
                return (failure.ending,) * len(transaction.forward_paths)
        objection = session.objection(transaction)
        if objection is not None:
            ending = replace(answered("mailfrom", objection, self._peer()), ours=True)
            return (ending,) * len(transaction.forward_paths)
        self.messages += 1
        self._on_content = transaction.on_content
        session.begin(transaction)
        network: Ending | None = None
        try:
            await self._exchange(deadline)
        except (OSError, RemoteProtocolError) as error:
            self._broken = True
            network = self._network_ending(error, session.state)
        return tuple(self._endings(network))

    def _endings(self, network: Ending | None) -> list[Ending]:
        peer = self._peer()
        endings = []
        for answer in self._session.answers:
            if answer is not None:
                stale = self._is_stale(answer.state) and answer.reply.code == 421
                endings.append(answered(answer.state, answer.reply, peer, stale=stale))
            else:
                assert network is not None, "without an error every forward-path has been answered"
                endings.append(network)
        return endings

    def _is_stale(self, state: State) -> bool:
        return self.messages > 1 and state == "mailfrom"

    async def _exchange(self, deadline: float) -> None:
        """Say what the session has to say and take the answers, until none is due.

        Raises:
            TimeoutError: A phase or the attempt took too long.
            OSError: The connection broke.
            RemoteProtocolError: The peer left the protocol.
        """
        session = self._session
        while True:
            if data := session.data_to_send():
                if session.content_bytes_sent and self._on_content is not None:
                    self._on_content()
                    self._on_content = None
                self._write(data)
                if session.sending_content:
                    await self._send_content(deadline)
                continue
            if not session.waiting:
                return
            replies = session.replies
            until = self._now() + getattr(self._timeouts, session.phase)
            if session.phase != "dot":  # who gives up behind the final dot sends twice (RFC 5321 §4.5.3.2.6)
                until = min(deadline, until)
            while session.replies == replies:
                session.receive_data(await self._read(until))

    async def _send_content(self, deadline: float) -> None:
        """Send the rest of a content of several blocks, listening meanwhile: a refusal stops it."""
        session = self._session
        while session.sending_content:
            arrival = self._stream.arrival()
            draining = asyncio.ensure_future(self._stream.drain())
            draining.add_done_callback(_forget)
            try:
                async with asyncio.timeout_at(min(deadline, self._now() + self._timeouts.block)):
                    await asyncio.wait({arrival, draining}, return_when=asyncio.FIRST_COMPLETED)
                if arrival.done():
                    session.receive_data(await self._read(deadline))
                else:
                    draining.result()
                    self._write(session.data_to_send())
            finally:
                draining.cancel()

    def _write(self, data: bytes) -> None:
        self._stream.write(data)
        self._sent += len(data)

    async def _read(self, until: float) -> bytes:
        try:
            data = await self._stream.read(until)
        except TimeoutError:
            data = await self._read_late()
        if not data:
            raise PeerClosed("the mail host closed the connection")
        return data

    async def _read_late(self) -> bytes:
        """Look once more: if this process stood still, the answer may be here, and a 250 overlooked is a mail twice."""
        return await self._stream.read(self._now() + LAST_LOOK_S)

    async def rest(self, wake: asyncio.Future[bool], idle_s: float) -> None:
        """Wait for *wake*, at most *idle_s*. When the peer speaks or closes meanwhile, ``usable`` turns false."""
        arrival = self._stream.arrival()
        either: set[asyncio.Future[Any]] = {arrival, wake}
        await asyncio.wait(either, timeout=idle_s, return_when=asyncio.FIRST_COMPLETED)
        if arrival.done():
            self._broken = True

    async def close(self) -> None:
        """Take leave as far as that is possible without waiting, and close."""
        if not self._broken and not self._session.waiting:
            self._session.quit()
            with contextlib.suppress(OSError, RemoteProtocolError):
                await self._exchange(self._now() + QUIT_TIMEOUT_S)
        self.abort()

    def abort(self) -> None:
        """Close now."""
        self._broken = True
        self._stream.abort()

    def _peer(self) -> PeerFacts:
        return self._facts._replace(
            messages=self.messages or None,
            sent_connection=self._sent,
            sent_data=self._session.content_bytes_sent or None,
        )

    def _network_ending(self, error: Exception, state: State) -> Ending:
        result = _result_word(error)
        stale = result == "lost" and self._is_stale(state)
        text = "no answer in time" if result == "timeout" else str(error) or type(error).__name__
        return Ending(
            state=state, result=result, status=_STATUS.get(result), description=text, stale=stale, peer=self._peer()
        )


def _result_word(error: Exception) -> ResultWord:
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, RemoteProtocolError):
        return "invalid"
    return "error" if isinstance(error, ssl.SSLError) else "lost"


def _forget(task: asyncio.Future[Any]) -> None:
    """Take a result that nobody waits for any more, so that nobody complains that it was not taken."""
    if not task.cancelled():
        task.exception()
