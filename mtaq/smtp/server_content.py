"""The commands that bring content: DATA (RFC 5321 §4.1.1.4) and BDAT (RFC 3030).

Decides where content ends and whether it is well-formed; what becomes of it is the carrier's. Content that is refused
is read to its end all the same.
"""

from __future__ import annotations

import re

from mtaq.model.reply import Reply
from mtaq.smtp import codes
from mtaq.smtp.data import ContentBuffer, DataDecoder, has_bare_cr_or_lf, has_long_line
from mtaq.smtp.extensions import Body
from mtaq.smtp.server_core import CHUNK, COMMAND, DATA, SessionCore
from mtaq.smtp.server_events import MessageComplete, Transaction

_match_chunk_size = re.compile(rb"([0-9]{1,20})(?: +(?i:(LAST)))?").fullmatch


class ContentCommands(SessionCore):
    """Part of ``ServerSession``."""

    __slots__ = ()

    # DATA

    def _data(self, _argument: bytes) -> None:
        transaction = self.transaction
        assert transaction is not None
        if transaction.body == "binarymime":
            self._error(codes.NEED_BDAT)  # RFC 3030 §3
        elif not transaction.forward_paths:
            self._say_no_recipients(transaction)
        elif transaction.refusal is not None:
            self._say(transaction.refusal)
            self._end_transaction()
        else:
            self._say(codes.START_INPUT)
            self._decoder = DataDecoder(self.options.max_size_bytes)
            self._mode = DATA

    def _say_no_recipients(self, transaction: Transaction) -> None:
        if transaction.rcpt_seen:
            self._say(codes.NO_RECIPIENTS)  # RFC 5321 §3.3; pipelined in good faith
        else:
            self._error(codes.NEED_RECIPIENT)

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

    def _end_data(self) -> MessageComplete | None:
        decoder, self._decoder = self._decoder, None
        assert decoder is not None
        self._mode = COMMAND
        return self._end_content(decoder.take_content())

    # BDAT

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
        self._mode = CHUNK

    def _judge_chunk(self, size_bytes: int) -> Reply | None:
        """Return the refusal of a chunk, or ``None`` for one that is welcome."""
        transaction = self.transaction
        if transaction is None:
            return codes.NEED_MAIL if self.helo else codes.NEED_HELO
        if not transaction.forward_paths:
            return codes.NO_RECIPIENTS if transaction.rcpt_seen else codes.NEED_RECIPIENT
        if transaction.refusal is not None:
            return transaction.refusal
        held = self._content.size_bytes if self._content is not None else 0
        if held + size_bytes > self.options.max_size_bytes:
            return codes.TOO_BIG
        transaction.started = True
        return None

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

    def _end_chunk(self) -> MessageComplete | None:
        self._mode = COMMAND
        if self._chunk_answer is not None:
            self._refuse_chunk(self._chunk_answer)
            return None
        assert self._content is not None
        if self._chunk_is_last:
            return self._end_content(self._content.take())
        self._say(codes.chunk_received(self._chunk_size))
        return None

    def _refuse_chunk(self, answer: Reply) -> None:
        transaction = self.transaction
        if answer is codes.TOO_BIG or (transaction is not None and answer is transaction.refusal):
            self._end_transaction()  # the chunks that follow get 503 (RFC 3030 §2)
            self._forgiving = True
            self._say(answer)
        elif self._forgiving or answer is codes.NO_RECIPIENTS:
            self._say(answer)
        else:
            self._error(answer)

    # Both

    @property
    def content_bytes(self) -> int:
        """Octets of content held."""
        held = 0 if self._decoder is None else self._decoder.size_bytes
        return held if self._content is None else held + self._content.size_bytes

    def abandon_content(self, answer: Reply) -> None:
        """Forget the content that is coming in and answer its end with *answer*, a refusal."""
        if self.transaction is not None:
            self.transaction.refusal = answer
        if self._decoder is not None:
            self._decoder.drop()
        if self._content is not None:
            self._content = None
            self._chunk_answer = answer

    def _end_content(self, content: bytes | None) -> MessageComplete | None:
        transaction = self.transaction
        assert transaction is not None
        fault = transaction.refusal
        if fault is None:
            fault = codes.TOO_BIG if content is None else _find_fault(content, transaction.body)
        if content is not None and fault is None:
            return MessageComplete(transaction, content)
        assert fault is not None
        self._end_transaction()
        self._say(fault)
        return None

    def _settle_message(self, _event: MessageComplete, answer: Reply) -> None:
        self._say(answer)
        self._end_transaction()
        if answer.is_positive:
            self._errors = 0


def _find_fault(content: bytes, body: Body) -> Reply | None:
    """Return why content is refused whoever sent it; BINARYMIME has no lines (RFC 3030 §3)."""
    if body == "binarymime":
        return None
    if has_bare_cr_or_lf(content):
        return codes.BARE_LINE_END
    if b"\0" in content:
        return codes.NUL_IN_CONTENT  # RFC 2045 §2.7, §2.8: neither 7bit nor 8bit data hold it
    return codes.LONG_CONTENT_LINE if has_long_line(content) else None
