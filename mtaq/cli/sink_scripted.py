"""One connection to a sink that misbehaves: carries a ``ServerSession``, and looks at every command before it gets it.

A coroutine for each connection, which costs more than ``sink_connection`` and can wait anywhere. The session answers
EHLO, DATA and others itself; where they are to fail, it must not see them. What goes wrong when is ``sink_faults``',
how it looks on the wire ``sink_acts``'.
"""

from __future__ import annotations

import asyncio
import hmac
import re
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial

from mtaq.cli.sink_acts import READ_BYTES, Over, Wire
from mtaq.cli.sink_extensions import NOT_PIPELINING, announced, objection, submitter
from mtaq.cli.sink_faults import Fault, Scene
from mtaq.cli.sink_record import Ends
from mtaq.cli.sink_state import Sink, ends_of, place_of
from mtaq.model.address import address_text
from mtaq.model.reply import Reply
from mtaq.smtp import codes
from mtaq.smtp.server_session import Event, Login, Mail, MessageComplete, Rcpt, ServerSession, StartTls

Answer = Callable[[Reply | None], Awaitable[None]]

UNASKED = b"250 2.0.0 nobody asked for this\r\n250 2.0.0 nor for this\r\n"

_VERBS = (b"EHLO", b"BDAT", b"STARTTLS", b"AUTH", b"MAIL", b"RCPT", b"DATA", b"RSET", b"NOOP", b"QUIT")
_STAGES = {verb: verb.decode("ascii").lower() for verb in _VERBS} | {b"HELO": "ehlo"}
#: Stages that are commands which the session answers itself, and the codes by which it has to know that it did.
_COMMANDS = {"ehlo": 250, "auth": 0, "data": 354, "rset": 250, "noop": 250, "quit": 221}
_match_chunk = re.compile(rb"(?i:BDAT) +([0-9]{1,20})").match


def content_size(buffer: bytes | bytearray, *, begins: bool) -> int:
    """
    Return how many octets at the beginning of *buffer* surely are content of DATA, its end included.

    Args:
        begins: Is it the very beginning of the content?
    """
    if begins and buffer.startswith(b".\r\n"):
        return 3
    end = buffer.find(b"\r\n.\r\n")
    return end + 5 if end >= 0 else max(0, len(buffer) - 4)


class ScriptedConnection:
    """One connection, from its greeting to its end."""

    def __init__(self, sink: Sink, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._sink = sink
        self._wire = Wire(reader, writer)
        self._session = ServerSession(sink.options)
        names = writer.get_extra_info("sockname"), writer.get_extra_info("peername")
        self._ends = ends_of(sink.record.next_connection(), *names)
        self._scene = Scene(place_of(names[0]), self._ends.remote_ip)
        self._in_login = False
        self._chunk_left: int | None = None  # of BDAT; None in DATA
        self._content_fault: Fault | None = None
        self._content_seen = 0
        self._idle_fault: Fault | None = None
        self._kept = False
        self._submitter: str | None = None
        self._task = asyncio.current_task()

    def shut_down(self) -> None:
        """Say that the server goes away, and close."""
        self._session.refuse(codes.SHUTTING_DOWN)
        self._wire.writer.write(self._session.data_to_send())
        self._wire.writer.close()
        if self._task is not None:
            self._task.cancel()

    async def run(self) -> None:
        """Hold the session, to its end."""
        over = Over("client")
        self._sink.connections.add(self)
        try:
            await self._open()
            while not self._session.finished:
                await self._turn()
            await self._wire.flush()
            over = Over("quit" if self._session.farewell is codes.GOODBYE else "refused")
        except Over as end:
            over = end
        except OSError:
            pass
        finally:
            self._sink.connections.discard(self)
            self._sink.limits.closed(self._ends.remote_ip)
            self._note("closed", how=over.how, messages=self._scene.message)
        await self._wire.close(abort=over.abort)

    async def _open(self) -> None:
        refusal = self._sink.limits.opened(self._ends.remote_ip)
        self._scene.connection = self._sink.limits.accepted
        self._note("opened")
        if self._sink.implicit_tls:
            await self._shake_hands()
        if refusal is not None:
            await self._greet(refusal)
        else:
            await self._at("connect", self._greet)
        self._collect("connect")

    async def _greet(self, reply: Reply | None) -> None:
        if reply is not None and not reply.is_positive:
            self._session.refuse(reply)
            return
        self._session.greet()
        if reply is not None:
            self._replace_answer("connect", reply)

    async def _turn(self) -> None:
        if self._session.in_content:
            await self._feed(await self._content())
            self._collect("message")
            if self._session.transaction is None:
                self._idle_fault = self._next("idle")
        else:
            await self._obey(await self._line())

    # Input

    async def _line(self) -> bytes:
        """Return the next line; an endless one in pieces, which the session bounds."""
        while not (end := self._wire.held.find(b"\n") + 1) and len(self._wire.held) < READ_BYTES:
            await self._receive()
        return self._wire.take(end or len(self._wire.held))

    async def _content(self) -> bytes:
        """Return the next octets that are content, and no more."""
        while not (size := self._content_size()):
            await self._receive()
        if self._chunk_left is not None:
            self._chunk_left -= size
        self._content_seen += size
        fault = self._content_fault
        if fault is not None and self._content_seen >= fault.after_bytes:
            self._content_fault = Fault(bytes_per_s=fault.bytes_per_s, after_bytes=sys.maxsize)
            await self._perform("content", fault, self._interrupt)
        return self._wire.take(size)

    def _content_size(self) -> int:
        if self._chunk_left is not None:
            return min(self._chunk_left, len(self._wire.held))
        return content_size(self._wire.held, begins=not self._content_seen)

    async def _receive(self) -> None:
        """Wait for more, and say meanwhile what is to be said; in content perhaps slowly."""
        await self._wire.flush()
        rate = self._content_fault.bytes_per_s if self._content_fault is not None and self._session.in_content else 0
        try:
            async with asyncio.timeout(self._session.timeout_s):
                data = await (self._wire.read_slowly(rate) if rate else self._read())
        except TimeoutError:
            self._session.refuse(codes.TIMEOUT)
            self._collect("")
            await self._wire.flush()
            raise Over("timeout") from None
        if not data:
            raise Over("client")
        self._wire.held += data

    async def _read(self) -> bytes:
        fault, self._idle_fault = self._idle_fault, None
        if fault is not None:
            try:
                async with asyncio.timeout(fault.delay_s):
                    return await self._wire.read()
            except TimeoutError:
                await self._perform("idle", replace(fault, delay_s=0.0), self._interrupt)
                await self._wire.flush()
        return await self._wire.read()

    # Commands

    async def _obey(self, line: bytes) -> None:
        verb = line.partition(b" ")[0].strip().upper()
        stage = "auth" if self._in_login else _STAGES.get(verb, "")
        refusal = None if self._in_login else self._objection(line)
        if refusal is not None:
            self._wire.say(self._logged(stage, refusal.encode()))
            return
        if stage == "mail":
            self._submitter = submitter(line)
        if stage in _COMMANDS and not self._in_login and self._is_in_order(stage):
            await self._at(stage, partial(self._command, stage, line))
        else:
            await self._feed(line)
        self._collect(stage)
        if self._session.in_content:
            self._begin_content(line)

    def _objection(self, line: bytes) -> Reply | None:
        without = self._sink.profile.without
        if "PIPELINING" in without and self._wire.held and _match_chunk(line) is None:
            self._wire.held.clear()
            return NOT_PIPELINING
        return objection(line, without)

    def _is_in_order(self, stage: str) -> bool:
        transaction = self._session.transaction
        return stage != "data" or (transaction is not None and bool(transaction.forward_paths))

    async def _command(self, stage: str, line: bytes, reply: Reply | None) -> None:
        if reply is None or reply.code == _COMMANDS[stage]:
            await self._feed(line)
            if reply is not None:
                self._replace_answer(stage, reply)
        elif reply.code == 421:
            self._session.refuse(reply)
        else:
            self._wire.say(self._logged(stage, reply.encode()))

    def _begin_content(self, line: bytes) -> None:
        chunk = _match_chunk(line)
        self._chunk_left = int(chunk[1]) if chunk is not None else None
        if not self._content_seen:
            self._content_fault = self._next("content")

    async def _interrupt(self, reply: Reply | None) -> None:
        """Say something that nobody waits for: in the middle of content, or between transactions."""
        if reply is None:
            return
        in_content = self._session.in_content
        self._wire.say(self._logged("content" if in_content else "idle", reply.encode()))
        if in_content or reply.code == 421:
            await self._wire.flush()
            if not in_content:
                raise Over("refused")
            await self._wire.stall()

    # The session

    async def _feed(self, data: bytes) -> None:
        session = self._session
        session.receive_data(data)
        while (event := session.next_event()) is not None:
            await self._decide(event)

    async def _decide(self, event: Event) -> None:
        if isinstance(event, Mail):
            await self._on_mail(event)
        elif isinstance(event, Rcpt):
            self._scene.recipients.append(str(event.forward_path))
            await self._at("rcpt", partial(self._settle, codes.RECIPIENT_OK))
            transaction = self._session.transaction
            if transaction is None or len(self._scene.recipients) > len(transaction.forward_paths):
                self._scene.recipients.pop()
        elif isinstance(event, MessageComplete):
            await self._on_message(event)
        elif isinstance(event, StartTls):
            await self._at("starttls", self._start_tls)
        else:
            self._session.answer(self._judge(event))

    async def _on_mail(self, event: Mail) -> None:
        scene = self._scene
        scene.message += 1
        scene.sender, scene.recipients = address_text(event.reverse_path), []
        self._content_seen = 0
        now = asyncio.get_running_loop().time()
        refusal = self._sink.limits.begins(self._ends.remote_ip, scene.message, now)
        if refusal is not None:
            self._session.answer(refusal)
        else:
            await self._at("mail", partial(self._settle, codes.SENDER_OK))

    async def _settle(self, right: Reply, reply: Reply | None) -> None:
        self._session.answer(reply or right)

    async def _on_message(self, event: MessageComplete) -> None:
        fault = self._next("message")
        self._kept = fault is not None and fault.keep and self._sink.take(self._ends_now, event).is_positive
        await self._perform("message", fault, partial(self._settle_message, event))

    async def _settle_message(self, event: MessageComplete, reply: Reply | None) -> None:
        if reply is None or reply.is_positive:
            taken = codes.ACCEPTED if self._kept else self._sink.take(self._ends_now, event)
            reply = reply if reply is not None and taken.is_positive else taken
        self._session.answer(reply)

    def _judge(self, event: Event) -> Reply:
        assert isinstance(event, Login), "no other mechanism is offered"
        known = (self._sink.profile.logins or {}).get(event.user, "")
        same = hmac.compare_digest(known.encode(), event.password.encode())
        return codes.LOGGED_IN if known and same else codes.LOGIN_FAILED

    # Faults

    def _next(self, stage: str) -> Fault | None:
        scene, session = self._scene, self._session
        scene.helo, scene.secure = session.helo, session.secure
        return self._sink.faults.next(stage, scene)

    async def _at(self, stage: str, answer: Answer) -> None:
        """Let *answer* give the right answer, or another; or let happen what was asked for."""
        await self._perform(stage, self._next(stage), answer)

    async def _perform(self, stage: str, fault: Fault | None, answer: Answer) -> None:
        if fault is None:
            await answer(None)
            return
        if fault.act:
            self._note("fault", stage=stage, fault=fault.act)
        if fault.delay_s or fault.act or fault.pace_s:
            await self._wire.flush()
        if fault.delay_s:
            await asyncio.sleep(fault.delay_s)
        if fault.act:
            await self._wire.act(fault.act, stage)
        await answer(self._filled(fault.reply))
        self._collect(stage)
        if fault.unasked:
            self._wire.say(UNASKED)
        if fault.pace_s:
            await self._wire.flush(pause_s=fault.pace_s)
        if fault.close:
            await self._wire.flush()
            raise Over("close")

    def _filled(self, reply: Reply | None) -> Reply | None:
        if reply is None or "{" not in reply.text:
            return reply
        to = self._scene.recipients[-1] if self._scene.recipients else ""
        lines = (line.replace("{ip}", self._scene.client_ip).replace("{to}", to) for line in reply.lines)
        return replace(reply, lines=tuple(lines))

    # TLS

    async def _start_tls(self, reply: Reply | None) -> None:
        self._session.answer(reply or codes.START_TLS)
        if reply is not None and reply.code != 220:
            return
        self._collect("starttls")
        # Nothing may come in clear any more (RFC 3207 §4.2), not into the buffer either.
        self._wire.pause_reading()
        await self._wire.flush()
        self._session.reset_for_tls()
        await self._shake_hands()

    async def _shake_hands(self) -> None:
        await self._at("handshake", self._greet_in_clear)
        context = self._sink.context
        assert context is not None, "it is offered only where there is one"
        try:
            await self._wire.start_tls(context)
        except OSError as error:
            self._note("fault", stage="handshake", fault=str(error))
            raise Over("handshake", abort=True) from error
        self._session.secure = True

    async def _greet_in_clear(self, reply: Reply | None) -> None:
        if reply is not None:
            self._wire.say(reply.encode())
            await self._wire.flush()
            await self._wire.stall()

    # Output

    def _collect(self, stage: str) -> None:
        """Take what the session has to say."""
        replies = self._session.data_to_send()
        if stage == "ehlo" and replies.startswith(b"250"):
            replies = announced(replies, self._sink.profile.without)
        if replies:
            self._in_login = replies.startswith(b"334")
            self._wire.say(self._logged(stage, replies))

    def _replace_answer(self, stage: str, reply: Reply) -> None:
        self._session.data_to_send()
        self._wire.say(self._logged(stage, reply.encode()))

    def _logged(self, stage: str, replies: bytes) -> bytes:
        if self._sink.record.everything and replies[:1] in (b"4", b"5"):
            text = replies.decode("utf-8", "replace").rstrip("\r\n")
            paths = {"reverse-path": self._scene.sender, "forward-paths": self._scene.recipients}
            self._note("refused", stage=stage, reply=text, **(paths if self._scene.message else {}))
        return replies

    # The log

    def _note(self, event: str, **facts: object) -> None:
        if self._sink.record.everything:
            self._sink.record.note(event, self._ends_now(), **facts)

    def _ends_now(self) -> Ends:
        session = self._session
        return replace(
            self._ends,
            helo=session.helo,
            tls=self._wire.tls,
            user=session.user,
            message=self._scene.message,
            submitter=self._submitter,
        )
