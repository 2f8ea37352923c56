"""Which limits hold."""

from __future__ import annotations

from datetime import timedelta

import pytest

from mtaq.model.control import NO_LIMITS, Limits, Scope
from mtaq.state.control_entries import throttle
from tests.support.control import START, Clock, about, control, place

EVERYWHERE = Scope()


def per_minute(messages: float, scope: Scope = EVERYWHERE, **more: object):
    """A throttle of messages a minute."""
    return throttle(scope, Limits(messages_per_minute=messages), **({"about": about()} | more))


def test_nothing_said():
    """Without throttles nothing is limited."""
    assert control().limits(**place()) == NO_LIMITS
    assert control(per_minute(5, Scope(domain="example.org"))).limits(**place()) == NO_LIMITS


def test_each_limit_by_itself():
    """The most specific throttle that says something about a limit wins, limit by limit."""
    live = control(
        throttle(Scope(), Limits(messages_per_minute=100, connections=9, ready_messages=50), about=about()),
        throttle(Scope(domain="example.com"), Limits(messages_per_minute=10), about=about()),
        throttle(Scope(source="192.0.2.1", domain="example.com"), Limits(connections=2), about=about()),
    )
    limits = live.limits(**place())
    assert limits.messages_per_minute.amount == 10
    assert limits.connections.amount == 2
    assert limits.ready_messages.amount == 50
    assert limits.bytes_per_minute is None
    assert live.limits(**place(source="192.0.2.2")).connections.amount == 9


def test_no_limit_is_something_said():
    """0 lifts a limit of a wider throttle."""
    live = control(per_minute(100), per_minute(0, Scope(domain="example.com")))
    assert live.limits(**place()).messages_per_minute.amount == 0


@pytest.mark.parametrize(
    ("options", "other", "shared"),
    [
        ({}, place(), True),
        ({}, place(source="192.0.2.2"), False),
        ({}, place(site="other.example.net"), False),
        ({}, place(domain="example.org"), True),
        ({"one_for_sources": True}, place(source="192.0.2.2"), True),
        ({"one_for_sources": True}, place(source="192.0.2.2", site="other.example.net"), False),
        ({"one_for_sites": True}, place(site="other.example.net"), True),
        ({"one_for_sources": True, "one_for_sites": True}, place(source="192.0.2.2", site="other.example.net"), True),
        ({"scope": Scope(domain="*.com")}, place(domain="example2.com"), False),
        ({"scope": Scope(domain="*.com")}, place(site="other.example.net"), True),
        ({"scope": Scope(domain="*.com"), "one_for_sites": True}, place(domain="example2.com"), True),
    ],
)
def test_what_is_counted_together(options, other, shared):
    """Each source and each destination is counted by itself, unless the throttle says otherwise."""
    live = control(per_minute(5, **options))
    first, second = live.limits(**place()), live.limits(**other)
    assert (first.messages_per_minute.counter == second.messages_per_minute.counter) is shared
    assert len(first.messages_per_minute.counter) <= 100


def test_limits_of_one_throttle_are_counted_apart():
    """Messages do not count as connections."""
    limits = control(throttle(Scope(), Limits(messages_per_minute=1, connections=1), about=about())).limits(**place())
    assert limits.messages_per_minute.counter != limits.connections.counter


def test_the_end_of_a_throttle():
    """An ended throttle gives way to the next one, although the answer was remembered."""
    clock = Clock()
    live = control(per_minute(100), per_minute(10, Scope(domain="example.com"), about=about(for_s=60)), clock=clock)
    assert live.limits(**place()).messages_per_minute.amount == 10
    clock.now = START + timedelta(seconds=60)
    assert live.limits(**place()).messages_per_minute.amount == 100


@pytest.mark.parametrize(("manual", "expected"), [(100, 10), (5, 5), (0, 10)])
def test_automatic_limits_only_lower(manual, expected):
    """What a flood pattern set does not raise what an operator set, however specific it is, and lowers it otherwise."""
    live = control(per_minute(manual, Scope(source="192.0.2.1", domain="example.com")))
    live.add_limits(Scope(site="mx.example.net"), Limits(messages_per_minute=10), duration_s=60, reason="flood")
    assert live.limits(**place()).messages_per_minute.amount == expected
