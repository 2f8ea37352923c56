"""Is it this message's turn? Expired, not due yet, or now.

Decides only, without a clock; a message that is not due is parked in the delay ladder by ``results``, and a parked
message does not count as an attempt.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from mtaq.model.message import OutboxMessage

#: Times in the JSON are to the second, and a trip through the ladder may end a little early: another trip for less
#: than this would only cost.
TOLERANCE = timedelta(seconds=1)
#: The ladder is precise to two seconds: a retry set for the last moment is still made when it comes out that late.
LADDER_PRECISION = timedelta(seconds=2)
#: Any later first pick-up is somebody's mistake; a life can still be added to this one.
_LATEST = datetime(9000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Turn:
    """What is to be done with a message now.

    Attributes:
        action: ``attempt`` it, ``expire`` it (it fails), or ``park`` it until *until*.
        seen_at: First pick-up by delivery, this one when there was none: the life of a message begins when it may
            first go out, so waiting for ``nextattempt`` does not use it up.
        expires_at: When it is given up.
        until: For ``park``: when it is looked at again.
    """

    action: Literal["attempt", "expire", "park"]
    seen_at: datetime
    expires_at: datetime
    until: datetime | None = None


def turn_of(message: OutboxMessage, *, now: datetime, max_delivertime: timedelta) -> Turn:
    """Decide what is to be done with *message* now (``maxdelivertime``, ``nextattempt``)."""
    seen_at = message.seen_at or now
    expires_at = message.expires_at or min(seen_at, _LATEST) + max_delivertime
    due_at = message.due_at
    from_ladder = due_at is not None and due_at <= expires_at
    # Subtracted, because "never" is written as the end of the year 9999, and nothing can be added to that.
    if now - expires_at >= (LADDER_PRECISION if from_ladder else timedelta()):
        return Turn("expire", seen_at, expires_at)
    if due_at is not None and due_at - now >= TOLERANCE:
        lives_until_due = message.expires_at is None and message.seen_at is None
        return Turn("park", seen_at, expires_at, due_at if lives_until_due else min(due_at, expires_at))
    return Turn("attempt", seen_at, expires_at)
