"""How a message came, as far as checks look at it: who handed it over, and what was said in the envelope."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from mtaq.model.address import Address


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a message came from.

    Attributes:
        client_ip: The client's address; ``None`` when no client handed it over, as with a file.
        helo: The client's name for itself.
        envelope: The reverse-path; ``None`` is the null one.
        recipients: The forward-paths.
        user: Who has logged in, or ``None``.
        receiver: Our name in the session.
        queue_id: The id that logs and queues know it by.
        received_at: When it was complete; timezone-aware.
    """

    client_ip: str | None
    helo: str
    envelope: Address | None
    recipients: tuple[str, ...] = ()
    user: str | None = None
    receiver: str
    queue_id: str = ""
    received_at: datetime
