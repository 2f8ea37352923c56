"""How long may a client take (RFC 5321 §4.5.3.2.7)?

What counts is progress: a command is to come whole within ``smtp-timeout``, content may take as much longer as
``LEAST_RATE`` allows. Silence is bounded, and so is the whole session. No clock of its own.
"""

from __future__ import annotations

from mtaq.config import ReceiveOptions

#: Content must come at this rate, in bytes per second, once ``smtp-timeout`` is over.
LEAST_RATE = 500

#: How long a closed connection may take to send what is left.
CLOSING_S = 10.0


class Progress:
    """What a client did, and when; times are those of the event loop, in seconds.

    Attributes:
        opened_at: It connected.
        heard_at: It said something, or we did.
        progressed_at: We said something: a command or a content was over.
        content_bytes: What it has sent of content since.
    """

    __slots__ = ("content_bytes", "heard_at", "opened_at", "progressed_at")

    def __init__(self, now: float) -> None:
        self.opened_at = self.heard_at = self.progressed_at = now
        self.content_bytes = 0

    def spoke(self, now: float) -> None:
        """We said something."""
        self.heard_at = self.progressed_at = now
        self.content_bytes = 0

    def overdue(self, now: float, options: ReceiveOptions) -> str:
        """Return why the client is to be cut; empty as long as it is not."""
        if now - self.heard_at > options.smtp_timeout:
            return "idle too long"
        if now - self.progressed_at > options.smtp_timeout + self.content_bytes / LEAST_RATE:
            return "too slow"
        return "session too long" if now - self.opened_at > options.smtp_session_timeout else ""

    def closes_too_slowly(self, now: float) -> bool:
        """Has a connection that is being closed had its time?"""
        return now - self.progressed_at > CLOSING_S
