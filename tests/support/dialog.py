"""SMTP dialogs as text, run against a session object or over a socket.

A dialog file is read line by line::

    # options: strict_addresses=false max_size_bytes=100     (overrides of ``DEFAULT_OPTIONS``)
    # only: session                                          (cannot be arranged over a socket)
    # only: direct                                           (in clear and without a proxy, where greetings are delayed)
    # tls: always                                            (begins inside TLS; ``never``: begins in clear)
    C: EHLO client.test          send this line and CRLF; UTF-8
    C! "a\\nb\\r\\n.\\r\\n"          send exactly these octets, a Python bytes literal without its b
    S: 250-SIZE *                the next reply has such a line …
    S: 250 *                     … and ends here; ``*`` stands for anything
    S: <closed>                  no further reply: the server has closed
    T: starttls                  TLS handshake
    M: 2                         messages accepted so far, where the transport knows
    E: Mail(*ret='FULL'*         the last event of that name was this; ``*`` as above; session only

Other lines beginning with ``#`` are remarks. A reply is matched by its first line's code and by text.
"""

from __future__ import annotations

import ast
import fnmatch
import re
from base64 import b64decode
from pathlib import Path
from typing import NamedTuple, Protocol

from mtaq.model.reply import Reply
from mtaq.smtp import codes
from mtaq.smtp.scram import derive_keys
from mtaq.smtp.server_session import (
    Event,
    Login,
    LoginProved,
    Mail,
    MessageComplete,
    ScramKeysWanted,
    ServerSession,
    SessionOptions,
    StartTls,
)

#: What a dialog may rely on unless its file says otherwise.
DEFAULT_OPTIONS = SessionOptions(
    hostname="mx.test", max_size_bytes=1_000_000, max_recipients=100, strict_addresses=True, starttls=True
)

#: Who may log in; ``away`` is the name to which no answer is found.
USERS = {"user": "pencil", "test": "1234"}
#: RFC 7677 §3.
SCRAM_KEYS = {"user": derive_keys("pencil", salt=b64decode("W22ZaJ0SNY7soEsUEjb6gQ=="))}
SCRAM_NONCE = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"


class Transport(Protocol):
    """How a dialog reaches a server."""

    async def send(self, data: bytes) -> None:
        """Send these octets in one write."""

    async def read_reply(self) -> list[str] | None:
        """Return the lines of the next reply without CRLF; ``None`` when the server has closed."""

    async def start_tls(self) -> None:
        """Make the TLS handshake after a 220."""

    async def accepted(self) -> int | None:
        """How many messages has the server accepted? ``None`` when unknown."""

    async def asked(self) -> list[str] | None:
        """What did the session ask so far? ``None`` when unknown."""


class Step(NamedTuple):
    """One instruction of a dialog file: its kind (``C:``, ``C!``, ``S:`` …), its text, its line."""

    kind: str
    text: str
    line: int


class Dialog(NamedTuple):
    """A dialog file, read."""

    options: SessionOptions
    only: str
    tls: str
    steps: tuple[Step, ...]


def read_dialog(path: Path) -> Dialog:
    """Read a dialog file."""
    overrides: dict[str, object] = {}
    only, tls = "", "either"
    steps: list[Step] = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        if line.startswith("# options:"):
            pairs = (word.partition("=") for word in line.removeprefix("# options:").split())
            overrides = {key: _value(text) for key, _, text in pairs}
        elif line.startswith("# only:"):
            only = line.removeprefix("# only:").strip()
            assert only in ("session", "direct"), path
        elif line.startswith("# tls:"):
            tls = line.removeprefix("# tls:").strip()
            assert tls in ("always", "never"), path
        elif line and not line.startswith("#"):
            steps.append(Step(line[:2], line[2:].removeprefix(" "), number))
    return Dialog(_options(overrides), only, tls, tuple(steps))


def _value(text: str) -> object:
    if "," in text:
        return tuple(word for word in text.split(",") if word)
    return {"true": True, "false": False}.get(text, int(text) if text.isdigit() else text)


def _options(overrides: dict[str, object]) -> SessionOptions:
    names = SessionOptions.__dataclass_fields__
    values = {name: overrides.get(name, getattr(DEFAULT_OPTIONS, name)) for name in names}
    assert set(overrides) <= set(names), overrides
    return SessionOptions(**values)  # type: ignore[arg-type]  # read from text; the fields' types are checked by use


async def run_dialog(path: Path, transport: Transport) -> None:
    """Play the client of a dialog file; raises ``AssertionError`` naming file and line where the server departs."""
    wanted: list[str] = []
    for step in read_dialog(path).steps:
        where = f"{path.name}:{step.line}"
        if step.kind == "S:" and step.text != "<closed>":
            wanted.append(step.text)
            if step.text[3:4] != "-":
                _match(wanted, await transport.read_reply(), where)
                wanted = []
        else:
            await _play(step, transport, where)


async def _play(step: Step, transport: Transport, where: str) -> None:
    if step.kind == "C:":
        await transport.send(step.text.encode() + b"\r\n")
    elif step.kind == "C!":
        await transport.send(ast.literal_eval("b" + step.text))
    elif step.kind == "S:":
        extra = await transport.read_reply()
        assert extra is None, f"{where}: expected a close, got {extra}"
    elif step.kind == "T:":
        await transport.start_tls()
    elif step.kind == "M:":
        accepted = await transport.accepted()
        assert accepted in (None, int(step.text)), f"{where}: {accepted} messages accepted, expected {step.text}"
    elif step.kind == "E:":
        await _check_event(step, transport, where)
    else:
        raise AssertionError(f"{where}: {step.kind} is no instruction")


async def _check_event(step: Step, transport: Transport, where: str) -> None:
    asked = await transport.asked()
    if asked is None:
        return
    name = step.text.partition("(")[0]
    events = [event for event in asked if event.startswith(name + "(")]
    assert events, f"{where}: no {name} was asked"
    assert _fits(events[-1], step.text), f"{where}: expected {step.text}, got {events[-1]}"


def _match(wanted: list[str], got: list[str] | None, where: str) -> None:
    assert got is not None, f"{where}: closed, expected {wanted}"
    texts = [f"{line[:3]} {line[4:]}" for line in got]
    for pattern in wanted:
        plain = f"{pattern[:3]} {pattern[4:]}"
        assert any(_fits(text, plain) for text in texts), f"{where}: expected {pattern}, got {got}"


def _fits(text: str, pattern: str) -> bool:
    """Is *text* what *pattern* says, in which only ``*`` means anything but itself?"""
    return fnmatch.fnmatchcase(text, re.sub(r"([\[?])", r"[\1]", pattern))


def respond(session: ServerSession, event: Event) -> None:
    """Answer an event as the dialogs expect; see ``decide``."""
    if isinstance(event, ScramKeysWanted) and event.user != "away":
        session.give_scram_keys(SCRAM_KEYS.get(event.user), nonce=SCRAM_NONCE)
    else:
        session.answer(decide(event))


def decide(event: Event) -> Reply:
    """Say what the dialogs expect: anything is welcome but local-parts ``refused`` and ``later``, and wrong logins."""
    if isinstance(event, StartTls):
        return codes.START_TLS
    if isinstance(event, MessageComplete):
        return codes.ACCEPTED
    if isinstance(event, Login | ScramKeysWanted | LoginProved):
        return _decide_login(event)
    path = event.reverse_path if isinstance(event, Mail) else event.forward_path
    if path is not None and path.local_part == "refused":
        return codes.RELAY_DENIED
    if path is not None and path.local_part == "later":
        return codes.TRY_LATER
    return codes.SENDER_OK if isinstance(event, Mail) else codes.RECIPIENT_OK


def _decide_login(event: Login | ScramKeysWanted | LoginProved) -> Reply:
    if event.user == "away":
        return codes.NO_LOGIN_NOW
    right = event.ok if isinstance(event, LoginProved) else isinstance(event, Login) and _knows(event)
    return codes.LOGGED_IN if right else codes.LOGIN_FAILED


def _knows(login: Login) -> bool:
    return USERS.get(login.user) == login.password


class SessionTransport:
    """A session object without a network.

    Attributes:
        messages: Content of each message accepted.
        events: Everything asked so far.
        said: Everything replied so far.
    """

    def __init__(self, options: SessionOptions, *, block_bytes: int = 0, secure: bool = False) -> None:
        self._session = ServerSession(options, secure=secure)
        self._block_bytes = block_bytes
        self._output = b""
        self.said = b""
        self.messages: list[bytes] = []
        self.events: list[Event] = []
        self._session.greet()
        self._hear()

    async def send(self, data: bytes) -> None:
        """Send in one write, or in blocks of ``block_bytes``."""
        size = self._block_bytes or len(data) or 1
        for start in range(0, len(data), size):
            self._session.receive_data(data[start : start + size])
            self._work()

    def _work(self) -> None:
        while (event := self._session.next_event()) is not None or self._session.must_send:
            if event is None:
                self._hear()
                continue
            self.events.append(event)
            if isinstance(event, MessageComplete):
                self.messages.append(event.content)
            respond(self._session, event)
        self._hear()

    def _hear(self) -> None:
        replies = self._session.data_to_send()
        self._output += replies
        self.said += replies

    async def read_reply(self) -> list[str] | None:
        """Return the next reply already queued; there being none counts as closed only when the session finished."""
        if not self._output:
            assert self._session.finished, "no reply, and the session goes on"
            return None
        lines: list[str] = []
        while not lines or lines[-1][3:4] == "-":
            line, _, self._output = self._output.partition(b"\r\n")
            lines.append(line.decode("utf-8"))
        return lines

    async def start_tls(self) -> None:
        """Let the session forget, as after a handshake."""
        self._session.reset_for_tls()

    async def accepted(self) -> int:
        """How many messages were accepted."""
        return len(self.messages)

    async def asked(self) -> list[str]:
        """Every event so far."""
        return [repr(event) for event in self.events]
