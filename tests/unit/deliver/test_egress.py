"""From which source address a message leaves."""

from __future__ import annotations

import random

from mtaq.deliver.egress import Sources, choose_sources
from mtaq.model.message import OutboxMessage

DEFAULTS = ("192.0.2.1", "192.0.2.2")


def sources(*ips: str, local_ip: str | None = None, defaults: tuple[str, ...] = ()) -> Sources:
    message = OutboxMessage(
        properties={}, message_id="", envelope="", recipient="", content=b"", ips=ips, local_ip=local_ip
    )
    return choose_sources(message, defaults, random.Random(3))


def test_the_kernel_chooses_when_nobody_else_does():
    """No ``ips``, no default IPs."""
    assert sources() == Sources((None,))


def test_default_ips_serve_messages_that_name_none():
    """All of them, in any order."""
    assert set(sources(defaults=DEFAULTS).wanted) == set(DEFAULTS)


def test_ips_go_before_and_nothing_follows_them():
    """Of those of the message one must do."""
    assert sources("192.0.2.9", defaults=DEFAULTS) == Sources(("192.0.2.9",))


def test_the_mapped_address_is_a_wish():
    """Exactly the local IP, alone: reception wrote it."""
    chosen = sources("192.0.2.9", local_ip="192.0.2.9", defaults=DEFAULTS)
    assert chosen.wanted == ("192.0.2.9",)
    assert set(chosen.fallback) == set(DEFAULTS)
    assert sources("192.0.2.9", local_ip="192.0.2.9").fallback == (None,)
    assert sources("192.0.2.9", "192.0.2.8", local_ip="192.0.2.9").fallback == ()
    assert sources("192.0.2.8", local_ip="192.0.2.9").fallback == ()


def test_each_address_gets_its_share():
    """Several are used in random order."""
    rng = random.Random(5)
    message = OutboxMessage(properties={}, message_id="", envelope="", recipient="", content=b"", ips=DEFAULTS)
    first = [choose_sources(message, (), rng).wanted[0] for _ in range(100)]
    assert 30 < first.count(DEFAULTS[0]) < 70
