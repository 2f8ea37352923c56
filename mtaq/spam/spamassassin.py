"""SpamAssassin: one message to spamd, and its score, threshold and rules back.

The protocol is spamd's own (``spamd/PROTOCOL`` of SpamAssassin), version 1.5. spamd sees a message as a mail host
would have delivered it, with Return-Path and our Received in front, because its rules about the client read these.
"""

from __future__ import annotations

import asyncio
import contextlib
import re

from mtaq.mailauth.origin import Origin
from mtaq.mailauth.spam import SpamResult
from mtaq.mime.received import protocol_name, received_field, return_path_field
from mtaq.model.address import address_text
from mtaq.spam.ports import Connect

#: What spamc sends at most unless told otherwise is 500 KB; larger mail takes spamd many seconds.
MAX_BYTES = 512 * 1024
_MAX_ANSWER_BYTES = 64 * 1024

_STATUS = re.compile(r"SPAMD/[0-9.]{1,8} ([0-9]{1,3})(?: .*)?")
_NUMBER = r"(-?[0-9]{1,9}(?:\.[0-9]{1,9})?)"
_SPAM = re.compile(rf"spam[ \t]*:[ \t]*(true|yes|false|no)[ \t]*;[ \t]*{_NUMBER}[ \t]*/[ \t]*{_NUMBER}", re.IGNORECASE)


class SpamAssassin:
    """One spamd."""

    name = "spamassassin"
    max_bytes = MAX_BYTES

    def __init__(self, host: str, port: int, *, connect: Connect) -> None:
        """Ask the spamd at *host* and *port*."""
        self._host = host
        self._port = port
        self._connect = connect

    async def judge(self, content: bytes, origin: Origin, *, timeout_s: float) -> SpamResult:
        """
        Ask what its rules say.

        Raises:
            OSError: No answer, or not one of spamd.
        """
        message = trace_fields(origin) + content
        head = f"SYMBOLS SPAMC/1.5\r\nContent-length: {len(message)}\r\n\r\n".encode("ascii")
        async with self._connect(self._host, self._port, tls=False, timeout_s=timeout_s) as (reader, writer):
            writer.write(head)
            writer.write(message)
            writer.write_eof()  # spamd reads lines, and waits for the end of the last one
            with contextlib.suppress(ConnectionError):  # it may say why it does not want it, and close
                await writer.drain()
            return read_answer(await _read_to_end(reader))


def trace_fields(origin: Origin) -> bytes:
    """Return what stands in front of a message that was delivered (RFC 5321 §4.4)."""
    fields = return_path_field(address_text(origin.envelope))
    if origin.client_ip is None:
        return fields
    utf8 = not all(text.isascii() for text in (address_text(origin.envelope), *origin.recipients))
    return fields + received_field(
        helo=origin.helo,
        remote_ip=origin.client_ip,
        remote_name=None,
        hostname=origin.receiver,
        protocol=protocol_name(esmtp=True, tls=False, authenticated=origin.user is not None, smtputf8=utf8),
        tls=None,
        transaction_id=origin.queue_id,
        recipient=None,
        now=origin.received_at,
    )


async def _read_to_end(reader: asyncio.StreamReader) -> bytes:
    answer = bytearray()
    while piece := await reader.read(_MAX_ANSWER_BYTES):
        answer += piece
        if len(answer) > _MAX_ANSWER_BYTES:
            raise OSError("an answer that is too long for spamd")
    return bytes(answer)


def read_answer(answer: bytes) -> SpamResult:
    """
    Return what spamd said; *answer* is everything it sent.

    Raises:
        OSError: It is not an answer to SYMBOLS.
    """
    head, _, body = answer.decode("latin-1").partition("\r\n\r\n")
    status_line, *fields = head.split("\r\n")
    status = _STATUS.fullmatch(status_line)
    if status is None:
        raise OSError("an answer that is none of spamd")
    if int(status[1]) != 0:
        raise OSError(f"spamd answered {status[1]}")  # EX_… of sysexits.h
    found = next((match for field in fields if (match := _SPAM.fullmatch(field.strip()))), None)
    if found is None:
        raise OSError("an answer of spamd without a score")
    is_spam = found[1].lower() in ("true", "yes")
    rules = (rule.strip() for rule in body.split(","))
    return SpamResult.scored(
        "spam" if is_spam else "ham", "spamassassin", score=float(found[2]), threshold=float(found[3]), rules=rules
    )
