"""A server's replies out of whatever bytes come (RFC 5321 §4.2), bounded and cleaned.

Lenient where it is harmless: a line may end in a bare LF, the last line's code counts when the lines disagree, and an
enhanced status code is understood whether or not the server announced it. Anything else that is not a reply raises
``RemoteProtocolError``; after that the bytes that follow mean nothing.
"""

from __future__ import annotations

import re

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

    def _take(self, line: bytes) -> Reply | None:
        match = _match_line(line)
        if match is None:
            raise RemoteProtocolError(f"not an SMTP reply: {clean(line[:80])!r}")
        digits, separator, rest = match.groups()
        code = int(digits)
        self._lines.append(self._without_status(code, clean(rest or b"")))
        if separator == b"-":
            if len(self._lines) >= MAX_LINES:
                raise RemoteProtocolError(f"a reply has more than {MAX_LINES} lines")
            return None
        reply = Reply(code, self._status, tuple(self._lines))
        self._lines, self._status = [], None
        return reply

    def _without_status(self, code: int, text: str) -> str:
        """Return *text* without its enhanced status code, which must be of the code's class (RFC 2034 §3)."""
        match = _match_status(text)
        if match is None or int(match[1]) != code // 100:
            return text
        if not self._lines:
            self._status = match[0]
        return text[match.end() :].lstrip() if match[0] == self._status else text


def clean(text: bytes) -> str:
    """Return *text* fit for logs and JSON: UTF-8 with replacements, control characters made blanks."""
    return _CONTROL.sub(" ", text.decode("utf-8", "replace")).strip()
