"""An SMTP session seen from the server: octets in, replies and events out (RFC 5321 §3, §4).

Decides what is a command, whether it is in order (the table ``_VERBS``), where content ends, and every answer that
needs no policy. Whether a reverse-path, a forward-path, a message or TLS is wanted is asked of the carrier, one event
at a time: it calls ``answer``. No I/O and no clock: timeouts, and what a refusal costs a client, are the carrier's.

Any octets lead to replies and events, never to an exception. ``LocalProtocolError`` means the carrier is wrong.

Choices where the standards leave one (docs/reference/standards.md):

- Commands end in CRLF only. One that holds another control character is refused as a whole.
- Content with a bare CR or LF, a NUL, or a line beyond 998 octets is read to its true end and refused, never
  repaired; BODY=BINARYMIME is free of all three.
- Octets sent behind STARTTLS are forgotten with everything else.
- A BDAT whose size cannot be read ends the session: the chunk behind it would be taken for commands.
- Malformed addresses and refused recipients are not errors of the session; mailing lists have them.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable
from typing import NamedTuple

from mtaq.model.errors import LocalProtocolError
from mtaq.model.reply import Reply, reply
from mtaq.smtp import codes, grammar
from mtaq.smtp.data import ContentBuffer, DataDecoder, has_bare_cr_or_lf, has_long_line
from mtaq.smtp.extensions import BadParameter, Body, ehlo_reply, parse_mail_parameters, parse_rcpt_parameters
from mtaq.smtp.input import InputBuffer
from mtaq.smtp.server_events import Event, Mail, MessageComplete, Rcpt, SessionOptions, StartTls, Transaction

__all__ = ["Event", "Mail", "MessageComplete", "Rcpt", "ServerSession", "SessionOptions", "StartTls", "Transaction"]

#: Replies that may wait to be sent. A client that sends EHLO after EHLO and reads nothing gets twenty octets for one of
#: its own, so their number is what bounds memory.
MAX_QUEUED_REPLIES = 500

_find_control = re.compile(rb"[\x00-\x1f\x7f]").search
_match_chunk_size = re.compile(rb"([0-9]{1,20})(?: +(?i:(LAST)))?").fullmatch
# A Domain or an address literal at its loosest: it goes into Received fields, so nothing that ends a comment there.
_is_helo_name = re.compile(rb"[A-Za-z0-9_\[][A-Za-z0-9._:\]\[/+-]{0,254}").fullmatch


class _Mode(enum.Enum):
    """What the next octets are."""

    GREETING = enum.auto()  #: kept until the greeting is queued
    COMMAND = enum.auto()
    DATA = enum.auto()
    CHUNK = enum.auto()
    TLS = enum.auto()  #: dropped: injected between STARTTLS and the handshake
    FINISHED = enum.auto()


class _Step(enum.Enum):
    """How far the session and its transaction have come (RFC 5321 §4.1.4)."""

    OPENED = enum.auto()
    INTRODUCED = enum.auto()
    TRANSACTION = enum.auto()
    CHUNKS = enum.auto()


class ServerSession:
    """One SMTP session, from the greeting to QUIT.

    Attributes:
        options: As given.
        transaction: The open one, or ``None``.
        helo: The name the client gave; empty before EHLO or HELO.
        esmtp: It was EHLO.
        secure: TLS is on.
    """

    __slots__ = (
        "_chunk_answer",
        "_chunk_is_last",
        "_chunk_left",
        "_chunk_size",
        "_content",
        "_decoder",
        "_errors",
        "_forgiving",
        "_input",
        "_mode",
        "_outstanding",
        "_replies",
        "esmtp",
        "helo",
        "options",
        "secure",
        "transaction",
    )

    def __init__(self, options: SessionOptions, *, secure: bool = False) -> None:
        self.options = options
        self.secure = secure
        self.helo = ""
        self.esmtp = False
        self.transaction: Transaction | None = None
        self._mode = _Mode.GREETING
        self._outstanding: Event | None = None
        self._replies: list[bytes] = []
        self._errors = 0
        self._forgiving = False  # a refusal may have commands pipelined behind it that are now out of order
        self._input = InputBuffer(options.max_line_bytes)
        self._decoder: DataDecoder | None = None
        self._content: ContentBuffer | None = None  # of BDAT; None while a refused chunk is dropped
        self._chunk_size = 0
        self._chunk_left = 0
        self._chunk_is_last = False
        self._chunk_answer: Reply | None = None  # refusal to give once the chunk has gone by

    # What the carrier calls

    def greet(self) -> None:
        """Queue the 220 and begin to listen. What was received before waits until now."""
        if self._mode is _Mode.GREETING:
            self._say(codes.greeting(self.options.hostname))
            self._mode = _Mode.COMMAND

    def refuse(self, answer: Reply) -> None:
        """Queue *answer* (421, 554) and finish: instead of ``greet``, or at any later time.

        An event that is outstanding is forgotten and must not be answered any more.
        """
        if self._mode is _Mode.FINISHED:
            return
        self._say(answer)
        self._mode = _Mode.FINISHED
        self._input.clear()
        self._end_transaction()
        self._decoder = self._outstanding = None

    def receive_data(self, data: bytes | memoryview) -> None:
        """Add what came from the peer; ``next_event`` looks at it. While an event is outstanding it only piles up."""
        if self._mode is not _Mode.FINISHED and self._mode is not _Mode.TLS:
            self._input.append(data)

    def next_event(self) -> Event | None:
        """
        Work through the input up to the next question for the carrier.

        Returns:
            ``None`` when the input is used up, the session is finished, the last event awaits its answer, or replies
            must be sent first (``must_send``).
        """
        if self._outstanding is not None:
            return None
        event = self._outstanding = self._advance()
        if isinstance(event, MessageComplete):
            # The content is the carrier's now; held here too, it would stay until the answer.
            self._outstanding = MessageComplete(event.transaction, b"")
        return event

    def answer(self, answer: Reply) -> None:
        """
        Answer the last event. 421 also finishes the session (RFC 5321 §3.8).

        Raises:
            LocalProtocolError: There is none.
        """
        event, self._outstanding = self._outstanding, None
        if event is None:
            raise LocalProtocolError("an answer without an event")
        if answer.code == 421:
            self.refuse(answer)
        else:
            self._say(answer)
            self._settle(event, answer.is_positive)

    def data_to_send(self) -> bytes:
        """Return all queued replies, for one write (RFC 2920 §3.2), and forget them."""
        replies = self._replies
        if len(replies) == 1:
            return replies.pop()
        sent = b"".join(replies)
        replies.clear()
        return sent

    def reset_for_tls(self) -> None:
        """Begin anew inside TLS, everything said before forgotten (RFC 3207 §4.2); EHLO is needed again."""
        self.secure = True
        self.helo = ""
        self.esmtp = False
        self.transaction = None
        self._forgiving = False
        self._input.clear()
        self._mode = _Mode.COMMAND

    @property
    def finished(self) -> bool:
        """Nothing more is taken from the peer: flush and close."""
        return self._mode is _Mode.FINISHED

    @property
    def must_send(self) -> bool:
        """Do so many replies wait that nothing more is looked at before ``data_to_send``?"""
        return len(self._replies) >= MAX_QUEUED_REPLIES

    @property
    def awaiting_answer(self) -> bool:
        """Does an event wait for ``answer``?"""
        return self._outstanding is not None

    @property
    def in_content(self) -> bool:
        """Is content coming in, in DATA or in a BDAT chunk?"""
        return self._mode is _Mode.DATA or self._mode is _Mode.CHUNK

    @property
    def buffered_bytes(self) -> int:
        """Octets received and not looked at: pause reading when they grow."""
        return len(self._input)

    @property
    def timeout_s(self) -> float:
        """Longest silence; see ``SessionOptions``."""
        return self.options.timeout_s

    # Input

    def _advance(self) -> Event | None:
        while len(self._replies) < MAX_QUEUED_REPLIES:
            event = None
            if self._mode is _Mode.COMMAND:
                line = self._input.take_line()
                if line is None:
                    return None
                event = self._obey(line)
            elif self._mode is _Mode.DATA:
                if not self._take_data():
                    return None
                event = self._end_data()
            elif self._mode is _Mode.CHUNK:
                if not self._take_chunk():
                    return None
                event = self._end_chunk()
            else:
                return None
            if event is not None:
                return event
        return None

    def _take_data(self) -> bool:
        decoder = self._decoder
        assert decoder is not None
        received = self._input
        if not received:
            return False
        received.position = decoder.feed(received.data, received.position)
        if not decoder.finished:
            received.clear()  # not kept twice
        return decoder.finished

    def _take_chunk(self) -> bool:
        received = self._input
        taken = min(self._chunk_left, len(received))
        stop = received.position + taken
        if self._content is not None:
            self._content.append(memoryview(received.data)[received.position : stop])
        received.position = stop
        self._chunk_left -= taken
        if self._chunk_left:
            received.clear()
        return not self._chunk_left

    # Output

    def _say(self, answer: Reply) -> None:
        self._replies.append(codes.encode(answer))

    def _error(self, answer: Reply) -> None:
        """Answer a bad command, unless it is one too many."""
        self._errors += 1
        if self._errors > self.options.max_errors:
            self.refuse(codes.TOO_MANY_ERRORS)
        else:
            self._say(answer)

    # Commands

    def _obey(self, line: bytes) -> Event | None:
        if len(line) + 2 > self.options.max_line_bytes:
            self._reject_line(line, codes.LINE_TOO_LONG)
            return None
        if _find_control(line):
            line = line.rstrip(b" \t")  # RFC 5321 §4.1.1: white space before CRLF is tolerated
            if _find_control(line):
                self._reject_line(line, codes.BAD_OCTETS)
                return None
        verb, _, argument = line.partition(b" ")
        row = _VERBS.get(verb) or _VERBS.get(verb.upper())
        if row is None:
            self._unknown(verb)
            return None
        step = self._step
        if step not in row.steps:
            self._out_of_order(row, step)
            return None
        argument = argument.strip()
        if row.argument is not None and row.argument is not bool(argument):
            self._error(row.syntax)
            return None
        return row.run(self, argument)

    def _reject_line(self, line: bytes, answer: Reply) -> None:
        """Refuse a line that is no command; what follows a spoilt BDAT is its chunk, and no command either."""
        if line[:4].upper() == b"BDAT":
            self.refuse(codes.BAD_CHUNK_SIZE)
        else:
            self._error(answer)

    @property
    def _step(self) -> _Step:
        if self.transaction is not None:
            return _Step.CHUNKS if self.transaction.started else _Step.TRANSACTION
        return _Step.INTRODUCED if self.helo else _Step.OPENED

    def _out_of_order(self, row: _Verb, step: _Step) -> None:
        answer = _ILLEGAL[step]
        if self._forgiving and row.may_be_pipelined:
            self._say(answer)
        else:
            self._error(answer)

    def _unknown(self, verb: bytes) -> None:
        if verb in _HTTP:
            self.refuse(codes.NOT_HTTP)  # a browser lured to this port; what follows is not its user's mail
        else:
            self._error(codes.UNKNOWN_COMMAND)

    def _ehlo(self, argument: bytes) -> None:
        if self._introduce(argument, esmtp=True):
            starttls = self.options.starttls and not self.secure
            answer = ehlo_reply(self.options.hostname, max_size_bytes=self.options.max_size_bytes, starttls=starttls)
            self._say(answer)

    def _helo(self, argument: bytes) -> None:
        if self._introduce(argument, esmtp=False):
            self._say(reply(250, None, self.options.hostname))

    def _introduce(self, argument: bytes, *, esmtp: bool) -> bool:
        """Take the client's name; a second one resets the transaction (RFC 5321 §4.1.4)."""
        if not _is_helo_name(argument):
            self._error(codes.BAD_HELO)
            return False
        self.helo = argument.decode("ascii")
        self.esmtp = esmtp
        self._end_transaction()
        return True

    def _starttls(self, _argument: bytes) -> StartTls | None:
        if not self.secure and self.options.starttls:
            return StartTls()
        self._error(codes.TLS_ALREADY if self.secure else codes.NOT_IMPLEMENTED)
        return None

    def _mail(self, argument: bytes) -> Mail | None:
        self._forgiving = True  # until it is accepted
        strict = self.options.strict_addresses
        try:
            path, parameters = grammar.split_reverse_path(argument, strict=strict)
        except ValueError:
            self._error(codes.BAD_ARGUMENT)
            return None
        return self._mail_with(path, parameters, strict)

    def _mail_with(self, path: bytes, text: bytes, strict: bool) -> Mail | None:
        if text and not self.esmtp:
            self._error(codes.UNKNOWN_PARAMETER)
            return None
        try:
            parameters = parse_mail_parameters(text)
            reverse_path = grammar.parse_reverse_path(path, strict=strict, smtputf8=parameters.smtputf8)
        except BadParameter as error:
            self._error(error.reply)
        except grammar.NeedsSmtputf8:
            self._say(codes.NEED_SMTPUTF8)
        except ValueError as error:
            self._say(codes.bad_sender(str(error)))
        else:
            size_bytes = parameters.size_bytes
            if size_bytes is None or size_bytes <= self.options.max_size_bytes:
                return Mail(reverse_path, size_bytes, parameters.body, parameters.smtputf8)
            self._say(codes.TOO_BIG)  # RFC 1870 §6.1
        return None

    def _rcpt(self, argument: bytes) -> Rcpt | None:
        transaction = self.transaction
        assert transaction is not None
        transaction.rcpt_seen = True
        strict = self.options.strict_addresses
        try:
            path, parameters = grammar.split_forward_path(argument, strict=strict)
        except ValueError:
            self._error(codes.BAD_ARGUMENT)
            return None
        if len(transaction.forward_paths) >= self.options.max_recipients:
            self._say(codes.TOO_MANY_RECIPIENTS)  # RFC 5321 §4.5.3.1.10
            return None
        try:
            parse_rcpt_parameters(parameters)
            return Rcpt(grammar.parse_forward_path(path, strict=strict, smtputf8=transaction.smtputf8))
        except BadParameter as error:
            self._error(error.reply)
        except grammar.NeedsSmtputf8:
            self._say(codes.NEED_SMTPUTF8)
        except ValueError as error:
            self._say(codes.bad_recipient(str(error)))
        return None

    def _data(self, _argument: bytes) -> None:
        transaction = self.transaction
        assert transaction is not None
        if transaction.body == "binarymime":
            self._error(codes.NEED_BDAT)  # RFC 3030 §3
        elif not transaction.forward_paths:
            self._say_no_recipients(transaction)
        else:
            self._say(codes.START_INPUT)
            self._decoder = DataDecoder(self.options.max_size_bytes)
            self._mode = _Mode.DATA

    def _say_no_recipients(self, transaction: Transaction) -> None:
        if transaction.rcpt_seen:
            self._say(codes.NO_RECIPIENTS)  # RFC 5321 §3.3; pipelined in good faith
        else:
            self._error(codes.NEED_RECIPIENT)

    def _rset(self, _argument: bytes) -> None:
        self._end_transaction()
        self._say(codes.RESET)

    def _noop(self, _argument: bytes) -> None:
        self._say(codes.OK)

    def _quit(self, _argument: bytes) -> None:
        self.refuse(codes.GOODBYE)

    def _help(self, _argument: bytes) -> None:
        self._say(codes.HELP_TEXT)

    def _vrfy(self, _argument: bytes) -> None:
        self._say(codes.CANNOT_VERIFY)  # RFC 5321 §3.5.3, §7.3

    def _not_implemented(self, _argument: bytes) -> None:
        self._error(codes.NOT_IMPLEMENTED)

    # Content

    def _end_data(self) -> MessageComplete | None:
        decoder, self._decoder = self._decoder, None
        assert decoder is not None
        self._mode = _Mode.COMMAND
        return self._end_content(decoder.take_content())

    def _bdat(self, argument: bytes) -> None:
        """Let the chunk come in, wanted or not: it must be read either way (RFC 3030 §2)."""
        match = _match_chunk_size(argument)
        if match is None:
            self.refuse(codes.BAD_CHUNK_SIZE)
            return
        self._chunk_size = self._chunk_left = int(match[1])
        self._chunk_is_last = match[2] is not None
        self._chunk_answer = self._judge_chunk(self._chunk_size)
        if self._chunk_answer is not None:
            self._content = None
        elif self._content is None:
            self._content = ContentBuffer(self.options.max_size_bytes)
        self._mode = _Mode.CHUNK

    def _judge_chunk(self, size_bytes: int) -> Reply | None:
        """Return the refusal of a chunk, or ``None`` for one that is welcome."""
        transaction = self.transaction
        if transaction is None:
            return codes.NEED_MAIL if self.helo else codes.NEED_HELO
        if not transaction.forward_paths:
            return codes.NO_RECIPIENTS if transaction.rcpt_seen else codes.NEED_RECIPIENT
        held = self._content.size_bytes if self._content is not None else 0
        if held + size_bytes > self.options.max_size_bytes:
            return codes.TOO_BIG
        transaction.started = True
        return None

    def _end_chunk(self) -> MessageComplete | None:
        self._mode = _Mode.COMMAND
        if self._chunk_answer is not None:
            self._refuse_chunk(self._chunk_answer)
            return None
        assert self._content is not None
        if self._chunk_is_last:
            return self._end_content(self._content.take())
        self._say(codes.chunk_received(self._chunk_size))
        return None

    def _refuse_chunk(self, answer: Reply) -> None:
        if answer is codes.TOO_BIG:
            self._end_transaction()  # the chunks that follow get 503 (RFC 3030 §2)
            self._forgiving = True
            self._say(answer)
        elif self._forgiving or answer is codes.NO_RECIPIENTS:
            self._say(answer)
        else:
            self._error(answer)

    def _end_content(self, content: bytes | None) -> MessageComplete | None:
        transaction = self.transaction
        assert transaction is not None
        fault = codes.TOO_BIG if content is None else _find_fault(content, transaction.body)
        if content is not None and fault is None:
            return MessageComplete(transaction, content)
        assert fault is not None
        self._end_transaction()
        self._say(fault)
        return None

    # Transaction

    def _settle(self, event: Event, accepted: bool) -> None:
        """Do what the carrier's answer means for the session."""
        if isinstance(event, Rcpt):
            if accepted and self.transaction is not None:
                self.transaction.forward_paths.append(event.forward_path)
        elif isinstance(event, Mail):
            if accepted:
                self._begin_transaction(event)
        elif isinstance(event, MessageComplete):
            self._end_transaction()
            self._errors = 0 if accepted else self._errors
        elif accepted:
            self._mode = _Mode.TLS
            self._input.clear()  # RFC 3207 §4.2, and CVE-2011-0411

    def _begin_transaction(self, event: Mail) -> None:
        self._forgiving = False
        self.transaction = Transaction(
            reverse_path=event.reverse_path, size_bytes=event.size, body=event.body, smtputf8=event.smtputf8
        )

    def _end_transaction(self) -> None:
        self._forgiving = False
        self._content = None
        self.transaction = None


def _find_fault(content: bytes, body: Body) -> Reply | None:
    """Return why content is refused whoever sent it; BINARYMIME has no lines (RFC 3030 §3)."""
    if body == "binarymime":
        return None
    if has_bare_cr_or_lf(content):
        return codes.BARE_LINE_END
    if b"\0" in content:
        return codes.NUL_IN_CONTENT  # RFC 2045 §2.7, §2.8: neither 7bit nor 8bit data hold it
    return codes.LONG_CONTENT_LINE if has_long_line(content) else None


class _Verb(NamedTuple):
    """A row of the table of commands.

    Attributes:
        run: What obeys it.
        steps: When it is in order.
        argument: Must there be one? ``None``: as it likes.
        syntax: The answer when ``argument`` is not kept.
        may_be_pipelined: Clients send it before they know how MAIL was answered (RFC 2920 §3.1).
    """

    run: Callable[[ServerSession, bytes], Event | None]
    steps: tuple[_Step, ...]
    argument: bool | None = None
    syntax: Reply = codes.BAD_ARGUMENT
    may_be_pipelined: bool = False


_ANY = tuple(_Step)
_OPEN = (_Step.TRANSACTION,)

#: RFC 5321 §4.1.4: which command is in order when. BDAT is always taken, because its chunk must be read.
_VERBS: dict[bytes, _Verb] = {
    b"EHLO": _Verb(ServerSession._ehlo, _ANY, argument=True, syntax=codes.BAD_HELO),
    b"HELO": _Verb(ServerSession._helo, _ANY, argument=True, syntax=codes.BAD_HELO),
    b"STARTTLS": _Verb(ServerSession._starttls, (_Step.INTRODUCED, _Step.TRANSACTION), argument=False),
    b"MAIL": _Verb(ServerSession._mail, (_Step.INTRODUCED,), argument=True),
    b"RCPT": _Verb(ServerSession._rcpt, _OPEN, argument=True, may_be_pipelined=True),
    b"DATA": _Verb(ServerSession._data, _OPEN, argument=False, may_be_pipelined=True),
    b"BDAT": _Verb(ServerSession._bdat, _ANY),
    b"RSET": _Verb(ServerSession._rset, _ANY, argument=False),
    b"NOOP": _Verb(ServerSession._noop, _ANY),
    b"QUIT": _Verb(ServerSession._quit, _ANY),
    b"HELP": _Verb(ServerSession._help, _ANY),
    b"VRFY": _Verb(ServerSession._vrfy, _ANY, argument=True),
    b"EXPN": _Verb(ServerSession._not_implemented, _ANY),
    b"AUTH": _Verb(ServerSession._not_implemented, _ANY),
}
_ILLEGAL = {
    _Step.OPENED: codes.NEED_HELO,
    _Step.INTRODUCED: codes.NEED_MAIL,
    _Step.TRANSACTION: codes.IN_TRANSACTION,
    _Step.CHUNKS: codes.IN_CHUNKS,
}
_HTTP = frozenset((b"GET", b"POST", b"HEAD", b"PUT", b"OPTIONS", b"CONNECT"))
