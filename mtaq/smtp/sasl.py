"""The SASL mechanisms that a client may log in by: PLAIN (RFC 4616), LOGIN, SCRAM-SHA-256 (RFC 5802, RFC 7677).

Decides what a response means; whether user and password are right is asked with an event, and how exchanges are
carried is ``mtaq.smtp.server_auth``'s. A client may act for itself only: another authorization identity than the user
is refused. User names and passwords are UTF-8 text without control characters, so that no log, file or program that is
handed one can be led astray. Octets that do not fit raise ``BadResponse`` with the reply to give.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Protocol

from mtaq.model.errors import RemoteProtocolError
from mtaq.model.reply import Reply
from mtaq.smtp import codes, scram
from mtaq.smtp.server_events import Login, LoginProved, ScramKeysWanted

#: RFC 4616 §2 asks for 255 octets; nothing longer goes into logs.
USER_MAX = 255

# C0, DEL, C1, the line and paragraph separators.
_find_control = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]").search

#: What follows a response: a challenge to send, or a question for the carrier.
Next = bytes | Login | ScramKeysWanted | LoginProved


class BadResponse(RemoteProtocolError):
    """A response that the mechanism does not understand, or not allow; ``reply`` is always there."""

    reply: Reply


class Mechanism(Protocol):
    """One exchange by one mechanism."""

    def respond(self, response: bytes | None) -> Next:
        """
        Take the client's response; ``None`` at the beginning when there was no initial one.

        Raises:
            BadResponse: The exchange has failed.
        """


class Plain:
    """Authorization identity, user and password at once (RFC 4616)."""

    def respond(self, response: bytes | None) -> Next:
        """See ``Mechanism``."""
        if response is None:
            return b""
        parts = response.split(b"\0")
        if len(parts) != 3:
            raise _malformed()
        authorization, user, password = parts
        if authorization not in (b"", user):
            raise BadResponse("one user cannot act for another", codes.LOGIN_FAILED)
        return _login("PLAIN", user, password)


class UserThenPassword:
    """LOGIN: no standard, but spoken by many. The user may come as initial response."""

    def __init__(self) -> None:
        self._user: bytes | None = None

    def respond(self, response: bytes | None) -> Next:
        """See ``Mechanism``."""
        if response is None:
            return b"Username:"
        if self._user is None:
            self._user = response
            return b"Password:"
        return _login("LOGIN", self._user, response)


class ScramSha256:
    """The password is proved and never sent; see ``mtaq.smtp.scram``."""

    def __init__(self) -> None:
        self._exchange: scram.ServerExchange | None = None
        self._proved = False

    def respond(self, response: bytes | None) -> Next:
        """See ``Mechanism``."""
        if response is None:
            return b""
        try:
            return self._begin(response) if self._exchange is None else self._end(self._exchange, response)
        except scram.ChannelBindingWanted as error:
            raise BadResponse(str(error), codes.NO_CHANNEL_BINDING) from error
        except ValueError as error:
            raise _malformed() from error

    def give_keys(self, keys: scram.ScramKeys, *, nonce: str) -> bytes:
        """Return the challenge that follows ``ScramKeysWanted``."""
        assert self._exchange is not None
        return self._exchange.server_first(keys, nonce=nonce)

    def _begin(self, response: bytes) -> ScramKeysWanted:
        exchange = scram.ServerExchange(response)
        _check_user(exchange.user)
        self._exchange = exchange
        return ScramKeysWanted(scram.MECHANISM, exchange.user)

    def _end(self, exchange: scram.ServerExchange, response: bytes) -> bytes | LoginProved:
        if self._proved:
            if response:
                raise _malformed()
            return LoginProved(scram.MECHANISM, exchange.user, ok=True)
        signature = exchange.server_final(response)
        if signature is None:
            return LoginProved(scram.MECHANISM, exchange.user, ok=False)
        self._proved = True
        return signature


#: By the names that EHLO announces.
MECHANISMS: dict[str, Callable[[], Mechanism]] = {
    "PLAIN": Plain,
    "LOGIN": UserThenPassword,
    scram.MECHANISM: ScramSha256,
}


def _login(mechanism: str, user: bytes, password: bytes) -> Login:
    try:
        login = Login(mechanism, user.decode("utf-8"), password.decode("utf-8"))
    except UnicodeDecodeError:
        raise _malformed() from None
    if _find_control(login.password):
        raise _malformed()
    _check_user(login.user)
    if not password:
        # Some directories take an empty password for "nobody in particular", and say yes (RFC 4513 §5.1.2).
        raise BadResponse("an empty password", codes.LOGIN_FAILED)
    return login


def _check_user(user: str) -> None:
    if _find_control(user):
        raise _malformed()
    if not user or len(user.encode()) > USER_MAX:
        raise BadResponse("an empty user name, or a very long one", codes.LOGIN_FAILED)


def _malformed() -> BadResponse:
    return BadResponse("not a response of this mechanism", codes.BAD_RESPONSE)
