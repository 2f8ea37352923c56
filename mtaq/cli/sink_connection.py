"""One connection to a sink that behaves: carries a ``ServerSession`` and says yes to everything.

Everything happens in the callbacks of the loop, so that a message costs little more than its bytes; a sink that is to
misbehave uses ``sink_scripted``. A client that breaks the rules or the connection ends its own session, nothing else.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import cast

from mtaq.cli.sink_record import Ends
from mtaq.cli.sink_state import Sink, ends_of
from mtaq.net.tls import tls_facts
from mtaq.smtp import codes
from mtaq.smtp.server_session import Event, Mail, MessageComplete, Rcpt, ServerSession

#: Longest TLS handshake.
HANDSHAKE_TIMEOUT_S = 60.0


class SinkConnection(asyncio.Protocol):
    """One connection, from its greeting to its end."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._session = ServerSession(sink.options, secure=sink.implicit_tls)
        self._transport: asyncio.Transport | None = None
        self._ends: Ends | None = None  # only once somebody wants to know
        self._messages = 0
        self._shaking_hands: asyncio.Task[None] | None = None
        self._idle: asyncio.TimerHandle | None = None

    def shut_down(self) -> None:
        """Say that the server goes away, and close."""
        if self._shaking_hands is not None:
            self._shaking_hands.cancel()
            return
        self._session.refuse(codes.SHUTTING_DOWN)
        self._flush()

    # Called by the loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet."""
        self._transport = cast(asyncio.Transport, transport)
        self._sink.connections.add(self)
        self._watch()
        self._session.greet()
        self._pump()

    def data_received(self, data: bytes) -> None:
        """Work through what came."""
        self._watch()
        self._session.receive_data(data)
        if self._shaking_hands is None:
            self._pump()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the session."""
        self._transport = None
        self._sink.connections.discard(self)
        if self._idle is not None:
            self._idle.cancel()

    # The session

    def _pump(self) -> None:
        session = self._session
        while self._transport is not None and self._shaking_hands is None:
            event = session.next_event()
            if event is not None:
                self._decide(event)
            elif session.must_send:
                self._flush()
            else:
                break
        self._flush()

    def _decide(self, event: Event) -> None:
        if isinstance(event, Mail):
            self._messages += 1
            self._session.answer(codes.SENDER_OK)
        elif isinstance(event, Rcpt):
            self._session.answer(codes.RECIPIENT_OK)
        elif isinstance(event, MessageComplete):
            self._session.answer(self._sink.take(self._ends_now, event))
        else:
            self._start_tls()

    def _ends_now(self) -> Ends:
        transport = self._transport
        assert transport is not None
        if self._ends is None:
            names = transport.get_extra_info("sockname"), transport.get_extra_info("peername")
            self._ends = ends_of(self._sink.record.next_connection(), *names)
        session = transport.get_extra_info("ssl_object")
        tls = tls_facts(session) if session is not None else None
        return replace(self._ends, helo=self._session.helo, tls=tls, message=self._messages)

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

    # TLS

    def _start_tls(self) -> None:
        self._session.answer(codes.START_TLS)
        self._flush()
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()  # nothing may come in clear any more (RFC 3207 §4.2)
        self._session.reset_for_tls()  # now: commands may come with the end of the handshake, before it is reported
        self._shaking_hands = asyncio.get_running_loop().create_task(self._shake_hands())

    async def _shake_hands(self) -> None:
        transport, context = self._transport, self._sink.context
        if transport is None or context is None:
            return
        try:
            self._transport = await asyncio.get_running_loop().start_tls(
                transport, self, context, server_side=True, ssl_handshake_timeout=HANDSHAKE_TIMEOUT_S
            )
        except (OSError, asyncio.CancelledError):
            transport.abort()
            return
        self._shaking_hands = None
        self._pump()
