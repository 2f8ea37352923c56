"""What became of one attempt to deliver to one forward-path: the item of ``results[]`` and the three outcomes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from mtaq.model.times import format_time

State = Literal[
    "process", "suppression", "storage", "rewrite", "dns", "bind", "connect", "handshake", "intro", "ehlo",
    "starttls", "auth", "mailfrom", "rcptto", "data", "message",
]  # fmt: skip
ResultWord = Literal["accepted", "timeout", "lost", "invalid", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One item of ``results[]``. ``None`` leaves the property out.

    Attributes:
        attempt: Number of the attempt, from 1.
        time: When the outcome was known.
        state: Where it happened, in the order of an attempt.
        result: How it ended there; success is ``message`` with ``accepted`` and nothing else.
        code: Reply code: the peer's, or ours where there was no peer (``556`` for a null MX).
        status: Enhanced status code, likewise.
        description: The peer's text, or ours in the operator's words.
        mta: Name in the peer's greeting.
        source: Local IP (``from``).
        destination: Remote IP (``to``).
        cipher: ``name``, ``version``, ``bits``.
        certificate: ``verified``, ``subject``, ``issuer``, ``notafter``.
        tls_policy: ``none``, ``opportunistic``, ``required``, ``verified``, ``dane``, ``mta-sts``.
        authentication: Mechanism of the login at the peer.
        messages: How many transactions that connection had seen, this one included.
        sent_connection: Bytes sent on that connection so far.
        sent_data: Bytes of content sent in this transaction.
        duration_ms: From the start of the attempt to its outcome.
        dsn: Whether the peer announced DSN.
        category: Why it failed, in one word.
        notice: What notice was made for the sender because of it: ``failure``, ``delay``, ``success``.
    """

    attempt: int
    time: datetime
    state: State
    result: ResultWord
    code: int | None = None
    status: str | None = None
    description: str | None = None
    mta: str | None = None
    source: str | None = None
    destination: str | None = None
    cipher: Mapping[str, Any] | None = None
    certificate: Mapping[str, Any] | None = None
    tls_policy: str | None = None
    authentication: str | None = None
    messages: int | None = None
    sent_connection: int | None = None
    sent_data: int | None = None
    duration_ms: int | None = None
    dsn: bool | None = None
    category: str | None = None
    notice: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the properties as ``spec/messages`` names them."""
        sent = {"connection": self.sent_connection, "data": self.sent_data}
        item: dict[str, Any] = {
            "attempt": self.attempt,
            "time": format_time(self.time),
            "state": self.state,
            "result": self.result,
            "mta": self.mta,
            "from": self.source,
            "to": self.destination,
            "code": self.code,
            "status": self.status,
            "description": self.description,
            "cipher": self.cipher,
            "certificate": self.certificate,
            "tls-policy": self.tls_policy,
            "authentication": self.authentication,
            "messages": self.messages,
            "sent": sent if self.sent_connection is not None else None,
            "duration": self.duration_ms,
            "dsn": self.dsn,
            "category": self.category,
            "notice": self.notice,
        }
        return {name: value for name, value in item.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Delivered:
    """The peer took responsibility: the final dot got 2yz."""

    result: Result


@dataclass(frozen=True, slots=True)
class Deferred:
    """A transient failure; it is tried again.

    Attributes:
        next_attempt_at: When.
    """

    result: Result
    next_attempt_at: datetime


@dataclass(frozen=True, slots=True)
class Failed:
    """A permanent failure, or no time or attempts left."""

    result: Result


Outcome = Delivered | Deferred | Failed
