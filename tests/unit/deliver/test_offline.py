"""Addresses that refuse again and again are not tried for a while."""

from __future__ import annotations

import pytest

from mtaq.deliver import offline
from mtaq.deliver.offline import FAILING_S, FAILURES, OFFLINE_S, OfflineAddresses
from mtaq.deliver.route import Target

FIRST, SECOND = Target("mx1", "192.0.2.1", 25), Target("mx2", "192.0.2.2", 25)


class Scene:
    """A clock and what was told."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.told: list[tuple[str | None, str, str]] = []
        self.addresses = OfflineAddresses(
            now=lambda: self.now, tell=lambda source, target, reason: self.told.append((source, target.host, reason))
        )

    def fail(self, times: int, *, apart_s: float = FAILING_S, source: str | None = None) -> None:
        for _ in range(times):
            self.addresses.failed(source, FIRST, "refused")
            self.now += apart_s

    def online(self, source: str | None = None) -> list[Target]:
        return self.addresses.online([FIRST, SECOND], source)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_an_address_goes_offline_after_failures_in_a_row(scene):
    """The others are used; it is told once; after some minutes it has another chance, and only one."""
    scene.fail(FAILURES)
    assert scene.online() == [SECOND]
    assert scene.told == [(None, "mx1", "refused")]
    scene.now += OFFLINE_S
    assert scene.online() == [FIRST, SECOND]
    scene.fail(1)
    assert scene.online() == [SECOND]
    assert len(scene.told) == 2


def test_a_burst_of_failures_is_one_failure(scene):
    """What goes wrong in one moment may be over in the next."""
    scene.fail(100, apart_s=0.01)
    assert scene.online() == [FIRST, SECOND]


def test_success_forgets_failures(scene):
    """Neither is an address dead that takes some connections and refuses others."""
    scene.fail(FAILURES - 1)
    scene.addresses.succeeded(None, FIRST)
    scene.fail(FAILURES, apart_s=FAILING_S / 2)
    assert scene.online() == [FIRST, SECOND]


def test_each_source_has_its_own_view(scene):
    """Who is refused depends on who asks."""
    scene.fail(FAILURES, source="127.0.0.2")
    assert scene.online("127.0.0.2") == [SECOND]
    assert scene.online("127.0.0.3") == [FIRST, SECOND]


def test_the_table_is_bounded(scene, monkeypatch):
    """Who was not seen for longest is forgotten, and is online again."""
    monkeypatch.setattr(offline, "MOST", 10)
    scene.fail(FAILURES)
    for number in range(10):
        scene.addresses.failed(None, Target("mx", f"198.51.100.{number}", 25), "refused")
    assert scene.online() == [FIRST, SECOND]
