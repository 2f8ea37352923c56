"""May one more go now, under so many a minute? The generic cell rate algorithm (ITU-T I.371), in whole nanoseconds.

What is remembered is one number, the theoretical arrival time: when the next one would be due if all came evenly. With
a burst of 1 no window of 60 s, wherever it begins, holds more than the rate; a burst of *n* adds *n* - 1 to that.
Reserved turns go into a line of their own: each begins where the one before it ends, and may lie far ahead.
No clock, and no rounding that could add up to one too many.
"""

from __future__ import annotations

from typing import NamedTuple

_MINUTE_NS = 60_000_000_000


class Turn(NamedTuple):
    """What follows.

    Attributes:
        due_ns: The number to remember.
        wait_ns: 0 to go now; else how long until one may, and nothing was counted.
    """

    due_ns: int
    wait_ns: int


def next_turn(due_ns: int, *, per_minute: float, burst: int, now_ns: int) -> Turn:
    """
    Decide for one more.

    Args:
        due_ns: What was remembered; 0 at first.
        per_minute: Above 0.
        burst: How many may go at once after a long silence; ≥ 1.
    """
    interval_ns = int(-(-_MINUTE_NS // per_minute))
    wait_ns = due_ns - (burst - 1) * interval_ns - now_ns
    if wait_ns > 0:
        return Turn(due_ns, wait_ns)
    return Turn(max(due_ns, now_ns) + interval_ns, 0)


def next_place(due_ns: int, *, takes_ns: int, from_ns: int, until_ns: int) -> Turn | None:
    """
    Decide when the next in a line of reserved turns may come; ``None`` when that is after *until_ns*: none is taken.

    Args:
        due_ns: What was remembered: the end of the line; 0 at first.
        takes_ns: How long its turn is.
        from_ns: Not before this moment.

    Returns:
        What to remember, and how long after *from_ns* its turn begins.
    """
    at_ns = max(due_ns, from_ns)
    return None if at_ns > until_ns else Turn(at_ns + takes_ns, at_ns - from_ns)
