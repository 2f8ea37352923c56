"""How one attempt ended, before anybody judges what follows from it.

Made by the stage where it ended; ``classify`` makes an outcome of it. ``HostFailure`` carries one out of the stages
that open a connection.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from mtaq.deliver.tls_session import TlsSession
from mtaq.model.errors import MtaqError
from mtaq.model.outcome import ResultWord, State
from mtaq.model.reply import Reply


class PeerFacts(NamedTuple):
    """What is known of the connection; every field but the last goes into the result.

    Attributes:
        host: Name of the MX host.
        mta: Name in its greeting.
        source: Local IP.
        destination: Remote IP.
        tls_policy: What was asked for: ``none``, ``opportunistic``, ``required``, ``verified``, ``dane``, ``mta-sts``.
        cipher: ``None`` in clear.
        certificate: ``None`` in clear.
        authentication: Mechanism of our login there; ``None`` without one.
        dsn: It announced DSN.
        messages: Transactions on this connection, this one included.
        sent_connection: Bytes sent on it so far.
        sent_data: Bytes of content sent in this transaction.
        sessions: The handshakes on the way to it, those that failed included.
    """

    host: str
    mta: str | None = None
    source: str | None = None
    destination: str | None = None
    tls_policy: str | None = None
    cipher: Mapping[str, Any] | None = None
    certificate: Mapping[str, Any] | None = None
    authentication: str | None = None
    dsn: bool | None = None
    messages: int | None = None
    sent_connection: int | None = None
    sent_data: int | None = None
    sessions: tuple[TlsSession, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How an attempt ended.

    Attributes:
        state: Where.
        result: How.
        code: Reply code, the peer's or ours; ``None`` when there was none, as on a lost connection.
        status: Enhanced status code.
        description: The peer's text, or ours.
        final: Trying again is of no use; else a transient failure (or success).
        next_source: Another source address of the message may do better.
        stale: A reused connection turned out to be of no use before anything was at risk.
        peer: ``None`` when nobody was reached.
        ours: The reply is our own: we did not offer the peer what it said it would not take.
        quiet: The sender is not to be told, because the message went by another way.
    """

    state: State
    result: ResultWord
    code: int | None = None
    status: str | None = None
    description: str
    final: bool = False
    next_source: bool = False
    stale: bool = False
    peer: PeerFacts | None = None
    ours: bool = False
    quiet: bool = False

    @property
    def replied(self) -> bool:
        """Is the description what a peer said?"""
        return self.code is not None and self.peer is not None and not self.ours


def answered(state: State, reply: Reply, peer: PeerFacts | None = None, *, stale: bool = False) -> Ending:
    """Return the ending that *reply* makes: accepted after the content, refused anywhere else."""
    accepted = state == "message" and reply.code < 300
    return Ending(
        state=state,
        result="accepted" if accepted else "error",
        code=reply.code,
        status=reply.status,
        description=reply.text,
        final=reply.is_permanent,
        stale=stale,
        peer=peer,
    )


class HostFailure(MtaqError):
    """No connection can be had; ``ending`` holds for every message that waits for one."""

    def __init__(self, ending: Ending) -> None:
        super().__init__(ending.description)
        self.ending = ending
