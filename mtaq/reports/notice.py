"""What a notice of ours is about: the original message, and what became of its recipients.

Values as the JSON in the queues has them: ENVID and ORCPT decoded, addresses as text. Nothing here is judged; whoever
composes cleans what peers and senders wrote.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

Kind = Literal["failure", "delay", "success"]
"""The words of NOTIFY (RFC 3461 §4.1)."""

Action = Literal["failed", "delayed", "delivered", "relayed", "expanded"]
"""RFC 3464 §2.3.3."""

Ret = Literal["FULL", "HDRS"]
"""RFC 3461 §4.3."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Original:
    """The message that a notice is about.

    Attributes:
        envelope: Its reverse-path, where the notice goes; never empty.
        content: As it was to be sent.
        ret: How much of it comes back.
        envelope_id: ENVID, decoded; ``None`` when the sender gave none.
        arrived_at: When we took it; timezone-aware.
        received_from: The name that its client gave, or ``None``.
        smtputf8: Its sender asked for SMTPUTF8, and so can read a notice that needs it.
    """

    envelope: str
    content: bytes = field(repr=False)
    ret: Ret = "HDRS"
    envelope_id: str | None = None
    arrived_at: datetime | None = None
    received_from: str | None = None
    smtputf8: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipientStatus:
    """What became of one recipient.

    Attributes:
        recipient: The forward-path.
        action: What is told.
        status: Enhanced status code (RFC 3463), of the same class as the action.
        original_recipient: ORCPT, decoded, with its type: ``rfc822;user@example.test``; ``None`` without one.
        diagnostic: The peer's reply, code and text; ``None`` when no peer replied.
        remote_mta: Name of the host that replied, or that took it.
        explanation: What went wrong, in our own words, where no peer replied; a clause without a full stop.
        last_attempt_at: When the last attempt ended; timezone-aware.
        will_retry_until: When it is given up; for what is delayed.
    """

    recipient: str
    action: Action
    status: str
    original_recipient: str | None = None
    diagnostic: str | None = None
    remote_mta: str | None = None
    explanation: str | None = None
    last_attempt_at: datetime | None = None
    will_retry_until: datetime | None = None
