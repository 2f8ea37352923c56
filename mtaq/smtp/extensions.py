"""What EHLO announces, and what the parameters of MAIL and RCPT mean.

Every keyword announced here is kept by ``mtaq.smtp.server_session``; nothing is announced that is not. A parameter
that is malformed, unknown or repeated raises ``BadParameter`` with the reply to give.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any, Literal, NamedTuple

from mtaq.model.errors import RemoteProtocolError
from mtaq.model.reply import Reply, reply
from mtaq.smtp import codes
from mtaq.smtp.dsn import RecipientDsn, decode_xtext, parse_envid, parse_notify, parse_orcpt, parse_ret
from mtaq.smtp.server_options import SessionOptions

#: Values of MAIL's BODY parameter (RFC 6152 §2, RFC 3030 §3), in lower case as the JSON has them.
Body = Literal["7bit", "8bitmime", "binarymime"]

_BODIES: dict[bytes, Body] = {b"7BIT": "7bit", b"8BITMIME": "8bitmime", b"BINARYMIME": "binarymime"}
# esmtp-param of RFC 5321 §4.1.2, its value widened to UTF-8 by RFC 6531 §3.3.
_match_parameter = re.compile(rb"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([!-<>-~\x80-\xff]+))?").fullmatch
_is_size = re.compile(rb"[0-9]{1,20}").fullmatch  # RFC 1870 §6.1


class BadParameter(RemoteProtocolError):
    """A parameter that cannot be honoured; ``reply`` is always there."""

    reply: Reply


class MailParameters(NamedTuple):
    """What followed the path in MAIL; in the order in which ``server_events.Mail`` has it.

    Attributes:
        size_bytes: SIZE, the content's declared length (RFC 1870); ``None`` when not given.
        body: BODY; ``7bit`` when not given.
        smtputf8: SMTPUTF8 was given (RFC 6531 §3.4).
        ret: RET, ``FULL`` or ``HDRS`` (RFC 3461 §4.3); ``None`` when not given.
        envid: ENVID, decoded (RFC 3461 §4.4); ``None`` when not given.
        requiretls: REQUIRETLS was given (RFC 8689 §2).
    """

    size_bytes: int | None = None
    body: Body = "7bit"
    smtputf8: bool = False
    ret: str | None = None
    envid: str | None = None
    requiretls: bool = False


_NO_PARAMETERS = MailParameters()
_NOTHING_ASKED = RecipientDsn()


@cache
def ehlo_reply(options: SessionOptions, *, secure: bool) -> Reply:
    """Return the answer to EHLO (RFC 5321 §4.1.1.1); no enhanced status code (RFC 2034 §4)."""
    keywords = [
        "PIPELINING",  # RFC 2920 §3
        f"SIZE {options.max_size_bytes}",  # RFC 1870 §3
        "8BITMIME",  # RFC 6152 §2
        "SMTPUTF8",  # RFC 6531 §3.1
        "CHUNKING",  # RFC 3030 §2
        "BINARYMIME",  # RFC 3030 §3
        "ENHANCEDSTATUSCODES",  # RFC 2034 §3
    ]
    if options.dsn:
        keywords.append("DSN")  # RFC 3461 §3
    if options.limits:
        # RFC 9422; MAILMAX is not announced, because messages in a session are not counted
        keywords.append(f"LIMITS RCPTMAX={options.max_recipients}")
    if options.offers_requiretls(secure):
        keywords.append("REQUIRETLS")  # RFC 8689 §2
    if options.offers_auth(secure):
        keywords.append(" ".join(("AUTH", *options.auth_mechanisms)))  # RFC 4954 §3
    if options.offers_starttls(secure):
        keywords.append("STARTTLS")  # RFC 3207 §2
    return codes.keep(reply(250, None, options.hostname, *keywords))


def parse_mail_parameters(text: bytes, options: SessionOptions, *, secure: bool) -> MailParameters:
    """
    Parse what follows the path in MAIL.

    Raises:
        BadParameter: With 501 5.5.4 or 555 5.5.4 (RFC 5321 §4.1.1.11), or 530 5.7.0 for REQUIRETLS in clear.
    """
    return MailParameters(**_parse(text, _MAIL, options, secure)) if text else _NO_PARAMETERS


def parse_rcpt_parameters(text: bytes, options: SessionOptions) -> RecipientDsn:
    """
    Parse what follows the path in RCPT.

    Raises:
        BadParameter: With 501 5.5.4 or 555 5.5.4 (RFC 5321 §4.1.1.11).
    """
    return RecipientDsn(**_parse(text, _RCPT, options, secure=False)) if text else _NOTHING_ASKED


def _parse(text: bytes, known: dict[bytes, _Parameter], options: SessionOptions, secure: bool) -> dict[str, Any]:
    values = {}
    for keyword, value in _split_parameters(text).items():
        parameter = known.get(keyword)
        if parameter is None or not (parameter.offered is None or parameter.offered(options, secure)):
            raise BadParameter("unknown parameter", codes.UNKNOWN_PARAMETER)
        try:
            values[parameter.name] = parameter.parse(value)
        except ValueError as error:
            raise _malformed() from error
    values.pop("auth", None)  # RFC 4954 §5: who submitted it to the client; we trust no client so far
    if values.get("requiretls") and not secure:
        raise BadParameter("REQUIRETLS in clear", codes.NEED_TLS)  # RFC 8689 §2
    return values


def _split_parameters(text: bytes) -> dict[bytes, bytes | None]:
    found: dict[bytes, bytes | None] = {}
    for word in text.split():
        match = _match_parameter(word)
        if match is None or (keyword := match[1].upper()) in found:
            raise _malformed()
        found[keyword] = match[2]
    return found


def _malformed() -> BadParameter:
    return BadParameter("malformed or repeated parameter", codes.BAD_PARAMETER)


def _size(value: bytes | None) -> int:
    if value is None or not _is_size(value):
        raise ValueError("SIZE wants up to 20 digits")
    return int(value)


def _body(value: bytes | None) -> Body:
    body = _BODIES.get((value or b"").upper())
    if body is None:
        raise ValueError("no known BODY")
    return body


def _flag(value: bytes | None) -> bool:
    if value is not None:
        raise ValueError("no value is wanted")
    return True


def _auth(value: bytes | None) -> str:
    """RFC 4954 §5: ``<>``, or a mailbox in xtext."""
    if not value:
        raise ValueError("AUTH wants a value")
    return "" if value == b"<>" else decode_xtext(value).decode("utf-8")


class _Parameter(NamedTuple):
    """A parameter of MAIL or RCPT.

    Attributes:
        name: In ``MailParameters`` or ``RecipientDsn``.
        parse: What makes its value, or raises ``ValueError``.
        offered: Is it known, given the options and whether the session is secure? ``None``: always.
    """

    name: str
    parse: Callable[[bytes | None], object]
    offered: Callable[[SessionOptions, bool], bool] | None = None


def _offers_dsn(options: SessionOptions, _secure: bool) -> bool:
    return options.dsn


def _knows_requiretls(options: SessionOptions, _secure: bool) -> bool:
    return options.requiretls


_MAIL = {
    b"SIZE": _Parameter("size_bytes", _size),
    b"BODY": _Parameter("body", _body),
    b"SMTPUTF8": _Parameter("smtputf8", _flag),
    b"RET": _Parameter("ret", parse_ret, _offers_dsn),
    b"ENVID": _Parameter("envid", parse_envid, _offers_dsn),
    b"REQUIRETLS": _Parameter("requiretls", _flag, _knows_requiretls),
    b"AUTH": _Parameter("auth", _auth, SessionOptions.offers_auth),
}
_RCPT = {
    b"NOTIFY": _Parameter("notify", parse_notify, _offers_dsn),
    b"ORCPT": _Parameter("orcpt", parse_orcpt, _offers_dsn),
}
