"""The delay ladder: how a message waits in RabbitMQ for any number of seconds, without plugins.

Rung *n* is a queue whose messages live ``2^n`` units; in front of it stands a topic exchange. The routing key is the
delay in binary, one word per bit, highest first (``0.0.1.0.1``). Exchange *n* looks at its own bit: ``1`` goes to the
rung's queue, ``0`` straight on to exchange *n-1*; an expired message goes there too, so each trip visits a rung at
most once and no message ever stands behind one that waits longer. Below rung 0 lies the target queue.

Pure: names, arguments and keys; ``topology`` declares them and ``publish`` uses them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

#: RabbitMQ takes an ``x-message-ttl`` below 2^32 ms, so the longest rung is 2^22 s: 48 days, and the longest trip 97.
RUNGS = 23

#: Longest trip of a message in units; who needs more is woken early and parks again.
LONGEST = 2**RUNGS - 1


@dataclass(frozen=True, slots=True)
class Rung:
    """One step of a ladder, as it is declared.

    Attributes:
        name: Of its queue and of its exchange.
        ttl_ms: How long a message stays.
        one: Binding key under which the exchange feeds the rung's queue.
        zero: Binding key under which the exchange passes a message on.
        below: Name of the next exchange down, or ``None`` above the target queue.
    """

    name: str
    ttl_ms: int
    one: str
    zero: str
    below: str | None


def rungs(queue: str, unit_s: float = 1.0) -> list[Rung]:
    """Return the ladder that leads to *queue*, lowest rung first; *unit_s* is the wait on rung 0."""
    return [
        Rung(
            name=rung_name(queue, number),
            ttl_ms=math.ceil(2**number * unit_s * 1000),
            one=_binding_key(number, "1"),
            zero=_binding_key(number, "0"),
            below=rung_name(queue, number - 1) if number else None,
        )
        for number in range(RUNGS)
    ]


def rung_name(queue: str, number: int) -> str:
    """Return the name that queue and exchange of rung *number* share."""
    return f"{queue}.delay.{number}"


def trip(queue: str, delay_s: float, unit_s: float = 1.0) -> tuple[str, str]:
    """Return exchange and routing key for a message that may come out *delay_s* from now; *delay_s* > 0.

    Rounded up to whole units, so never early, and cut to ``LONGEST``. It enters at its highest bit: the rungs above
    would only pass it down.
    """
    units = min(max(math.ceil(delay_s / unit_s), 1), LONGEST)
    return rung_name(queue, units.bit_length() - 1), ".".join(f"{units:0{RUNGS}b}")


def leaves_at(rung: int, key: str, sent_at_s: float, unit_s: float = 1.0) -> tuple[float, float] | None:
    """
    Say how long a message stays that was found on a rung.

    Args:
        rung: The number of the rung.
        key: Its routing key.
        sent_at_s: When its trip began; any clock.

    Returns:
        When it leaves this rung, and when it will have reached the target; ``None`` when *key* is none of ours.
    """
    bits = key.replace(".", "")
    if len(bits) != RUNGS or key.count(".") != RUNGS - 1 or not set(bits) <= {"0", "1"}:
        return None
    units = int(bits, 2)
    return sent_at_s + (units >> rung << rung) * unit_s, sent_at_s + units * unit_s


def _binding_key(number: int, bit: str) -> str:
    return ".".join("*" * (RUNGS - 1 - number) + bit + "*" * number)
