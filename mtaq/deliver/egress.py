"""From which source address does a message leave? Its ``ips``, else its pool, else the default IPs, else the kernel's.

Decides the order; whether an address can be bound shows when a connection is opened from it. An ``ips`` equal to
``connection.local-ip`` was written by our own reception (``smtp-mappable-ips``) and is only a wish: the default IPs
follow it. Of any other ``ips`` one must do, and of a pool one member. Limits are counted by the
address, so it has one spelling here, however a message writes it.
"""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Sequence
from dataclasses import dataclass

from mtaq.model.control import Pool, PoolMember
from mtaq.model.message import OutboxMessage


@dataclass(frozen=True, slots=True)
class Sources:
    """Source addresses in the order to try them.

    Attributes:
        wanted: What the message or the configuration asks for; ``None`` leaves it to the kernel.
        fallback: What does instead when none of them can be bound.
        must: Was one of them asked for by ``ips``, so that nothing else will ever do?
    """

    wanted: tuple[str | None, ...]
    fallback: tuple[str | None, ...] = ()
    must: bool = False

    def beginning_with(self, source: str | None) -> Sources:
        """Return the same with *source* first, if it is one of them: where it waited, its turn comes."""
        if source is None or source not in (*self.wanted, *self.fallback):
            return self
        return Sources(_beginning_with(source, self.wanted), _beginning_with(source, self.fallback), self.must)


def _beginning_with(source: str, sources: tuple[str | None, ...]) -> tuple[str | None, ...]:
    if source not in sources:
        return sources
    return (source, *(other for other in sources if other != source))


def choose_sources(
    message: OutboxMessage, default_ips: Sequence[str], rng: random.Random, *, pool: Pool | None = None
) -> Sources:
    """
    Return the source addresses of *message*.

    Several are used in random order, so that each gets its share; those of *pool*, which the message names, by weight.
    """
    defaults: tuple[str | None, ...] = _shuffled(default_ips, rng) or (None,)
    if message.ips:
        is_wish = message.ips == (message.local_ip,)
        ips = tuple(dict.fromkeys(map(_plain, message.ips)))
        return Sources(_shuffled(ips, rng), defaults if is_wish else (), must=not is_wish)
    if pool is not None:
        return Sources(_by_weight(pool.members, rng))
    return Sources(defaults)


def _plain(text: str) -> str:
    """Return an IP address as RFC 5952 spells it, an IPv4-mapped one as IPv4; other text as it is."""
    try:
        ip = ipaddress.ip_address(text)
    except ValueError:
        return text
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return str(mapped or ip)


def _shuffled(ips: Sequence[str], rng: random.Random) -> tuple[str, ...]:
    if len(ips) < 2:
        return tuple(ips)
    return tuple(rng.sample(list(ips), len(ips)))


def _by_weight(members: Sequence[PoolMember], rng: random.Random) -> tuple[str, ...]:
    """Draw all, each time in proportion to the weights of those that are left."""
    left, drawn = list(members), []
    while left:
        (member,) = rng.choices(left, [each.weight for each in left])
        left.remove(member)
        drawn.append(member.ip)
    return tuple(drawn)
