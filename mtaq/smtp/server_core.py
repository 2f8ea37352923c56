"""What all commands of a server session share: its state, and how it speaks.

The commands are in ``server_envelope``, ``server_content`` and ``server_auth``; ``server_session`` makes one class of
them. Nothing here looks at input.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from mtaq.model.reply import Reply
from mtaq.smtp import codes
from mtaq.smtp.data import ContentBuffer, DataDecoder
from mtaq.smtp.input import InputBuffer
from mtaq.smtp.server_events import Event, Transaction
from mtaq.smtp.server_options import SessionOptions

if TYPE_CHECKING:
    from mtaq.smtp.sasl import Mechanism


class Mode(enum.Enum):
    """What the next octets are."""

    GREETING = enum.auto()  #: kept until the greeting is queued
    COMMAND = enum.auto()
    DATA = enum.auto()
    CHUNK = enum.auto()
    RESPONSE = enum.auto()  #: a line of an AUTH exchange
    TLS = enum.auto()  #: dropped: injected between STARTTLS and the handshake
    FINISHED = enum.auto()


class Step(enum.Enum):
    """How far the session and its transaction have come (RFC 5321 §4.1.4)."""

    OPENED = enum.auto()
    INTRODUCED = enum.auto()
    TRANSACTION = enum.auto()
    CHUNKS = enum.auto()


# A member of an enum costs more to look up than to compare (CPython 3.11); these are looked up with every command.
COMMAND, DATA, CHUNK, FINISHED = Mode.COMMAND, Mode.DATA, Mode.CHUNK, Mode.FINISHED
OPENED, INTRODUCED, TRANSACTION, CHUNKS = Step.OPENED, Step.INTRODUCED, Step.TRANSACTION, Step.CHUNKS


class SessionCore:
    """State of a session, and its voice. The attributes are described by ``ServerSession``."""

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
        "_mechanism",
        "_mode",
        "_outstanding",
        "_replies",
        "esmtp",
        "farewell",
        "helo",
        "options",
        "secure",
        "transaction",
        "user",
    )

    def __init__(self, options: SessionOptions, *, secure: bool = False) -> None:
        self.options = options
        self.secure = secure
        self.helo = ""
        self.esmtp = False
        self.farewell: Reply | None = None
        self.user: str | None = None
        self.transaction: Transaction | None = None
        self._mode = Mode.GREETING
        self._outstanding: Event | None = None
        self._replies: list[bytes] = []
        self._errors = 0
        self._forgiving = False  # a refusal may have commands pipelined behind it that are now out of order
        self._input = InputBuffer(options.max_line_bytes)
        self._mechanism: Mechanism | None = None  # of an AUTH exchange that is under way
        self._decoder: DataDecoder | None = None
        self._content: ContentBuffer | None = None  # of BDAT; None while a refused chunk is dropped
        self._chunk_size = 0
        self._chunk_left = 0
        self._chunk_is_last = False
        self._chunk_answer: Reply | None = None  # refusal to give once the chunk has gone by

    def refuse(self, answer: Reply) -> None:
        """Queue *answer* (421, 554) and finish: instead of ``greet``, or at any later time.

        An event that is outstanding is forgotten and must not be answered any more.
        """
        if self._mode is FINISHED:
            return
        self._say(answer)
        self.farewell = answer
        self._mode = FINISHED
        self._input.clear()
        self._end_transaction()
        self._decoder = self._outstanding = self._mechanism = None

    def _say(self, answer: Reply) -> None:
        self._replies.append(codes.encode(answer))

    def _error(self, answer: Reply) -> None:
        """Answer a bad command, unless it is one too many."""
        self._errors += 1
        if self._errors > self.options.max_errors:
            self.refuse(codes.TOO_MANY_ERRORS)
        else:
            self._say(answer)

    @property
    def _step(self) -> Step:
        if self.transaction is not None:
            return CHUNKS if self.transaction.started else TRANSACTION
        return INTRODUCED if self.helo else OPENED

    def _end_transaction(self) -> None:
        self._forgiving = False
        self._content = None
        self.transaction = None
