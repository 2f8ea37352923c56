"""One connection to the sink: carries a ``ServerSession``, says yes to everything, and fails where it is told to.

Everything happens in the callbacks of the loop, so that without faults a message costs little more than its bytes. A
client that breaks the rules or the connection ends its own session and nothing else.
"""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

from mtaq.cli.sink_faults import Fault, Faults
from mtaq.cli.sink_record import Ends, Record
from mtaq.model.reply import Reply
from mtaq.net.tls import tls_facts
from mtaq.smtp import codes
from mtaq.smtp.server_session import Event, Mail, MessageComplete, Rcpt, ServerSession, SessionOptions

Proceed = Callable[[Reply | None], None]

_HANDSHAKE_TIMEOUT_S = 60.0


@dataclass(slots=True)
class Sink:
    """What all connections share.

    Attributes:
        context: For STARTTLS; ``None`` when it is not offered.
        connections: Those that are open.
    """

    options: SessionOptions
    record: Record
    faults: Faults
    context: ssl.SSLContext | None = None
    connections: set[SinkConnection] = field(default_factory=set)


class SinkConnection(asyncio.Protocol):
    """One connection, from its greeting to its end."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._session = ServerSession(sink.options)
        self._transport: asyncio.Transport | None = None
        self._waiting = False  # for a delay or a TLS handshake
        self._timer: asyncio.TimerHandle | None = None
        self._handshake: asyncio.Task[None] | None = None
        self._held = bytearray()  # only when commands must be looked at before the session gets them
        self._idle: asyncio.TimerHandle | None = None

    def shut_down(self) -> None:
        """Say that the server goes away, and close."""
        if self._handshake is not None and not self._handshake.done():
            self._handshake.cancel()
            return
        self._session.refuse(codes.SHUTTING_DOWN)
        self._flush()

    # Called by the loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet."""
        self._transport = cast(asyncio.Transport, transport)
        self._sink.connections.add(self)
        self._watch()
        self._at("connect", self._greet)

    def data_received(self, data: bytes) -> None:
        """Work through what came."""
        self._watch()
        if self._sink.faults.in_commands:
            self._held += data
        else:
            self._session.receive_data(data)
        if not self._waiting:
            self._pump()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the session."""
        self._transport = None
        self._sink.connections.discard(self)
        for timer in (self._timer, self._idle):
            if timer is not None:
                timer.cancel()

    # The session

    def _greet(self, answer: Reply | None) -> None:
        if answer is None:
            self._session.greet()
        else:
            self._session.refuse(answer)
        self._pump()

    def _pump(self) -> None:
        while not self._waiting and self._transport is not None:
            event = self._session.next_event()
            if event is not None:
                self._decide(event)
            elif self._session.must_send:
                self._flush()
            elif not self._held or not self._feed_held():
                break
        self._flush()

    def _decide(self, event: Event) -> None:
        if isinstance(event, MessageComplete):
            self._at("message", lambda answer: self._session.answer(self._end_message(event, answer)))
        elif isinstance(event, Mail):
            self._at("mail", lambda answer: self._session.answer(answer or codes.SENDER_OK))
        elif isinstance(event, Rcpt):
            self._at("rcpt", lambda answer: self._session.answer(answer or codes.RECIPIENT_OK))
        else:
            self._start_tls()

    def _end_message(self, event: MessageComplete, answer: Reply | None) -> Reply:
        if answer is not None and not answer.is_positive:
            return answer
        taken = self._take(event)
        return answer if answer is not None and taken.is_positive else taken

    def _take(self, event: MessageComplete) -> Reply:
        try:
            self._sink.record.take(self._ends(), event.transaction, event.content)
        except OSError as error:
            print(f"not stored: {error}", file=sys.stderr)
            return codes.TRY_LATER
        return codes.ACCEPTED

    def _ends(self) -> Ends:
        transport = self._transport
        assert transport is not None
        session = transport.get_extra_info("ssl_object")
        return Ends(
            local_ip=_ip(transport.get_extra_info("sockname")),
            remote_ip=_ip(transport.get_extra_info("peername")),
            helo=self._session.helo,
            tls=tls_facts(session) if session is not None else None,
        )

    def _flush(self) -> None:
        if self._transport is None:
            return
        replies = self._session.data_to_send()
        if replies:
            self._transport.write(replies)
        if self._session.finished:
            self._transport.close()

    def _watch(self) -> None:
        """Close a session that is silent for too long."""
        if self._idle is None or self._idle.when() < asyncio.get_running_loop().time() + self._session.timeout_s / 2:
            if self._idle is not None:
                self._idle.cancel()
            self._idle = asyncio.get_running_loop().call_later(self._session.timeout_s, self._time_out)

    def _time_out(self) -> None:
        self._session.refuse(codes.TIMEOUT)
        self._flush()

    # Faults

    def _at(self, stage: str, proceed: Proceed) -> None:
        """Go on with *stage*, or let happen what was asked for."""
        fault = self._sink.faults.next(stage)
        if fault is None:
            proceed(None)
        elif fault.delay_s:
            self._flush()
            self._pause(True)
            self._timer = asyncio.get_running_loop().call_later(fault.delay_s, self._after_delay, fault, proceed)
        else:
            self._apply(fault, proceed)

    def _after_delay(self, fault: Fault, proceed: Proceed) -> None:
        self._pause(False)
        if not self._session.finished:
            self._apply(fault, proceed)
            self._pump()

    def _apply(self, fault: Fault, proceed: Proceed) -> None:
        if fault.drop:
            if self._transport is not None:
                self._transport.abort()
                self._transport = None
        else:
            proceed(fault.reply)

    def _pause(self, waiting: bool) -> None:
        self._waiting = waiting
        if self._transport is not None and not self._transport.is_closing():
            if waiting:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    def _feed_held(self) -> bool:
        """Give the session the next line; ``False`` when there is no whole one.

        The session answers EHLO and DATA itself; where they are to fail, it must not see them.
        """
        end = self._held.find(b"\n") + 1 or (len(self._held) if self._session.in_content else 0)
        line = bytes(self._held[:end])
        del self._held[:end]
        stage = None if self._session.in_content else self._stage_of(line)
        if stage is None:
            self._session.receive_data(line)
        else:
            self._at(stage, lambda answer: self._answer_command(line, answer))
        return bool(line)

    def _stage_of(self, line: bytes) -> str | None:
        verb = line[:4].upper()
        if verb in (b"EHLO", b"HELO"):
            return "ehlo"
        transaction = self._session.transaction
        return "data" if verb == b"DATA" and transaction is not None and transaction.forward_paths else None

    def _answer_command(self, line: bytes, answer: Reply | None) -> None:
        if answer is None:
            self._session.receive_data(line)
        elif answer.code == 421:
            self._session.refuse(answer)
        elif self._transport is not None:
            self._transport.write(self._session.data_to_send() + answer.encode())

    # TLS

    def _start_tls(self) -> None:
        self._session.answer(codes.START_TLS)
        self._flush()
        self._held.clear()
        self._pause(True)  # nothing may come in clear any more (RFC 3207 §4.2)
        self._session.reset_for_tls()  # now: commands may come with the end of the handshake, before it is reported
        self._handshake = asyncio.get_running_loop().create_task(self._shake_hands())

    async def _shake_hands(self) -> None:
        transport, context = self._transport, self._sink.context
        if transport is None or context is None:
            return
        try:
            self._transport = await asyncio.get_running_loop().start_tls(
                transport, self, context, server_side=True, ssl_handshake_timeout=_HANDSHAKE_TIMEOUT_S
            )
        except (OSError, asyncio.CancelledError):
            transport.abort()
            return
        self._waiting = False
        self._pump()


def _ip(name: tuple[str, int]) -> str:
    address = ipaddress.ip_address(name[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)
