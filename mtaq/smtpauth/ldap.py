"""``ldap(s)://``: a simple bind as ``uid=<user>,base_dn`` (RFC 4513 §5.1.3).

One connection per login: a bind request, its response, an unbind. The messages are few enough to be written and read
here, in BER as RFC 4511 §5.1 restricts it. An empty password never gets this far, and is refused here all the same:
servers answer it with success (RFC 4513 §5.1.2).
"""

from __future__ import annotations

import asyncio
import errno
import re

from mtaq.model.login import Verdict
from mtaq.smtpauth.ports import TIMEOUT_S, Connect

_SEQUENCE, _INTEGER, _ENUMERATED, _OCTET_STRING = 0x30, 0x02, 0x0A, 0x04
_BIND_REQUEST, _BIND_RESPONSE, _UNBIND_REQUEST = 0x60, 0x61, 0x42
_SIMPLE, _REFERRAL, _SASL_CREDENTIALS, _CONTROLS = 0x80, 0xA3, 0x87, 0xA0
_MESSAGE_ID = 1
_MAX_MESSAGE_BYTES = 65_536

_SUCCESS = 0
#: constraintViolation (too many tries), noSuchObject, invalidDNSyntax, inappropriateAuthentication (no password),
#: invalidCredentials, insufficientAccessRights, unwillingToPerform (locked): RFC 4511 appendix A.
_REFUSALS = {19, 32, 34, 48, 49, 50, 53}

_escape_bytes = re.compile(rb"[^A-Za-z0-9@._-]").sub


class LdapBind:
    """One directory."""

    at_once = 32

    def __init__(self, host: str, port: int, base_dn: str, *, tls: bool, connect: Connect) -> None:
        self._host = host
        self._port = port
        self._base_dn = base_dn
        self._tls = tls
        self._connect = connect

    @property
    def name(self) -> str:
        """The form."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{'ldaps' if self._tls else 'ldap'}://{host}:{self._port}/{self._base_dn}"

    async def check(self, user: str, password: str, client_ip: str) -> Verdict:
        """Bind."""
        if not password:
            return Verdict.REFUSED
        request = bind_request(f"uid={escaped(user)},{self._base_dn}", password)
        async with self._connect(self._host, self._port, tls=self._tls, timeout_s=TIMEOUT_S) as (reader, writer):
            writer.write(request)
            code = bind_result(await _read_message(reader))
            writer.write(_UNBIND)
            await writer.drain()
        if code == _SUCCESS:
            return Verdict.ACCEPTED
        if code in _REFUSALS:
            return Verdict.REFUSED
        raise OSError(f"the directory answered the bind with result code {code}")

    async def close(self) -> None:
        """Nothing is held."""


def escaped(value: str) -> str:
    """Return *value* as it may stand in a DN (RFC 4514 §2.4): whatever might mean something as ``\\XX``."""
    return _escape_bytes(lambda match: b"\\%02x" % match[0][0], value.encode()).decode()


def bind_request(dn: str, password: str) -> bytes:
    """Return a simple bind request (RFC 4511 §4.2)."""
    bind = _tlv(_INTEGER, b"\x03") + _tlv(_OCTET_STRING, dn.encode()) + _tlv(_SIMPLE, password.encode())
    return _message(_tlv(_BIND_REQUEST, bind))


def bind_result(message: bytes) -> int:
    """
    Return the result code of a bind response (RFC 4511 §4.2.2); *message* is what stands inside of the LDAPMessage.

    Raises:
        OSError: It is none, or not the response to our request.
    """
    number, rest = _take(message, _INTEGER)
    response, rest = _take(rest, _BIND_RESPONSE)
    _expect_only(rest, _CONTROLS)
    code, rest = _take(response, _ENUMERATED)
    _matched_dn, rest = _take(rest, _OCTET_STRING)
    _diagnostic, rest = _take(rest, _OCTET_STRING)
    _expect_only(rest, _REFERRAL, _SASL_CREDENTIALS)
    if int.from_bytes(number) != _MESSAGE_ID or len(code) != 1 or code[0] > 127:
        raise _not_ldap()
    return code[0]


async def _read_message(reader: asyncio.StreamReader) -> bytes:
    try:
        tag, length = await reader.readexactly(2)
        if length > 0x80:
            if length > 0x84:
                raise _not_ldap()
            length = int.from_bytes(await reader.readexactly(length - 0x80))
        elif length == 0x80:  # the indefinite form is not used in LDAP
            raise _not_ldap()
        if tag != _SEQUENCE or length > _MAX_MESSAGE_BYTES:
            raise _not_ldap()
        return await reader.readexactly(length)
    except asyncio.IncompleteReadError:
        raise OSError(errno.ECONNRESET, "the directory closed the connection") from None


def _take(data: bytes, tag: int) -> tuple[bytes, bytes]:
    """Split off the first element, which must have *tag*; return its content and what follows."""
    if len(data) < 2 or data[0] != tag:
        raise _not_ldap()
    length, start = data[1], 2
    if length >= 0x80:
        start += length - 0x80
        if not 2 < start <= min(6, len(data)):
            raise _not_ldap()
        length = int.from_bytes(data[2:start])
    if start + length > len(data):
        raise _not_ldap()
    return data[start : start + length], data[start + length :]


def _expect_only(data: bytes, *tags: int) -> None:
    """Nothing but elements with these tags may follow."""
    while data:
        if data[0] not in tags:
            raise _not_ldap()
        _, data = _take(data, data[0])


def _tlv(tag: int, content: bytes) -> bytes:
    length = len(content)
    if length < 0x80:
        return bytes((tag, length)) + content
    octets = length.to_bytes((length.bit_length() + 7) // 8)
    return bytes((tag, 0x80 + len(octets))) + octets + content


def _message(operation: bytes) -> bytes:
    return _tlv(_SEQUENCE, _tlv(_INTEGER, bytes((_MESSAGE_ID,))) + operation)


def _not_ldap() -> OSError:
    return OSError(errno.EPROTO, "the directory's answer is no response to a bind")


_UNBIND = _tlv(_SEQUENCE, _tlv(_INTEGER, bytes((_MESSAGE_ID + 1,))) + _tlv(_UNBIND_REQUEST, b""))
