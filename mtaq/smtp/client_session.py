"""The client's side of SMTP without I/O: what to send next, and what each answer means for each forward-path.

A carrier sends ``data_to_send()`` until it is empty, then gives what it reads to ``receive_data`` while ``waiting``;
``phase`` names the time-out to keep meanwhile. Replies are values (``answers``, ``refusal``, ``tls_answer``); only a
server that leaves the protocol raises ``RemoteProtocolError``, and what was answered before that still stands. After
any error, a 421 (RFC 5321 §3.8) or a refusal ``closing`` is true and the session takes no further transaction.

RFC 5321 with PIPELINING (RFC 2920), CHUNKING (RFC 3030), STARTTLS (RFC 3207) and AUTH (RFC 4954). Whom to call, and
whether TLS is needed, for a password above all, is ``mtaq.deliver``'s; the words of MAIL, RCPT and AUTH are
``mtaq.smtp.client_commands``'.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from mtaq.model.errors import LocalProtocolError, RemoteProtocolError
from mtaq.model.outcome import State
from mtaq.model.reply import Reply
from mtaq.smtp.client_commands import (
    PeerExtensions,
    Transaction,
    envelope_commands,
    goes_in_chunks,
    login_script,
    objection,
    parse_extensions,
)
from mtaq.smtp.client_reply import ReplyParser
from mtaq.smtp.data import stuff_dots

#: Names of the time-outs in ``delivery-timeouts``, but for ``connect``.
Phase = Literal["banner", "ehlo", "tls", "auth", "mail", "rcpt", "data", "block", "dot"]

#: Content goes out in pieces of this size, so that an early refusal stops the rest.
BLOCK_BYTES = 262_144


@dataclass(frozen=True, slots=True)
class Answer:
    """How one forward-path, or the session's opening, was answered.

    Attributes:
        state: Where; ``message`` is the answer to the complete content.
    """

    state: State
    reply: Reply

    @property
    def accepted(self) -> bool:
        """Has the server taken responsibility (RFC 5321 §4.2.5)?"""
        return self.state == "message" and self.reply.code < 300


class _Step(NamedTuple):
    name: str
    phase: Phase
    state: State


_BANNER = _Step("banner", "banner", "intro")
_EHLO = _Step("ehlo", "ehlo", "ehlo")
_HELO = _Step("helo", "ehlo", "ehlo")
_STARTTLS = _Step("starttls", "tls", "starttls")
_AUTH = _Step("auth", "auth", "auth")
_RSET = _Step("rset", "mail", "mailfrom")
_MAIL = _Step("mail", "mail", "mailfrom")
_RCPT = _Step("rcpt", "rcpt", "rcptto")
_DATA = _Step("data", "data", "data")
_CONTENT = _Step("content", "dot", "message")
_QUIT = _Step("quit", "mail", "message")


class ClientSession:
    """One session; see the module.

    Attributes:
        extensions: From the last EHLO; nothing before it and after HELO.
        banner_name: What the server calls itself in its greeting.
        refusal: Why the session did not open: the answer to the connection or to EHLO; ``None`` while it may.
        tls_answer: The answer to STARTTLS; ``None`` until it came.
        login_answer: The answer that ended the login; ``None`` until it came.
        mechanism: By which the login is made, or was; empty without one.
        answers: One per forward-path of the current transaction; ``None`` where none came.
        replies: How many replies have been taken so far.
        closing: Good for nothing more but ``quit``, if even that.
    """

    def __init__(self, ehlo_name: str) -> None:
        self.extensions = PeerExtensions()
        self.banner_name = ""
        self.refusal: Answer | None = None
        self.tls_answer: Reply | None = None
        self.login_answer: Reply | None = None
        self.mechanism = ""
        self.answers: list[Answer | None] = []
        self.replies = 0
        self.closing = False
        self._name = ehlo_name
        self._parser = ReplyParser()
        self._script: deque[tuple[_Step, bytes]] = deque()
        self._awaited: deque[_Step] = deque((_BANNER,))
        self._at = _BANNER  # the step whose answer was looked at last
        self._faulty = False
        self._greeted = False
        self._login_lines: deque[bytes] = deque()
        self._transaction: Transaction | None = None
        self._recipients_answered = 0
        self._in_chunks = False
        self._needs_reset = False
        self._content = b""
        self._content_at = 0
        self._sending = False

    # What the carrier asks.

    @property
    def waiting(self) -> bool:
        """Is an answer due?"""
        return bool(self._awaited)

    @property
    def ready(self) -> bool:
        """May a transaction begin?"""
        return self._greeted and not (self.closing or self._awaited or self._script)

    @property
    def sending_content(self) -> bool:
        """Is some of the content still to be handed out?"""
        return self._sending

    @property
    def content_bytes_sent(self) -> int:
        """How much of the content has been handed out, as it is on the wire."""
        return self._content_at

    @property
    def phase(self) -> Phase:
        """The time-out that holds now."""
        return "block" if self._sending else self._step.phase

    @property
    def state(self) -> State:
        """Where the session is, for the result of what fails now."""
        return "data" if self._sending else self._step.state

    @property
    def _step(self) -> _Step:
        if self._faulty:
            return self._at
        if self._awaited:
            return self._awaited[0]
        return self._script[0][0] if self._script else _MAIL

    def objection(self, transaction: Transaction) -> Reply | None:
        """Return why this server cannot be given *transaction*, in the words of a reply; ``None`` when it can."""
        return objection(transaction, self.extensions)

    # What the carrier wants done.

    def begin(self, transaction: Transaction) -> None:
        """Start *transaction*, to which there is no ``objection``.

        Raises:
            LocalProtocolError: The session is not ``ready``, or the transaction is not yet what a server gets.
        """
        if not self.ready:
            raise LocalProtocolError("a transaction cannot begin now")
        if transaction.variant_for is not None:
            raise LocalProtocolError("a transaction is to be signed before it begins")
        self._transaction = transaction
        self.answers = [None] * len(transaction.forward_paths)
        self._recipients_answered = 0
        self._content, self._content_at = b"", 0
        if self._needs_reset:
            self._script.append((_RSET, b"RSET\r\n"))
        self._needs_reset = True
        mail, recipients = envelope_commands(transaction, self.extensions)
        self._script.append((_MAIL, mail))
        self._script.extend((_RCPT, recipient) for recipient in recipients)
        self._in_chunks = goes_in_chunks(transaction, self.extensions)
        if not self._in_chunks:
            self._script.append((_DATA, b"DATA\r\n"))

    def start_tls(self) -> None:
        """Ask for TLS; ``tls_answer`` tells. After the handshake call ``tls_started``."""
        self._script.append((_STARTTLS, b"STARTTLS\r\n"))

    def tls_started(self) -> None:
        """Begin anew inside TLS; what the server announced in clear is forgotten (RFC 3207 §4.2)."""
        self._parser = ReplyParser()
        self._greeted = False
        self._say_hello()

    def log_in(self, user: str, password: str) -> bool:
        """Begin to log in, by a mechanism that the server announced, if there is one; ``login_answer`` tells."""
        script = login_script(user, password, self.extensions)
        if script is None:
            return False
        self.mechanism = script.mechanism
        self._login_lines = deque(script.lines)
        self._script.append((_AUTH, self._login_lines.popleft()))
        return True

    def quit(self) -> None:
        """Take leave."""
        self.closing = True
        self._script.append((_QUIT, b"QUIT\r\n"))

    def data_to_send(self) -> bytes:
        """Return what is to be written now; empty when it is the server's turn.

        With PIPELINING that is all up to DATA; content comes in blocks: ask again until empty.
        """
        if self._sending:
            return self._next_block()
        if not self._script or (self._awaited and not self.extensions.pipelining):
            return b""
        if not self.extensions.pipelining:
            return self._hand_out()
        return b"".join([self._hand_out() for _ in range(len(self._script))])

    def _hand_out(self) -> bytes:
        step, command = self._script.popleft()
        self._awaited.append(step)
        return command

    def _next_block(self) -> bytes:
        block = self._content[self._content_at : self._content_at + BLOCK_BYTES]
        self._content_at += len(block)
        if self._content_at >= len(self._content):
            self._sending = False
            self._content = b""
        return block

    # What the server says.

    def receive_data(self, data: bytes) -> None:
        """
        Take what came from the server.

        Raises:
            RemoteProtocolError: It is no SMTP, or answers what was not asked.
        """
        try:
            self._parser.feed(data)
            while self._awaited:
                self._at = self._awaited[0]
                answer = self._parser.next_reply()
                if answer is None:
                    return
                self._take(answer)
            if self._parser.has_surplus:
                raise RemoteProtocolError("the mail host answered what it was not asked")
        except RemoteProtocolError:
            self.closing = self._faulty = True
            raise

    def _take(self, answer: Reply) -> None:
        self.replies += 1
        if answer.code == 421:
            self._service_closes(answer)
            return
        step = self._awaited.popleft()
        if 300 <= answer.code < 400 and step is not _DATA and step is not _AUTH:
            raise RemoteProtocolError(f"{answer.code} in answer to {step.name}")
        _TAKE[step.name](self, answer)

    def _service_closes(self, answer: Reply) -> None:
        """421 answers everything that is outstanding, whatever it came after (RFC 5321 §3.8)."""
        step, state = self._awaited[0], self.state
        if step is _STARTTLS:
            self.tls_answer = answer
        elif step is _AUTH:
            self.login_answer = answer
        elif not self._greeted:
            self.refusal = Answer(state, answer)
        self._answer_open(state, answer)
        self._awaited.clear()
        self._script.clear()
        self._sending = False
        self.closing = True

    def _on_banner(self, answer: Reply) -> None:
        self.banner_name = answer.lines[0].partition(" ")[0]
        if answer.code != 220:
            self._refuse("intro", answer)
        else:
            self._say_hello()

    def _on_ehlo(self, answer: Reply) -> None:
        if answer.code < 300:
            self._greeted = True
            self.extensions = parse_extensions(answer.lines[1:])
        elif answer.is_permanent:
            # RFC 5321 §3.2: a server may know only HELO.
            self._script.append((_HELO, b"HELO %b\r\n" % self._name.encode("ascii")))
        else:
            self._refuse("ehlo", answer)

    def _on_helo(self, answer: Reply) -> None:
        if answer.code < 300:
            self._greeted = True
        else:
            self._refuse("ehlo", answer)

    def _say_hello(self) -> None:
        self.extensions = PeerExtensions()
        self._script.append((_EHLO, b"EHLO %b\r\n" % self._name.encode("ascii")))

    def _refuse(self, state: State, answer: Reply) -> None:
        self.refusal = Answer(state, answer)
        self.closing = True

    def _on_starttls(self, answer: Reply) -> None:
        self.tls_answer = answer

    def _on_auth(self, answer: Reply) -> None:
        if answer.code == 334 and self._login_lines:
            self._script.append((_AUTH, self._login_lines.popleft()))
        elif 300 <= answer.code < 400:
            raise RemoteProtocolError(f"{answer.code} in answer to auth")
        else:
            self._login_lines.clear()
            self.login_answer = answer

    def _on_quit(self, answer: Reply) -> None:
        self.closing = True

    def _on_rset(self, answer: Reply) -> None:
        """Nothing follows from it: a server that could not reset refuses the MAIL behind it."""

    def _on_mail(self, answer: Reply) -> None:
        if answer.code >= 400:
            self._answer_open("mailfrom", answer)
            self._script.clear()

    def _on_rcpt(self, answer: Reply) -> None:
        number = self._recipients_answered
        self._recipients_answered += 1
        if answer.code >= 400 and self.answers[number] is None:
            self.answers[number] = Answer("rcptto", answer)
        if self._recipients_answered == len(self.answers):
            self._after_recipients()

    def _after_recipients(self) -> None:
        if not self._has_open:
            self._script.clear()
        elif self._in_chunks and self._transaction is not None:
            content = self._transaction.content
            self._send_content(b"BDAT %d LAST\r\n" % len(content) + content)

    def _on_data(self, answer: Reply) -> None:
        if answer.code >= 400:
            self._answer_open("data", answer)
        elif answer.code < 300:
            raise RemoteProtocolError(f"{answer.code} in answer to data")
        elif self._has_open and self._transaction is not None:
            self._send_content(stuff_dots(self._transaction.content))
        else:
            # RFC 2920 §3.1: DATA was sent before all recipients turned out to be refused.
            self._send_content(b".\r\n")

    def _send_content(self, wire: bytes) -> None:
        self._content, self._content_at, self._sending = wire, 0, True
        self._awaited.append(_CONTENT)

    def _on_content(self, answer: Reply) -> None:
        if self._sending:
            self._on_early_answer(answer)
            return
        self._needs_reset = answer.code >= 400
        self._answer_open("message", answer)

    def _on_early_answer(self, answer: Reply) -> None:
        """An answer in the middle of the content: a refusal holds, but the server still waits for the end."""
        if answer.code < 400:
            raise RemoteProtocolError("the mail host accepted content before it was complete")
        self._sending = False
        self.closing = True
        self._answer_open("data", answer)

    @property
    def _has_open(self) -> bool:
        return None in self.answers

    def _answer_open(self, state: State, answer: Reply) -> None:
        answered = Answer(state, answer)
        self.answers = [answered if known is None else known for known in self.answers]


_TAKE: dict[str, Callable[[ClientSession, Reply], None]] = {
    "banner": ClientSession._on_banner,
    "ehlo": ClientSession._on_ehlo,
    "helo": ClientSession._on_helo,
    "starttls": ClientSession._on_starttls,
    "auth": ClientSession._on_auth,
    "rset": ClientSession._on_rset,
    "mail": ClientSession._on_mail,
    "rcpt": ClientSession._on_rcpt,
    "data": ClientSession._on_data,
    "content": ClientSession._on_content,
    "quit": ClientSession._on_quit,
}
