"""Carries bytes between a transport and a ``ServerSession``, one thing at a time.

The half of a connection that knows nothing of mail. Either the session is worked on, or one task finds the answer to
its last event or waits for room, and what comes meanwhile piles up, up to a bound beyond which the client is not read.
When the task is over the session goes on; without a client nothing goes on, and the slot is free.

The base is aiosmtpd's ``SMTP`` protocol class; its stream reader, command loop and constructor are left out, because
they cost more than everything else here (about 90 µs a connection and two task switches a command,
docs/develop/performance.md).
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from aiosmtpd.smtp import SMTP

from mtaq.model.reply import Reply
from mtaq.receive.holding import Holding
from mtaq.receive.policy import PortPolicy
from mtaq.receive.progress import Progress
from mtaq.smtp import codes
from mtaq.smtp.server_events import Event
from mtaq.smtp.server_session import ServerSession

if TYPE_CHECKING:
    from mtaq.receive.service import ReceptionService

#: Input kept while an answer is awaited; beyond it the client is not read.
MAX_WAITING_BYTES = 256 * 1024


class Carrier(SMTP):
    """Part of ``SmtpConnection``, which describes the attributes."""

    def __init__(self, service: ReceptionService, policy: PortPolicy, slot: int | None) -> None:
        self.loop = service.loop
        self.event_handler = service
        self.transport: asyncio.Transport | None = None
        self.policy = policy
        self.progress = Progress(service.loop.time())
        self.smtp: ServerSession
        self._service = service
        self._slot = slot
        self._read_paused = False
        self._write_paused = False
        self._half_closed = False
        self._farewell: Reply | None = None
        self._task: asyncio.Task[None] | None = None
        self._holding = Holding(service.memory)

    def __del__(self) -> None:
        """aiosmtpd's expects a stream reader's future; there is none."""

    def _ask(self, event: Event) -> None:
        """Have an event of the session answered, at once or by a task that is started."""
        raise NotImplementedError

    def _advance(self) -> None:
        if not self._is_open:
            return  # whoever is gone never learns what became of commands not yet looked at, and repeats them
        while self._task is None and not self._write_paused:
            if self._holding.must_wait(self.smtp):
                self._start(self._holding.begin(self.smtp))
                break
            event = self.smtp.next_event()
            if event is None:
                if not self.smtp.must_send:
                    break
                self._flush()
            else:
                self._ask(event)
        self._flush()
        if self._task is None and not self._holding.follow(self.smtp):
            self._start(self._holding.go_on(self.smtp))
        self._apply_back_pressure()

    def _flush(self) -> None:
        transport = self.transport
        if transport is None:
            return
        data = self.smtp.data_to_send()
        if data:
            transport.write(data)
            self.progress.spoke(self.loop.time())
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
        self._task = self.loop.create_task(self._until_settled(work))
        self._service.watch(self._task)

    async def _until_settled(self, work: Coroutine[Any, Any, None]) -> None:
        """Do *work*, then go on with the session; without an answer, the client is told to try again."""
        try:
            await work
        finally:
            self._task = None
            if self.smtp.awaiting_answer:
                self.smtp.answer(codes.TRY_LATER)
            self._go_on()

    def _go_on(self) -> None:
        if self.transport is None:
            self._holding.release()
        if self._service.stopping and not self.smtp.in_content:
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
