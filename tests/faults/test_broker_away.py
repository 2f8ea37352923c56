"""Without a broker nothing is promised: 451 to who is there, 421 to who comes, and mail again by itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.instance import Relay, wait_until
from tests.support.rabbitmq import RabbitNode, is_installed, running_node
from tests.support.wire import Wire

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.rabbitmq, pytest.mark.timeout(300)]

CONTENT = b"Subject: hello\r\n\r\nhello\r\n"

#: The contract's bound; it is part of the promise and no matter of speed.
ANSWER_S = 30


@pytest.fixture
def node() -> Iterator[RabbitNode]:
    """A node of this test's own: it is stopped and blocked."""
    if not is_installed():
        pytest.skip("install rabbitmq-server (Debian package) to run this")
    with running_node() as node:
        yield node


@pytest.fixture
def relay(node: RabbitNode, tmp_path: Path) -> Iterator[Relay]:
    """A relay that only receives."""
    relay = Relay(tmp_path, node.address, verb="receive", rabbitmq_heartbeat=5)
    try:
        relay.start()
        relay.wait_ready()
        yield relay
    finally:
        relay.cleanup()


def transaction(wire: Wire) -> None:
    """Go as far as the content."""
    assert wire.say("MAIL FROM:<ada@example.org>").startswith("250")
    assert wire.say("RCPT TO:<grace@example.com>").startswith("250")


def refused_in_time(wire: Wire) -> None:
    """Send a content and see it refused for now, within the bound."""
    transaction(wire)
    started_at = time.monotonic()
    assert wire.data(CONTENT).startswith("451 4.3.0")
    assert time.monotonic() - started_at < ANSWER_S


def accepted_again(relay: Relay) -> None:
    """Wait until a message is answered 250."""

    def accepted() -> bool:
        with Wire(relay.port) as wire:
            if not wire.greeting.startswith("220"):
                return False
            wire.say("EHLO client.test")
            transaction(wire)
            return wire.data(CONTENT).startswith("250")

    wait_until(accepted, "mail to be accepted again", 90)


def test_a_broker_that_dies_is_never_covered_up(node: RabbitNode, relay: Relay) -> None:
    """Killed with -9: 451 after DATA, 421 to newcomers, 250 again when it is back."""
    with Wire(relay.port) as wire:
        wire.say("EHLO client.test")
        node.kill_9()
        refused_in_time(wire)
        wait_until(lambda: relay.greeting().startswith("421 4.3.2"), "newcomers to be told 421")
        refused_in_time(wire)
    node.start()
    accepted_again(relay)
    assert relay.events("broker.lost")
    wait_until(lambda: relay.events("broker.restored"), "the log to say so")
    said = [event["reason"] for event in relay.events("library")]
    assert any("Connection refused" in reason or "Connect call failed" in reason for reason in said), "why it was away"
    assert len(said) <= 4 * len(relay.events("worker.started")), "and not at every attempt"


def test_a_blocked_broker_is_never_covered_up(node: RabbitNode, relay: Relay) -> None:
    """A memory alarm: 451 after DATA within 30 s, 421 to newcomers, 250 again when it is over."""
    node.set_memory_alarm(True)
    with Wire(relay.port) as wire:
        if wire.greeting.startswith("220"):  # the broker tells of its alarm only when something is published
            wire.say("EHLO client.test")
            refused_in_time(wire)
    wait_until(lambda: relay.greeting().startswith("421 4.3.2"), "newcomers to be told 421")
    node.set_memory_alarm(False)
    accepted_again(relay)


def test_a_relay_that_starts_before_its_broker_waits_for_it(tmp_path: Path) -> None:
    """Started without a broker it tells clients 421, and takes mail once the broker is there."""
    if not is_installed():
        pytest.skip("install rabbitmq-server (Debian package) to run this")
    with running_node() as node:
        node.stop()
        relay = Relay(tmp_path, node.address, verb="receive")
        try:
            relay.start()
            wait_until(lambda: relay.greeting().startswith("421 4.3.2"), "newcomers to be told 421")
            assert not relay.health()
            node.start()
            accepted_again(relay)
        finally:
            relay.cleanup()
