"""A server's replies out of whatever bytes come (RFC 5321 §4.2), bounded and cleaned.

Lenient where it is harmless: a line may end in a bare LF, the last line's code counts when the lines disagree, and an
enhanced status code is understood whether or not the server announced it. Anything else that is not a reply raises
``RemoteProtocolError``; after that the bytes that follow mean nothing.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from mtaq.model.errors import RemoteProtocolError
from mtaq.model.reply import Reply

#: RFC 5321 §4.5.3.1.5 allows 512 octets; real servers pass it with long explanations.
MAX_LINE_BYTES = 4096
#: Nothing honest comes near; keeps a server that never finishes its reply from filling the memory.
MAX_LINES = 100

_match_line = re.compile(rb"([2-5][0-9][0-9])(?:([ -])(.*))?", re.DOTALL).fullmatch
_match_status = re.compile(r"([245])\.[0-9]{1,3}\.[0-9]{1,3}(?= |$)").match
# C0, DEL, C1: nothing that could move a terminal's cursor or end a log line.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]+")


class ReplyParser:
    """Takes bytes, gives replies."""

    __slots__ = ("_buffer", "_lines", "_start", "_status")

    def __init__(self) -> None:
        self._buffer = b""
        self._start = 0
        self._lines: list[str] = []
        self._status: str | None = None

    @property
    def has_surplus(self) -> bool:
        """Did more come than the replies returned so far?"""
        return bool(self._lines) or self._start < len(self._buffer)

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        self._buffer = self._buffer[self._start :] + data
        self._start = 0

    def next_reply(self) -> Reply | None:
        """
        Return the next reply, or ``None`` when it is not complete yet.

        Raises:
            RemoteProtocolError: What came is no reply, or too much of one.
        """
        while (end := self._buffer.find(b"\n", self._start)) >= 0:
            line = self._buffer[self._start : end].rstrip(b"\r")
            self._check_length(line)
            self._start = end + 1
            if (reply := self._take(line)) is not None:
                return reply
        self._check_length(self._buffer[self._start :])
        return None

    def _check_length(self, line: bytes) -> None:
        if len(line) > MAX_LINE_BYTES:
            raise RemoteProtocolError(f"a reply line is longer than {MAX_LINE_BYTES} octets")

    def _take(self, raw: bytes) -> Reply | None:
        line = _read_line(raw)
        if not self._lines:
            self._status = line.status
        # A status code that is not the first line's is text.
        self._lines.append(line.rest if line.status == self._status else line.text)
        if line.more_follows:
            if len(self._lines) >= MAX_LINES:
                raise RemoteProtocolError(f"a reply has more than {MAX_LINES} lines")
            return None
        reply = Reply(line.code, self._status, tuple(self._lines))
        self._lines, self._status = [], None
        return reply


class _Line(NamedTuple):
    """One line of a reply.

    Attributes:
        text: Behind the code, cleaned.
        status: The enhanced status code with which *text* begins; it must be of the code's class (RFC 2034 §3).
        rest: *text* without it.
    """

    code: int
    more_follows: bool
    text: str
    status: str | None
    rest: str


@lru_cache(maxsize=256)  # servers say the same few things to every client
def _read_line(raw: bytes) -> _Line:
    match = _match_line(raw)
    if match is None:
        raise RemoteProtocolError(f"not an SMTP reply: {clean(raw[:80])!r}")
    digits, separator, rest = match.groups()
    code, text = int(digits), clean(rest or b"")
    status = _match_status(text)
    if status is None or int(status[1]) != code // 100:
        return _Line(code, separator == b"-", text, None, text)
    return _Line(code, separator == b"-", text, status[0], text[status.end() :].lstrip())


def clean(text: bytes) -> str:
    """Return *text* fit for logs and JSON: UTF-8 with replacements, control characters made blanks."""
    return _CONTROL.sub(" ", text.decode("utf-8", "replace")).strip()
