"""The command that logs a client in: AUTH (RFC 4954), and the lines of its exchange.

Decides when a login may be tried and when an exchange is over. What responses mean is ``mtaq.smtp.sasl``'s, who may
log in is the carrier's, and so is what a failure costs besides one more error of the session.

Nobody logs in where others could read along: without TLS, AUTH is neither announced nor obeyed.
"""

from __future__ import annotations

from binascii import Error as Base64Error
from binascii import a2b_base64

from mtaq.model.errors import LocalProtocolError
from mtaq.model.reply import Reply
from mtaq.smtp import codes, scram
from mtaq.smtp.sasl import MECHANISMS, BadResponse, ScramSha256
from mtaq.smtp.server_core import Mode, SessionCore
from mtaq.smtp.server_events import Event, Login, LoginProved, ScramKeysWanted

#: RFC 4954 §4: longest line of an exchange, CRLF included. The AUTH command itself is a command like others.
MAX_RESPONSE_BYTES = 12288


class AuthCommand(SessionCore):
    """Part of ``ServerSession``."""

    __slots__ = ()

    def give_scram_keys(self, keys: scram.ScramKeys | None, *, nonce: str | None = None) -> None:
        """
        Answer ``ScramKeysWanted``.

        Args:
            keys: What is stored for the user; ``None`` when there is no such user, or none who can log in this way.
                The exchange then goes on as if there were, and fails.
            nonce: Our part of the nonce, printable ASCII without a comma; ``None`` draws one.

        Raises:
            LocalProtocolError: It was not asked.
        """
        event, mechanism = self._outstanding, self._mechanism
        if not isinstance(event, ScramKeysWanted) or not isinstance(mechanism, ScramSha256):
            raise LocalProtocolError("keys that nobody asked for")
        self._outstanding = None
        fake = scram.fake_keys(event.user, secret=self.options.scram_secret)  # also in vain: it takes time
        self._say(codes.challenge(mechanism.give_keys(keys or fake, nonce=nonce or scram.new_nonce())))

    def _auth(self, argument: bytes) -> Event | None:
        name, _, initial = argument.partition(b" ")
        mechanism = name.upper().decode("ascii", "replace")
        refusal = self._refuse_auth(mechanism)
        if refusal is not None:
            self._error(refusal)
            return None
        self._mechanism = MECHANISMS[mechanism]()
        self._mode = Mode.RESPONSE
        self._input.max_line_bytes = MAX_RESPONSE_BYTES
        initial = initial.strip()
        if not initial:
            return self._proceed(None)
        return self._take_response(b"" if initial == b"=" else initial)  # RFC 4954 §4: = is an empty one

    def _refuse_auth(self, mechanism: str) -> Reply | None:
        if not self.options.auth_mechanisms:
            return codes.NOT_IMPLEMENTED
        if not self.secure:
            return codes.AUTH_NEEDS_TLS
        if not self.esmtp:
            return codes.NEED_HELO
        if self.user is not None:
            return codes.LOGGED_IN_ALREADY
        return None if mechanism in self.options.auth_mechanisms else codes.UNKNOWN_MECHANISM

    def _respond(self, line: bytes) -> Event | None:
        """Take a line of the exchange."""
        if len(line) + 2 > MAX_RESPONSE_BYTES:
            self._fail(codes.AUTH_LINE_TOO_LONG)
        elif line == b"*":
            self._fail(codes.AUTH_CANCELLED)
        else:
            return self._take_response(line)
        return None

    def _take_response(self, text: bytes) -> Event | None:
        try:
            response = a2b_base64(text, strict_mode=True)
        except Base64Error:
            self._fail(codes.BAD_BASE64)
            return None
        return self._proceed(response)

    def _proceed(self, response: bytes | None) -> Event | None:
        assert self._mechanism is not None
        try:
            following = self._mechanism.respond(response)
        except BadResponse as error:
            self._fail(error.reply)
            return None
        if isinstance(following, bytes):
            self._say(codes.challenge(following))
            return None
        return following

    def _fail(self, answer: Reply) -> None:
        self._end_exchange()
        self._error(answer)

    def _settle_login(self, event: Login | ScramKeysWanted | LoginProved, answer: Reply) -> None:
        may_log_in = isinstance(event, Login) or (isinstance(event, LoginProved) and event.ok)
        if answer.is_positive and not may_log_in:
            raise LocalProtocolError("a login that is not proved")
        self._end_exchange()
        if answer.is_permanent:
            self._error(answer)
            return
        self._say(answer)
        if answer.is_positive:
            self.user = event.user

    def _end_exchange(self) -> None:
        self._mechanism = None
        if self._mode is Mode.RESPONSE:
            self._mode = Mode.COMMAND
            self._input.max_line_bytes = self.options.max_line_bytes
