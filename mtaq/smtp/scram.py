"""SCRAM-SHA-256 on the server's side (RFC 5802, RFC 7677): the password is proved and never sent.

Decides what a message means and whether the proof holds. Who has which keys is asked of others, and the nonce is
given in. Channel binding is not offered: a client that could but sees none announced (``y``) is served, one that
insists on it (``p``) is not. A user that does not exist is led through the same steps with keys that nothing fits.
Octets that are no message raise ``ValueError``; a wrong proof is an answer, ``None``.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from dataclasses import dataclass, field

from mtaq.smtp.saslprep import saslprep

MECHANISM = "SCRAM-SHA-256"

#: RFC 7677 §4 wants 4096 at least. More would only slow down who reads along inside TLS: the passwords that we derive
#: keys from are known to us as they are.
ITERATIONS = 4096

_SALT_BYTES = 16
_KEY_BYTES = 32

# gs2-header, user name, nonce; an ``m=`` before the user name asks for an extension, and there is none.
_match_first = re.compile(
    rb"((n|y|p=[A-Za-z0-9.-]+),(?:a=([^,]+))?,)(n=([^,]+),r=([!-+\--~]+)(?:,.*)?)", re.DOTALL
).fullmatch
_match_final = re.compile(rb"(c=([A-Za-z0-9+/=]+),r=([!-+\--~]+)(?:,.*)?),p=([A-Za-z0-9+/=]+)", re.DOTALL).fullmatch
_find_bad_escape = re.compile(r"=(?!2C|3D)").search


class ChannelBindingWanted(ValueError):
    """The client insists on a channel binding (RFC 5802 §6)."""


@dataclass(frozen=True, slots=True)
class ScramKeys:
    """What a server keeps of a password (RFC 5802 §3); enough to log clients in, not to log in elsewhere.

    Attributes:
        salt: Any octets, always the same for the same user.
        iterations: Of the key derivation; 4096 at least.
        stored_key: ``H(ClientKey)``.
        server_key: With it the server proves that it knows the user.
    """

    salt: bytes
    iterations: int
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)


def derive_keys(password: str, *, salt: bytes, iterations: int = ITERATIONS) -> ScramKeys:
    """
    Derive the keys of a password; takes milliseconds (RFC 5802 §3).

    Raises:
        ValueError: The password cannot be prepared (``saslprep``), so that no client can prove it.
    """
    salted = hashlib.pbkdf2_hmac("sha256", saslprep(password).encode(), salt, iterations)
    stored_key = hashlib.sha256(_hmac(salted, b"Client Key")).digest()
    return ScramKeys(salt, iterations, stored_key, _hmac(salted, b"Server Key"))


def salt_for(user: str, *, secret: bytes) -> bytes:
    """Return the salt of a user of whom no keys are stored; always the same, and unguessable without *secret*."""
    return _hmac(secret, b"salt\0" + user.encode())[:_SALT_BYTES]


def fake_keys(user: str, *, secret: bytes) -> ScramKeys:
    """Return keys for a user that does not exist, believable and always the same; no password fits them."""
    stored_key, server_key = (_hmac(secret, label + user.encode()) for label in (b"stored\0", b"server\0"))
    return ScramKeys(salt_for(user, secret=secret), ITERATIONS, stored_key, server_key)


def new_nonce() -> str:
    """Return the server's part of a nonce (RFC 5802 §5.1)."""
    return secrets.token_urlsafe(18)


class ServerExchange:
    """One login, from the client's first message.

    Attributes:
        user: Prepared by SASLprep.
    """

    __slots__ = ("_auth_message", "_bare_first", "_gs2_header", "_keys", "_nonce", "user")

    def __init__(self, client_first: bytes) -> None:
        """
        Understand the client's first message (RFC 5802 §7).

        Raises:
            ChannelBindingWanted: It insists on a channel binding.
            ValueError: It is none.
        """
        match = _match_first(client_first)
        if match is None:
            raise ValueError("not a client-first-message")
        self._gs2_header, flag, authzid, self._bare_first, name, self._nonce = match.groups()
        if flag.startswith(b"p"):
            raise ChannelBindingWanted("channel binding is not offered")
        if authzid is not None and authzid != name:
            raise ValueError("one user cannot act for another")
        self.user = _user(name)
        self._auth_message = b""
        self._keys: ScramKeys | None = None

    def server_first(self, keys: ScramKeys, *, nonce: str) -> bytes:
        """Return the server's first message (RFC 5802 §5)."""
        self._keys = keys
        self._nonce += nonce.encode("ascii")
        message = b"r=%b,s=%b,i=%d" % (self._nonce, _base64(keys.salt), keys.iterations)
        self._auth_message = b"%b,%b," % (self._bare_first, message)
        return message

    def server_final(self, client_final: bytes) -> bytes | None:
        """
        Judge the client's final message.

        Returns:
            The server's final message, or ``None`` when the client has proved nothing: it has another password, or
            what it saw of the exchange is not what we saw.

        Raises:
            ValueError: It is no such message.
        """
        match = _match_final(client_final)
        if match is None:
            raise ValueError("not a client-final-message")
        without_proof, binding, nonce, proof = match.groups()
        bound = _unbase64(binding) == self._gs2_header and nonce == self._nonce
        return self._signature(self._auth_message + without_proof, _unbase64(proof)) if bound else None

    def _signature(self, auth_message: bytes, proof: bytes) -> bytes | None:
        keys = self._keys
        assert keys is not None
        if len(proof) != _KEY_BYTES:
            return None
        mask = _hmac(keys.stored_key, auth_message)
        client_key = bytes(a ^ b for a, b in zip(proof, mask, strict=True))
        if not hmac.compare_digest(hashlib.sha256(client_key).digest(), keys.stored_key):
            return None
        return b"v=" + _base64(_hmac(keys.server_key, auth_message))


def _user(name: bytes) -> str:
    """Decode a saslname (RFC 5802 §5.1)."""
    text = name.decode("utf-8")  # UnicodeDecodeError is a ValueError
    if _find_bad_escape(text):
        raise ValueError("a lone = in the user name")
    user = saslprep(text.replace("=2C", ",").replace("=3D", "="))
    if not user:
        raise ValueError("an empty user name")
    return user


def _hmac(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, "sha256")


def _base64(data: bytes) -> bytes:
    return b2a_base64(data, newline=False)


def _unbase64(text: bytes) -> bytes:
    try:
        return a2b_base64(text, strict_mode=True)
    except Base64Error:  # is a ValueError, but one that quotes the peer
        raise ValueError("not base64") from None
