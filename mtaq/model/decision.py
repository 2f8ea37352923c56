"""What the operator's own code decided about a session, a recipient or a message.

Holds only. Whoever made it may have been anybody's program, so ``mtaq.hooks.answer`` judges it before it counts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from mtaq.model.reply import Reply

Action = Literal["accept", "reject", "defer", "drop"]
"""Take it; refuse it for good; refuse it for now; take it and deliver it to nobody."""

FACTS = (
    "message-id", "received", "hostname", "connection", "spool", "size", "body", "smtputf8", "requiretls", "checks",
)  # fmt: skip
"""Properties of a received message that nobody's code changes: they say what the client did, and what was found."""


@dataclass(frozen=True, slots=True)
class Decision:
    """A decision, and what the client is told of it.

    Attributes:
        action: What happens.
        code: Reply code; 250 unless the client is refused.
        status: Enhanced status code (RFC 3463) that fits the code.
        text: Text of the reply.
        message: The whole JSON as it is from now on; ``None`` when nothing was changed.
        decided_by: Whose decision it is, as logs name it; empty until that is known.
    """

    action: Action
    code: int = 250
    status: str = "2.0.0"
    text: str = "ok"
    message: dict[str, Any] | None = field(default=None, repr=False)
    decided_by: str = field(default="", compare=False)

    @property
    def reply(self) -> Reply:
        """The refusal, ready to be sent."""
        return Reply(self.code, self.status, (self.text,))


def accept(message: dict[str, Any] | None = None) -> Decision:
    """Take it; *message* is the changed JSON, when there is one."""
    return Decision("accept", message=message)


def reject(text: str = "not accepted here", *, code: int = 550, status: str | None = None) -> Decision:
    """Refuse it for good (5yz, RFC 5321 §4.2.1); *status* is 5.7.1 unless given."""
    return Decision("reject", code, status or f"{code // 100}.7.1", text)


def defer(
    text: str = "cannot be decided now, try again later", *, code: int = 451, status: str | None = None
) -> Decision:
    """Refuse it for now (4yz): the client keeps it and tries again; *status* is 4.7.1 unless given."""
    return Decision("defer", code, status or f"{code // 100}.7.1", text)


def drop() -> Decision:
    """Answer 250 and deliver it to nobody."""
    return Decision("drop")
