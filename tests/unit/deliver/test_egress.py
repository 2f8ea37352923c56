"""From which source address a message leaves."""

from __future__ import annotations

import random
from datetime import UTC, datetime

from mtaq.deliver.egress import Sources, choose_sources
from mtaq.model.control import Pool, PoolMember
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
    assert sources("192.0.2.9", defaults=DEFAULTS) == Sources(("192.0.2.9",), must=True)


def test_the_mapped_address_is_a_wish():
    """Exactly the local IP, alone: reception wrote it."""
    chosen = sources("192.0.2.9", local_ip="192.0.2.9", defaults=DEFAULTS)
    assert chosen.wanted == ("192.0.2.9",)
    assert set(chosen.fallback) == set(DEFAULTS)
    assert sources("192.0.2.9", local_ip="192.0.2.9").fallback == (None,)
    assert sources("192.0.2.9", "192.0.2.8", local_ip="192.0.2.9").fallback == ()
    assert sources("192.0.2.8", local_ip="192.0.2.9").fallback == ()


def test_an_address_has_one_spelling():
    """Or each of them would have limits of its own. What is no address is left for the attempt to refuse."""
    assert sources("2001:DB8:0::1", "2001:db8::1").wanted == ("2001:db8::1",)
    assert sources("::ffff:192.0.2.9").wanted == ("192.0.2.9",)
    assert sources("localhost").wanted == ("localhost",)


def test_each_address_gets_its_share():
    """Several are used in random order."""
    rng = random.Random(5)
    message = OutboxMessage(properties={}, message_id="", envelope="", recipient="", content=b"", ips=DEFAULTS)
    first = [choose_sources(message, (), rng).wanted[0] for _ in range(100)]
    assert 30 < first.count(DEFAULTS[0]) < 70


def pooled(*members: tuple[str, int], ips: tuple[str, ...] = (), seed: int = 7) -> Sources:
    pool = Pool(
        id="p", created_at=datetime(2026, 1, 1, tzinfo=UTC), name="p", members=tuple(PoolMember(*m) for m in members)
    )
    message = OutboxMessage(properties={}, message_id="", envelope="", recipient="", content=b"", ips=ips, pool="p")
    return choose_sources(message, DEFAULTS, random.Random(seed), pool=pool)


def test_a_pool_is_drawn_from_by_weight():
    """Each member has its share, all of them are tried in the end, and the default IPs never."""
    first = [pooled(("192.0.2.7", 3), ("192.0.2.8", 1), seed=seed).wanted[0] for seed in range(400)]
    assert 260 < first.count("192.0.2.7") < 340
    assert sorted(pooled(("192.0.2.7", 3), ("192.0.2.8", 1)).wanted) == ["192.0.2.7", "192.0.2.8"]
    assert pooled(("192.0.2.7", 3)).fallback == ()


def test_ips_go_before_a_pool():
    """As the message says it more exactly."""
    assert pooled(("192.0.2.7", 1), ips=("192.0.2.9",)).wanted == ("192.0.2.9",)


def test_who_waited_for_a_source_keeps_it():
    """If it still is one of those asked for."""
    chosen = Sources(("a", "b", "c"), must=True)
    assert chosen.beginning_with("b") == Sources(("b", "a", "c"), must=True)
    assert chosen.beginning_with("d") is chosen
    assert chosen.beginning_with(None) is chosen
