"""What holds for delivery now."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from mtaq.deliver.ports import Control
from mtaq.model.control import Limits, OverrideHost, PoolMember, ReplyPattern, Scope
from mtaq.state.control import LiveControl, prepare
from mtaq.state.control_entries import dns_override, flood_pattern, pause, pool, tls_level, warm_up
from mtaq.state.dkim_keys import dkim_key, generate
from tests.support.control import START, Clock, about, control, place

PEM = generate("ed25519-sha256")


def test_it_fits():
    """It is what delivery asks for."""
    fits: Control = control()
    assert fits.pool("bulk") is None


def test_the_pause_that_ends_last():
    """Of several pauses the one that ends last is told; ended ones are not."""
    clock = Clock()
    live = control(
        pause(Scope(), about=about(for_s=60, reason="short")),
        pause(Scope(domain="example.com"), about=about(for_s=600, reason="long")),
        pause(Scope(domain="example.org"), about=about(reason="for ever")),
        clock=clock,
    )

    def reason(domain: str) -> str | None:
        found = live.pause_for(**place(domain=domain), tags=(), sender_domain="")
        return None if found is None else found.reason

    assert (reason("example.com"), reason("example.org"), reason("example.net")) == ("long", "for ever", "short")
    clock.now += timedelta(seconds=60)
    assert (reason("example.com"), reason("example.org"), reason("example.net")) == ("long", "for ever", None)


def test_warm_ups():
    """The cap grows by the day, its last step repeats, and each source and day has a counter of its own."""
    live = control(
        warm_up(Scope(pool="new"), starts_on=date(2026, 3, 1), steps=(50, 100, 0), about=about()),
        warm_up(Scope(pool="new", domain="*.example.com"), starts_on=date(2026, 3, 1), steps=(5,), about=about()),
    )

    def cap(day: date, **more: object):
        return live.daily_cap(**place(pools=("new",), **more), today=day)

    assert cap(date(2026, 2, 28)) is None
    assert [cap(date(2026, 3, day)).messages for day in (1, 2)] == [50, 100]
    assert cap(date(2026, 3, 3)) is None
    assert cap(date(2026, 3, 9), domain="a.example.com").messages == 5
    assert live.daily_cap(**place(), today=date(2026, 3, 1)) is None
    counters = {
        cap(date(2026, 3, 1)).counter,
        cap(date(2026, 3, 2)).counter,
        cap(date(2026, 3, 1), source="192.0.2.2").counter,
        cap(date(2026, 3, 1), domain="a.example.com").counter,
    }
    assert len(counters) == 4
    assert cap(date(2026, 3, 1)).counter == cap(date(2026, 3, 1), domain="example.org").counter


def test_dkim_keys():
    """A key signs for its domains, from its start to its end."""
    clock = Clock()
    now = dkim_key("example.com", "now", PEM, about=about(for_s=60))
    next_one = dkim_key(
        "example.com", "next", PEM, signs=["example.com", "*.example.com"],
        starts_at=START + timedelta(seconds=60), about=about(),
    )  # fmt: skip
    live = control(now, next_one, clock=clock)
    assert live.dkim_keys("example.com") == [now]
    assert live.dkim_keys("sub.example.com") == []
    clock.now += timedelta(seconds=60)
    assert live.dkim_keys("example.com") == [next_one]
    assert live.dkim_keys("sub.example.com") == [next_one]
    assert live.dkim_keys("example.org") == []


def test_pools():
    """A pool is found by its name, and its members know it."""
    bulk = pool("bulk", [PoolMember("192.0.2.1", 3), PoolMember("192.0.2.2")], about=about())
    live = control(bulk, pool("all", [PoolMember("192.0.2.1")], about=about()))
    assert live.pool("bulk") == bulk
    assert live.pool("none") is None
    assert [live.pools_of(source) for source in ("192.0.2.1", "192.0.2.2", "192.0.2.3", None)] == [
        ("all", "bulk"), ("bulk",), (), (),
    ]  # fmt: skip


def test_dns_overrides():
    """The domain itself goes before what stands below a wider one."""
    own = dns_override("a.example.com", [OverrideHost("mx.example.net", 2525)], about=about())
    below = dns_override("*.example.com", [OverrideHost("192.0.2.9")], about=about())
    live = control(own, below)
    assert live.dns_override("a.example.com") == own
    assert live.dns_override("b.example.com") == below
    assert live.dns_override("example.com") is None


def test_tls_levels():
    """The domain goes before the site, both before everything; what has ended counts no longer."""
    clock = Clock()
    scopes = {
        "dane-only": Scope(domain="a.example.com"),
        "required": Scope(domain="*.example.com"),
        "verified": Scope(site="*.example.net"),
        "optional": Scope(site="mx.example.net"),
    }
    live = control(
        *(tls_level(scope, level, about=about()) for level, scope in scopes.items()),
        tls_level(Scope(), "opportunistic", about=about(for_s=60)),
        clock=clock,
    )

    def level(domain: str, site: str | None = None) -> str | None:
        entry = live.tls_level(domain=domain, site=site)
        return None if entry is None else entry.level

    assert level("a.example.com", "mx.example.net") == "dane-only"
    assert level("b.example.com", "mx.example.net") == "required"
    assert level("example.com", "mx.example.net,mx2.example.net") == "optional"
    assert level("example.com", "mx2.example.net") == "verified"
    assert [level("example.com", site) for site in ("mx.example.org", None)] == ["opportunistic", "opportunistic"]
    clock.now += timedelta(seconds=60)
    assert level("example.com", "mx.example.org") is None
    assert control().tls_level(domain="example.com", site="mx.example.net") is None


class Added:
    """A process, and how often it had something to write."""

    def __init__(self) -> None:
        self.times = 0
        self.clock = Clock()
        self.live = LiveControl(self.clock, self._count)

    def _count(self) -> None:
        self.times += 1

    def is_paused(self, **more: object) -> bool:
        return self.live.pause_for(**place(**more), tags=(), sender_domain="") is not None


@pytest.mark.parametrize("one_for_sources", [True, False])
def test_a_flood(one_for_sources):
    """A flood pattern pauses, and limits what goes when the pause is over, for a time."""
    added = Added()
    pattern = flood_pattern(
        position=1, reply=ReplyPattern(code="421"), scope=Scope(), pause_s=60, limits=Limits(connections=1),
        limits_s=600, one_for_sources=one_for_sources, about=about(),
    )  # fmt: skip
    assert added.live.react_to_flood(pattern, source="192.0.2.1", site="mx.example.net")
    assert not added.live.react_to_flood(pattern, source="192.0.2.1", site="mx.example.net")
    assert added.is_paused()
    assert added.is_paused(source="192.0.2.2") is one_for_sources
    assert not added.is_paused(site="other.example.net")
    added.clock.now += timedelta(seconds=60)
    assert not added.is_paused()
    assert added.live.limits(**place()).connections.amount == 1
    added.clock.now += timedelta(seconds=600)
    assert added.live.limits(**place()).connections is None


def test_many_floods_are_few_entries():
    """The same flood again is no new entry until a part of its time is over; then it is prolonged."""
    added = Added()
    for _ in range(1000):
        added.live.add_pause(Scope(site="mx.example.net"), duration_s=100, reason="421")
        added.clock.now += timedelta(milliseconds=5)
    assert added.times == 1
    added.clock.now += timedelta(seconds=20)
    added.live.add_pause(Scope(site="mx.example.net"), duration_s=100, reason="421")
    assert added.times == 2
    assert len(added.live.unwritten) == 1
    added.clock.now = START + timedelta(seconds=110)
    assert added.is_paused()


def test_what_is_not_written_survives_reading():
    """What this process added holds although the database does not know it yet; once written, the database decides."""
    added = Added()
    added.live.add_pause(Scope(), duration_s=100, reason="421")
    added.live.replace("pauses", control_of_nothing())
    assert added.is_paused()
    added.live.forget_written(list(added.live.unwritten.values()), added.clock())
    added.live.replace("pauses", control_of_nothing())
    assert not added.is_paused()


def control_of_nothing():
    """What an empty database says of pauses."""
    return prepare("pauses", [])


def test_callbacks():
    """Whoever asked for it is told of changes, and not of none."""
    told: list[frozenset[str]] = []
    live = control()
    live.on_change(told.append)
    live.tell({"pauses"})
    live.tell(set())
    assert told == [frozenset({"pauses"})]
