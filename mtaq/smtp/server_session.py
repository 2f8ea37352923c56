"""An SMTP session seen from the server: octets in, replies and events out (RFC 5321 §3, §4).

Decides what is a command, whether it is in order (the table ``_VERBS``), where content ends, and every answer that
needs no policy. Whether a reverse-path, a forward-path, a message, a login or TLS is wanted is asked of the carrier,
one event at a time: it calls ``answer``. No I/O and no clock: timeouts, and what a refusal costs a client, are the
carrier's.

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

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from mtaq.model.errors import LocalProtocolError
from mtaq.model.reply import Reply
from mtaq.smtp import codes
from mtaq.smtp.dsn import RecipientDsn
from mtaq.smtp.server_auth import AuthCommand
from mtaq.smtp.server_content import ContentCommands
from mtaq.smtp.server_core import CHUNK, CHUNKS, COMMAND, DATA, FINISHED, INTRODUCED, OPENED, TRANSACTION, Mode, Step
from mtaq.smtp.server_envelope import EnvelopeCommands
from mtaq.smtp.server_events import (
    Event,
    Login,
    LoginProved,
    Mail,
    MessageComplete,
    Rcpt,
    ScramKeysWanted,
    StartTls,
    Transaction,
)
from mtaq.smtp.server_options import SessionOptions

__all__ = [
    "Event",
    "Login",
    "LoginProved",
    "Mail",
    "MessageComplete",
    "Rcpt",
    "RecipientDsn",
    "ScramKeysWanted",
    "ServerSession",
    "SessionOptions",
    "StartTls",
    "Transaction",
]

#: Replies that may wait to be sent. A client that sends EHLO after EHLO and reads nothing gets twenty octets for one of
#: its own, so their number is what bounds memory.
MAX_QUEUED_REPLIES = 500

_find_control = re.compile(rb"[\x00-\x1f\x7f]").search


class ServerSession(EnvelopeCommands, ContentCommands, AuthCommand):
    """One SMTP session, from the greeting to QUIT.

    Attributes:
        options: As given, or as given to ``reconfigure``.
        transaction: The open one, or ``None``.
        helo: The name the client gave; empty before EHLO or HELO.
        esmtp: It was EHLO.
        secure: TLS is on.
        farewell: The reply that ended the session; ``None`` as long as it goes on.
        user: As whom the client has logged in; ``None`` before.
    """

    __slots__ = ()

    # What the carrier calls; ``refuse`` and ``give_scram_keys`` as well

    def greet(self) -> None:
        """Queue the 220 and begin to listen. What was received before waits until now."""
        if self._mode is Mode.GREETING:
            self._say(codes.greeting(self.options.hostname))
            self._mode = COMMAND

    def reconfigure(self, options: SessionOptions) -> None:
        """Let other options hold from the next command on, after a login for instance."""
        self.options = options

    def receive_data(self, data: bytes | memoryview) -> None:
        """Add what came from the peer; ``next_event`` looks at it. While an event is outstanding it only piles up."""
        if self._mode is not FINISHED and self._mode is not Mode.TLS:
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
            LocalProtocolError: There is none, or it is one that this answer does not fit.
        """
        event = self._outstanding
        if event is None:
            raise LocalProtocolError("an answer without an event")
        if answer.code == 421:
            self.refuse(answer)
        else:
            _SETTLE[type(event)](self, event, answer)
            self._outstanding = None

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
        self.user = None
        self.transaction = None
        self._forgiving = False
        self._input.clear()
        self._mode = COMMAND

    @property
    def finished(self) -> bool:
        """Nothing more is taken from the peer: flush and close."""
        return self._mode is FINISHED

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
        return self._mode is DATA or self._mode is CHUNK

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
            if self._mode is COMMAND:
                line = self._input.take_line()
                if line is None:
                    return None
                event = self._obey(line)
            elif self._mode is DATA:
                if not self._take_data():
                    return None
                event = self._end_data()
            elif self._mode is CHUNK:
                if not self._take_chunk():
                    return None
                event = self._end_chunk()
            elif self._mode is Mode.RESPONSE:
                line = self._input.take_line()
                if line is None:
                    return None
                event = self._respond(line)
            else:
                return None
            if event is not None:
                return event
        return None

    # Commands

    def _obey(self, line: bytes) -> Event | None:
        if len(line) + 2 > self._input.max_line_bytes:
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

    def _out_of_order(self, row: _Verb, step: Step) -> None:
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

    def _starttls(self, _argument: bytes) -> StartTls | None:
        if self.options.offers_starttls(self.secure):
            return StartTls()
        self._error(codes.TLS_ALREADY if self.secure else codes.NOT_IMPLEMENTED)
        return None

    def _settle_starttls(self, _event: StartTls, answer: Reply) -> None:
        self._say(answer)
        if answer.is_positive:
            self._mode = Mode.TLS
            self._input.clear()  # RFC 3207 §4.2, and CVE-2011-0411

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
    steps: tuple[Step, ...]
    argument: bool | None = None
    syntax: Reply = codes.BAD_ARGUMENT
    may_be_pipelined: bool = False


_ANY = tuple(Step)
_OPEN = (TRANSACTION,)

#: RFC 5321 §4.1.4: which command is in order when. BDAT is always taken, because its chunk must be read.
_VERBS: dict[bytes, _Verb] = {
    b"EHLO": _Verb(ServerSession._ehlo, _ANY, argument=True, syntax=codes.BAD_HELO),
    b"HELO": _Verb(ServerSession._helo, _ANY, argument=True, syntax=codes.BAD_HELO),
    b"STARTTLS": _Verb(ServerSession._starttls, (INTRODUCED, TRANSACTION), argument=False),
    b"MAIL": _Verb(ServerSession._mail, (INTRODUCED,), argument=True),
    b"RCPT": _Verb(ServerSession._rcpt, _OPEN, argument=True, may_be_pipelined=True),
    b"DATA": _Verb(ServerSession._data, _OPEN, argument=False, may_be_pipelined=True),
    b"BDAT": _Verb(ServerSession._bdat, _ANY),
    b"RSET": _Verb(ServerSession._rset, _ANY, argument=False),
    b"NOOP": _Verb(ServerSession._noop, _ANY),
    b"QUIT": _Verb(ServerSession._quit, _ANY),
    b"HELP": _Verb(ServerSession._help, _ANY),
    b"VRFY": _Verb(ServerSession._vrfy, _ANY, argument=True),
    b"EXPN": _Verb(ServerSession._not_implemented, _ANY),
    b"AUTH": _Verb(ServerSession._auth, (INTRODUCED,), argument=True),
}
#: Who hears the answer to which event.
_SETTLE: dict[type, Callable[[ServerSession, Any, Reply], None]] = {
    Rcpt: ServerSession._settle_rcpt,
    Mail: ServerSession._settle_mail,
    MessageComplete: ServerSession._settle_message,
    StartTls: ServerSession._settle_starttls,
    Login: ServerSession._settle_login,
    ScramKeysWanted: ServerSession._settle_login,
    LoginProved: ServerSession._settle_login,
}
_ILLEGAL = {
    OPENED: codes.NEED_HELO,
    INTRODUCED: codes.NEED_MAIL,
    TRANSACTION: codes.IN_TRANSACTION,
    CHUNKS: codes.IN_CHUNKS,
}
_HTTP = frozenset((b"GET", b"POST", b"HEAD", b"PUT", b"OPTIONS", b"CONNECT"))
