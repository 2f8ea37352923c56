"""When is a deferred message tried again, and when is it given up?

Decides only; publishing it back is ``deliver.results``'s work and the failure notice is ``reports.dsn``'s. No I/O and
no clock, and chance is an argument, so a four-day retry history is tested in microseconds.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

#: Times in the JSON are to the second; a shorter wait would be no wait.
SHORTEST = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class RetryAt:
    """Try again at ``at``."""

    at: datetime


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Do not try again; ``reason`` is fit for the notice."""

    reason: str


def next_attempt(
    attempts: int,
    *,
    now: datetime,
    deadline: datetime,
    intervals: Sequence[timedelta],
    max_attempts: int = 0,
    jitter: float = 0.0,
    rng: random.Random,
) -> RetryAt | GiveUp:
    """
    Decide what follows a transient failure (RFC 5321 §4.5.4.1).

    Args:
        attempts: Attempts made so far, the one that just failed included; ≥ 1.
        deadline: Moment after which the message is returned to its sender.
        intervals: Wait after the first, second, … failure. The last repeats; never empty.
        max_attempts: Attempts after which to give up; 0 is unlimited.
        jitter: How far a wait may vary either way, as a share of it: 0.1 is ten per cent.
        rng: Where chance comes from.

    Returns:
        ``RetryAt`` not later than *deadline*, else ``GiveUp``. Chance alone never makes it give up.
    """
    if max_attempts and attempts >= max_attempts:
        return GiveUp(f"not delivered in {attempts} attempt{'s' if attempts > 1 else ''}")
    wait = max(intervals[min(attempts, len(intervals)) - 1], SHORTEST)
    if now + wait > deadline:
        return GiveUp(f"not delivered before {deadline:%Y-%m-%d %H:%M} UTC")
    varied = max(wait * (1 + rng.uniform(-jitter, jitter)), SHORTEST)
    return RetryAt(min(now + varied, deadline))
