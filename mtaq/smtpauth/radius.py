"""``radius://``: an Access-Request with the password hidden as PAP does (RFC 2865).

Requests carry a Message-Authenticator as their first attribute, and replies without a valid one are dropped as forged
(RFC 3579 §3.2): the authenticator of RFC 2865 alone can be forged within minutes (CVE-2024-3596). Whoever listens in
and knows the secret reads the passwords; RADIUS belongs on networks that are trusted.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import struct
from collections.abc import Iterator

from mtaq.model.login import Verdict
from mtaq.smtpauth.ports import TIMEOUT_S, Exchange

_ACCESS_REQUEST, _ACCESS_ACCEPT, _ACCESS_REJECT, _ACCESS_CHALLENGE = 1, 2, 3, 11
_USER_NAME, _USER_PASSWORD, _SERVICE_TYPE, _CALLING_STATION, _NAS_IDENTIFIER, _MESSAGE_AUTHENTICATOR = (
    1, 2, 6, 31, 32, 80,
)  # fmt: skip
_AUTHENTICATE_ONLY = struct.pack("!I", 8)
_HEAD = struct.Struct("!BBH16s")
_MAX_PACKET_BYTES = 4096
_MAX_VALUE_BYTES = 253
_MAX_PASSWORD_BYTES = 128  # RFC 2865 §5.2
_AGAIN_AFTER_S = 2.5
_ANSWER_S = TIMEOUT_S - 1  # so that there is time left to say why there was no answer


class Radius:
    """One server."""

    at_once = 32

    def __init__(self, host: str, port: int, identifier: str, secret: str, *, exchange: Exchange) -> None:
        self._host = host
        self._port = port
        self._identifier = identifier
        self._secret = secret.encode()
        self._exchange = exchange

    @property
    def name(self) -> str:
        """The form without the secret."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"radius://{self._identifier}@{host}:{self._port}"

    async def check(self, user: str, password: str, client_ip: str) -> Verdict:
        """Ask, again and again while there is no answer."""
        if len(user.encode()) > _MAX_VALUE_BYTES or len(password.encode()) > _MAX_PASSWORD_BYTES:
            return Verdict.REFUSED  # no such user can be asked for
        request = AccessRequest(user, password, self._secret, identifier=self._identifier, client_ip=client_ip)
        try:
            reply = await self._exchange(
                self._host, self._port, request.packet,
                is_answer=request.is_answered_by, again_after_s=_AGAIN_AFTER_S, timeout_s=_ANSWER_S,
            )  # fmt: skip
        except TimeoutError as error:
            raise request.explained(error) from error
        return Verdict.ACCEPTED if reply[0] == _ACCESS_ACCEPT else Verdict.REFUSED

    async def close(self) -> None:
        """Nothing is held."""


class AccessRequest:
    """
    One request and what counts as its reply.

    Attributes:
        packet: To send, as often as needed.
    """

    def __init__(self, user: str, password: str, secret: bytes, *, identifier: str, client_ip: str) -> None:
        self._secret = secret
        self._number = secrets.randbelow(256)
        self._authenticator = secrets.token_bytes(16)
        self._forged = 0
        attributes = [
            (_MESSAGE_AUTHENTICATOR, bytes(16)),
            (_USER_NAME, user.encode()),
            (_USER_PASSWORD, hidden(password.encode(), secret, self._authenticator)),
            (_SERVICE_TYPE, _AUTHENTICATE_ONLY),
            (_NAS_IDENTIFIER, identifier.encode()),
            (_CALLING_STATION, client_ip.encode()),
        ]
        body = b"".join(bytes((kind, 2 + len(value))) + value for kind, value in attributes)
        unsigned = _HEAD.pack(_ACCESS_REQUEST, self._number, _HEAD.size + len(body), self._authenticator) + body
        start = _HEAD.size + 2
        self.packet = unsigned[:start] + hmac.digest(secret, unsigned, "md5") + unsigned[start + 16 :]

    def is_answered_by(self, datagram: bytes) -> bool:
        """Is this a whole, authentic reply to this request? Challenges count: they are a no to who cannot answer."""
        if len(datagram) < _HEAD.size:
            return False
        code, number, length, authenticator = _HEAD.unpack_from(datagram)
        if number != self._number or not _HEAD.size <= length <= min(len(datagram), _MAX_PACKET_BYTES):
            return False
        if code not in (_ACCESS_ACCEPT, _ACCESS_REJECT, _ACCESS_CHALLENGE):
            return False
        if not self._is_authentic(datagram[:length], authenticator):
            self._forged += 1
            return False
        return True

    def explained(self, error: TimeoutError) -> OSError:
        """Return why there was no answer in time; *error* when it is just that."""
        if not self._forged:
            return error
        return OSError("the server's replies have no valid Message-Authenticator, or another secret")

    def _is_authentic(self, reply: bytes, authenticator: bytes) -> bool:
        head, body = reply[:4], reply[_HEAD.size :]
        wanted = hashlib.md5(head + self._authenticator + body + self._secret, usedforsecurity=False).digest()
        found = [
            start for kind, start, end in _attributes(body) if kind == _MESSAGE_AUTHENTICATOR and end - start == 16
        ]
        if not hmac.compare_digest(authenticator, wanted) or len(found) != 1:
            return False
        start, end = found[0], found[0] + 16
        unsigned = head + self._authenticator + body[:start] + bytes(16) + body[end:]
        return hmac.compare_digest(body[start:end], hmac.digest(self._secret, unsigned, "md5"))


def hidden(password: bytes, secret: bytes, authenticator: bytes) -> bytes:
    """Hide a password of 1 to 128 octets (RFC 2865 §5.2)."""
    padded = password + bytes(-len(password) % 16)
    result, previous = b"", authenticator
    for start in range(0, len(padded), 16):
        mask = hashlib.md5(secret + previous, usedforsecurity=False).digest()
        previous = bytes(a ^ b for a, b in zip(padded[start : start + 16], mask, strict=True))
        result += previous
    return result


def _attributes(body: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield kind, start and end of each attribute's value; nothing when they do not fill *body* exactly."""
    found, position = [], 0
    while position < len(body):
        length = body[position + 1] if position + 1 < len(body) else 0
        if length < 2 or position + length > len(body):
            return
        found.append((body[position], position + 2, position + length))
        position += length
    yield from found
