"""The commands that introduce a client and make an envelope: EHLO, HELO, MAIL, RCPT (RFC 5321 §4.1.1).

Decides what is well-formed; whether a path is wanted is asked of the carrier. Addresses are ``mtaq.smtp.grammar``'s,
parameters ``mtaq.smtp.extensions``'.
"""

from __future__ import annotations

import re

from mtaq.model.reply import Reply
from mtaq.smtp import codes, grammar
from mtaq.smtp.dsn import RecipientDsn
from mtaq.smtp.extensions import BadParameter, ehlo_reply, parse_mail_parameters, parse_rcpt_parameters
from mtaq.smtp.server_core import SessionCore
from mtaq.smtp.server_events import Mail, Rcpt, Transaction

# A Domain or an address literal at its loosest: it goes into Received fields, so nothing that ends a comment there.
_is_helo_name = re.compile(rb"[A-Za-z0-9_\[][A-Za-z0-9._:\]\[/+-]{0,254}").fullmatch


class EnvelopeCommands(SessionCore):
    """Part of ``ServerSession``."""

    __slots__ = ()

    def _ehlo(self, argument: bytes) -> None:
        if self._introduce(argument, esmtp=True):
            self._say(ehlo_reply(self.options, secure=self.secure))

    def _helo(self, argument: bytes) -> None:
        if self._introduce(argument, esmtp=False):
            self._say(codes.introduction(self.options.hostname))

    def _introduce(self, argument: bytes, *, esmtp: bool) -> bool:
        """Take the client's name; a second one resets the transaction (RFC 5321 §4.1.4)."""
        if not _is_helo_name(argument):
            self._error(codes.BAD_HELO)
            return False
        self.helo = argument.decode("ascii")
        self.esmtp = esmtp
        self._end_transaction()
        return True

    def _mail(self, argument: bytes) -> Mail | None:
        self._forgiving = True  # until it is accepted
        strict = self.options.strict_addresses
        try:
            path, parameters = grammar.split_reverse_path(argument, strict=strict)
        except ValueError:
            self._error(codes.BAD_ARGUMENT)
            return None
        return self._mail_with(path, parameters, strict)

    def _mail_with(self, path: bytes, text: bytes, strict: bool) -> Mail | None:
        if text and not self.esmtp:
            self._error(codes.UNKNOWN_PARAMETER)
            return None
        try:
            parameters = parse_mail_parameters(text, self.options, secure=self.secure)
            reverse_path = grammar.parse_reverse_path(
                path, strict=strict, smtputf8=parameters.smtputf8, bare=self.options.bare_senders
            )
        except BadParameter as error:
            self._error(error.reply)
        except grammar.NeedsSmtputf8:
            self._say(codes.NEED_SMTPUTF8)
        except ValueError as error:
            self._say(codes.bad_sender(str(error)))
        else:
            size_bytes = parameters.size_bytes
            if size_bytes is None or size_bytes <= self.options.max_size_bytes:
                return Mail(reverse_path, *parameters)
            self._say(codes.TOO_BIG)  # RFC 1870 §6.1
        return None

    def _settle_mail(self, event: Mail, answer: Reply) -> None:
        self._say(answer)
        if answer.is_positive:
            self._forgiving = False
            self.transaction = Transaction(*event)

    def _rcpt(self, argument: bytes) -> Rcpt | None:
        transaction = self.transaction
        assert transaction is not None
        transaction.rcpt_seen = True
        strict = self.options.strict_addresses
        try:
            path, parameters = grammar.split_forward_path(argument, strict=strict)
        except ValueError:
            self._error(codes.BAD_ARGUMENT)
            return None
        if len(transaction.forward_paths) >= self.options.max_recipients:
            self._say(codes.TOO_MANY_RECIPIENTS)  # RFC 5321 §4.5.3.1.10
            return None
        return self._rcpt_with(path, parameters, strict)

    def _rcpt_with(self, path: bytes, text: bytes, strict: bool) -> Rcpt | None:
        assert self.transaction is not None
        try:
            dsn = parse_rcpt_parameters(text, self.options)
            forward_path = grammar.parse_forward_path(
                path, strict=strict, smtputf8=self.transaction.smtputf8, bare=self.options.bare_recipients
            )
        except BadParameter as error:
            self._error(error.reply)
        except grammar.NeedsSmtputf8:
            self._say(codes.NEED_SMTPUTF8)
        except ValueError as error:
            self._say(codes.bad_recipient(str(error)))
        else:
            return Rcpt(forward_path, *dsn)
        return None

    def _settle_rcpt(self, event: Rcpt, answer: Reply) -> None:
        self._say(answer)
        transaction = self.transaction
        if transaction is None or not answer.is_positive:
            return
        if event.notify is not None or event.orcpt is not None:
            transaction.dsn[len(transaction.forward_paths)] = RecipientDsn(event.notify, event.orcpt)
        transaction.forward_paths.append(event.forward_path)
