"""From which source address does a message leave? Its ``ips``, else the default IPs, else where the kernel chooses.

Decides the order; whether an address can be bound shows when a connection is opened from it. An ``ips`` equal to
``connection.local-ip`` was written by our own reception (``smtp-mappable-ips``) and is only a wish: the default IPs
follow it. Of any other ``ips`` one must do.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from mtaq.model.message import OutboxMessage


@dataclass(frozen=True, slots=True)
class Sources:
    """Source addresses in the order to try them.

    Attributes:
        wanted: What the message or the configuration asks for; ``None`` leaves it to the kernel.
        fallback: What does instead when none of them can be bound.
    """

    wanted: tuple[str | None, ...]
    fallback: tuple[str | None, ...] = ()


def choose_sources(message: OutboxMessage, default_ips: Sequence[str], rng: random.Random) -> Sources:
    """Return the source addresses of *message*; several are used in random order, so that each gets its share."""
    defaults: tuple[str | None, ...] = _shuffled(default_ips, rng) or (None,)
    if not message.ips:
        return Sources(defaults)
    is_wish = message.ips == (message.local_ip,)
    return Sources(_shuffled(message.ips, rng), defaults if is_wish else ())


def _shuffled(ips: Sequence[str], rng: random.Random) -> tuple[str, ...]:
    if len(ips) < 2:
        return tuple(ips)
    return tuple(rng.sample(list(ips), len(ips)))
