"""What EHLO announces, and what the parameters of MAIL and RCPT mean.

Every keyword announced here is kept by ``mtaq.smtp.server_session``; nothing is announced that is not. A parameter
that is malformed, unknown or repeated raises ``BadParameter`` with the reply to give.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Literal

from mtaq.model.errors import RemoteProtocolError
from mtaq.model.reply import Reply, reply
from mtaq.smtp import codes

#: Values of MAIL's BODY parameter (RFC 6152 §2, RFC 3030 §3), in lower case as the JSON has them.
Body = Literal["7bit", "8bitmime", "binarymime"]

_BODIES: dict[bytes, Body] = {b"7BIT": "7bit", b"8BITMIME": "8bitmime", b"BINARYMIME": "binarymime"}
# esmtp-param of RFC 5321 §4.1.2, its value widened to UTF-8 by RFC 6531 §3.3.
_match_parameter = re.compile(rb"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([!-<>-~\x80-\xff]+))?").fullmatch
_is_size = re.compile(rb"[0-9]{1,20}").fullmatch  # RFC 1870 §6.1


class BadParameter(RemoteProtocolError):
    """A parameter that cannot be honoured; ``reply`` is always there."""

    reply: Reply


@dataclass(frozen=True, slots=True)
class MailParameters:
    """What followed the path in MAIL.

    Attributes:
        size_bytes: SIZE, the content's declared length (RFC 1870); ``None`` when not given.
        body: BODY; ``7bit`` when not given.
        smtputf8: SMTPUTF8 was given (RFC 6531 §3.4).
    """

    size_bytes: int | None = None
    body: Body = "7bit"
    smtputf8: bool = False


_NONE = MailParameters()


@cache
def ehlo_reply(hostname: str, *, max_size_bytes: int, starttls: bool) -> Reply:
    """Return the answer to EHLO (RFC 5321 §4.1.1.1); no enhanced status code (RFC 2034 §4)."""
    keywords = [
        "PIPELINING",  # RFC 2920 §3
        f"SIZE {max_size_bytes}",  # RFC 1870 §3
        "8BITMIME",  # RFC 6152 §2
        "SMTPUTF8",  # RFC 6531 §3.1
        "CHUNKING",  # RFC 3030 §2
        "BINARYMIME",  # RFC 3030 §3
        "ENHANCEDSTATUSCODES",  # RFC 2034 §3
    ]
    if starttls:
        keywords.append("STARTTLS")  # RFC 3207 §2
    return codes.keep(reply(250, None, hostname, *keywords))


def parse_mail_parameters(text: bytes) -> MailParameters:
    """
    Parse what follows the path in MAIL.

    Raises:
        BadParameter: With 501 5.5.4 or 555 5.5.4 (RFC 5321 §4.1.1.11).
    """
    if not text:
        return _NONE
    found = _split_parameters(text)
    parameters = MailParameters(
        size_bytes=_size(found.pop(b"SIZE")) if b"SIZE" in found else None,
        body=_body(found.pop(b"BODY")) if b"BODY" in found else "7bit",
        smtputf8=_flag(found.pop(b"SMTPUTF8")) if b"SMTPUTF8" in found else False,
    )
    if found:
        raise BadParameter("unknown MAIL parameter", codes.UNKNOWN_PARAMETER)
    return parameters


def parse_rcpt_parameters(text: bytes) -> None:
    """
    Check what follows the path in RCPT; no extension announced above has a parameter there.

    Raises:
        BadParameter: With 501 5.5.4 or 555 5.5.4 (RFC 5321 §4.1.1.11).
    """
    if text and _split_parameters(text):
        raise BadParameter("unknown RCPT parameter", codes.UNKNOWN_PARAMETER)


def _split_parameters(text: bytes) -> dict[bytes, bytes | None]:
    found: dict[bytes, bytes | None] = {}
    for word in text.split():
        match = _match_parameter(word)
        if match is None or (keyword := match[1].upper()) in found:
            raise _malformed()
        found[keyword] = match[2]
    return found


def _size(value: bytes | None) -> int:
    if value is None or not _is_size(value):
        raise _malformed()
    return int(value)


def _body(value: bytes | None) -> Body:
    body = _BODIES.get((value or b"").upper())
    if body is None:
        raise _malformed()
    return body


def _flag(value: bytes | None) -> bool:
    if value is not None:
        raise _malformed()
    return True


def _malformed() -> BadParameter:
    return BadParameter("malformed or repeated parameter", codes.BAD_PARAMETER)
