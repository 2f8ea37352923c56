"""How long clients beyond the cap wait, on a clock that the test moves."""

from __future__ import annotations

import asyncio
import socket

import pytest

from mtaq.receive.listener import Acceptor


class NoSlots:
    """All are taken."""

    def take(self) -> int | None:
        """There is none."""
        return None

    def release(self, slot: int) -> None:
        """Cannot happen."""
        raise AssertionError(slot)


@pytest.fixture
async def acceptor() -> Acceptor:
    """The acceptor of a full instance."""
    with socket.socket() as sock:
        return Acceptor(
            sock, lambda _slot: asyncio.Protocol(), slots=NoSlots(), admits=lambda _ip: True, handshake=None, wait_s=5
        )


def looks(acceptor: Acceptor, monkeypatch: pytest.MonkeyPatch, *times: float) -> list[bool]:
    """Let a waiting client be looked at, at these times; return when it would be told."""
    clock = iter(times)
    monkeypatch.setattr(acceptor, "_loop", type("Clock", (), {"time": lambda _self: next(clock)})())
    return [acceptor._waited_enough() for _ in times]


async def test_a_client_beyond_the_cap_is_told_after_its_wait(
    acceptor: Acceptor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looked at all the time, it is told once ``wait_s`` has passed."""
    steps = [number / 20 for number in range(102)]
    assert looks(acceptor, monkeypatch, *steps).index(True) == 100


async def test_the_wait_of_an_earlier_client_does_not_count_for_a_later_one(
    acceptor: Acceptor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a while in which nobody waited, the next client beyond the cap has its own ``wait_s``."""
    assert looks(acceptor, monkeypatch, 0.0, 1000.0, 1000.05) == [False, False, False]
