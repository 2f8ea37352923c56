"""What a server session asks its carrier, and the transaction both speak about.

Holds only; ``mtaq.smtp.server_session`` fills and reads it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from mtaq.model.address import Address
from mtaq.model.reply import Reply
from mtaq.smtp.dsn import RecipientDsn
from mtaq.smtp.extensions import Body


@dataclass(slots=True)
class Transaction:
    """A mail transaction (RFC 5321 §3.3), from an accepted MAIL to the answer to its content.

    It begins with what ``Mail`` has, in that order.

    Attributes:
        reverse_path: ``None`` for the null one.
        size_bytes: Declared by SIZE; ``None`` when not.
        body: Declared by BODY; ``7bit`` when not.
        smtputf8: SMTPUTF8 was given.
        ret: RET, ``FULL`` or ``HDRS`` (RFC 3461 §4.3); ``None`` when not given.
        envid: ENVID, decoded (RFC 3461 §4.4); ``None`` when not given.
        requiretls: REQUIRETLS was given (RFC 8689).
        forward_paths: Those accepted, in order.
        dsn: What was asked of notices, by the index of the forward-path; those of which nothing was asked are not in.
        refusal: What its content is answered with, decided beforehand by the carrier; ``None`` while it is welcome.
        rcpt_seen: A RCPT has come, accepted or not.
        started: The first BDAT chunk has been accepted.
    """

    reverse_path: Address | None
    size_bytes: int | None = None
    body: Body = "7bit"
    smtputf8: bool = False
    ret: str | None = None
    envid: str | None = None
    requiretls: bool = False
    forward_paths: list[Address] = field(default_factory=list)
    dsn: dict[int, RecipientDsn] = field(default_factory=dict)
    refusal: Reply | None = None
    rcpt_seen: bool = False
    started: bool = False


class Mail(NamedTuple):
    """May this transaction begin? A positive answer begins it.

    Attributes:
        reverse_path: ``None`` for the null one.
        size: Octets declared by SIZE, within the limit; ``None`` when not declared.
        body: BODY; ``7bit`` when not given.
        smtputf8: SMTPUTF8 was given.
        ret: See ``Transaction``; as are the following.
        envid: As there.
        requiretls: As there.
    """

    reverse_path: Address | None
    size: int | None
    body: Body
    smtputf8: bool
    ret: str | None = None
    envid: str | None = None
    requiretls: bool = False


class Rcpt(NamedTuple):
    """May this forward-path have the message? A positive answer adds it to the transaction.

    Attributes:
        forward_path: Never null.
        notify: See ``RecipientDsn``.
        orcpt: As there.
    """

    forward_path: Address
    notify: tuple[str, ...] | None = None
    orcpt: str | None = None


@dataclass(frozen=True, slots=True)
class StartTls:
    """Start TLS? A positive answer promises that ``reset_for_tls`` follows once it has been written."""


@dataclass(frozen=True, slots=True)
class Login:
    """Is this the password of this user? A positive answer logs the client in, as *user*.

    Attributes:
        mechanism: ``PLAIN`` or ``LOGIN``.
        user: UTF-8 text without control characters, as the client gave it; not empty.
        password: The same.
    """

    mechanism: str
    user: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ScramKeysWanted:
    """What keys are kept for this user? Goes to ``give_scram_keys``, or to ``answer`` with a refusal (454, 421).

    Attributes:
        mechanism: ``SCRAM-SHA-256``.
        user: Prepared by SASLprep; not empty.
    """

    mechanism: str
    user: str


@dataclass(frozen=True, slots=True)
class LoginProved:
    """A SCRAM exchange is over: may the client log in? A positive answer, possible only when *ok*, does it.

    Attributes:
        mechanism: ``SCRAM-SHA-256``.
        user: As in ``ScramKeysWanted``.
        ok: The client has proved that it knows the password. If not, the answer is a refusal (535).
    """

    mechanism: str
    user: str
    ok: bool


@dataclass(frozen=True, slots=True)
class MessageComplete:
    """The content has come whole and well-formed. Any answer ends the transaction.

    Attributes:
        transaction: With at least one forward-path.
        content: As sent, dots removed.
    """

    transaction: Transaction
    content: bytes


Event = Mail | Rcpt | StartTls | Login | ScramKeysWanted | LoginProved | MessageComplete
