"""What need not wait any more when pauses and limits change."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

import pytest

from mtaq.deliver.gate import Gate
from mtaq.deliver.orders import Orders
from mtaq.deliver.recall import Recall
from mtaq.model.control import Limits, Scope
from mtaq.state import control_entries
from mtaq.telemetry.events import EventLog
from tests.support.delivery import START, Clock, Lines, live_control, options, set_entries
from tests.support.meters import fake_meters
from tests.unit.deliver.test_forward import Waits

OUT = Scope(domain="example.com")


def about(**changes: Any) -> control_entries.About:
    usual = {"reason": "", "expires_at": None, "automatic": False, "created_at": START}
    return control_entries.About(**{**usual, **changes})


def pause(**changes: Any) -> Any:
    return control_entries.pause(OUT, about=about(**changes))


def throttle(amount: float, **changes: Any) -> Any:
    return control_entries.throttle(OUT, Limits(messages_per_minute=amount), about=about(**changes))


class World:
    """A runtime state that is watched."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.control = live_control(self.clock)
        self.meters = fake_meters(lambda: 0.0)
        events = EventLog(Lines(), node="test", clock=self.clock)
        orders = Orders(self.control, events=events, rng=random.Random(1), on_flood=lambda: None)
        self.recall = Recall(options(), control=self.control, orders=orders, meters=self.meters, clock=self.clock)

    def set(self, kind: str, *entries: Any) -> bool:
        set_entries(self.control, kind, *entries)
        return self.recall.is_freed()

    def comes(self, reason: str, **headers: str) -> bool:
        message = {"recipient": "bob@example.com", "envelope": "a@example.org", "mime": "x"}
        waits = Waits(message, {"parked-reason": reason, "parked-site": "mx.example.net", **headers})
        return self.recall.choose(waits) is not None

    def line(self) -> str:
        limits = self.control.limits(source=None, pools=(), domain="example.com", site="mx.example.net")
        return Gate(limits, None, self.meters).line.hex()


@pytest.fixture
def world() -> World:
    return World()


def test_pauses(world: World) -> None:
    """A pause that ends earlier frees something, one that begins or is prolonged does not."""
    late, later = (START + timedelta(hours=hours) for hours in (1, 2))
    assert not world.set("pauses", pause(expires_at=late))
    assert not world.set("pauses", pause(expires_at=later))
    assert not world.comes("pause")
    assert world.set("pauses", pause(expires_at=late))
    assert world.set("pauses")
    assert world.comes("pause")
    assert not world.set("pauses")


def test_limits(world: World) -> None:
    """What waits in the line of a limit comes when that is another one; lowering one frees nothing."""
    world.set("throttles", throttle(10))
    line = world.line()
    assert not world.comes("throttle", **{"parked-line": line})
    assert not world.set("throttles", throttle(5))
    assert world.set("throttles", throttle(50))
    assert world.comes("throttle", **{"parked-line": line})
    assert not world.comes("throttle", **{"parked-line": world.line()})
    assert world.set("throttles")
    assert world.comes("throttle", **{"parked-line": line})


def test_a_limit_that_ends(world: World) -> None:
    """The end of a limit is known before, and frees what it held."""
    end = START + timedelta(hours=1)
    world.set("throttles", throttle(10, expires_at=end, automatic=True))
    line = world.line()
    assert world.recall.next_end() == end
    world.clock.forward(3601)
    assert world.recall.is_freed()
    assert world.comes("throttle", **{"parked-line": line})
    assert world.recall.next_end() is None


def test_automatic_limits_free_nothing(world: World) -> None:
    """They can only lower what holds; an operator's narrower one may allow more than a wider one."""
    assert not world.set("throttles", throttle(10, automatic=True))
    assert world.set("throttles", throttle(10, automatic=True), throttle(7))


@pytest.mark.parametrize("reason", ["full", "retry", "nonsense"])
def test_other_causes(world: World, reason: str) -> None:
    """What waits for anything else is left alone."""
    assert not world.comes(reason)


@pytest.mark.parametrize("body", [b"", b"[]", b'{"recipient": 5}', b'{"recipient": "nobody", "mime": ""}'])
def test_what_cannot_be_understood(world: World, body: bytes) -> None:
    """A message that is none stays where it is."""
    assert world.recall.choose(Waits(body, {"parked-reason": "pause"})) is None
