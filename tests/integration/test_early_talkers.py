"""Clients that speak before their greeting, in a running relay with the configuration of docs/guide/access.md."""

from __future__ import annotations

import os
import select
import signal
import smtplib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.front_door import FrontDoor
from tests.support.instance import wait_until
from tests.support.received import example
from tests.support.wire import Wire

EARLY = b"EHLO client.test\r\n"

#: As the guide has it.
DELAY_S = 2


@pytest.fixture
def relay(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[FrontDoor]:
    """An exchanger that makes its clients wait, beside submission that does not; the delay is the guide's or given."""
    relay = FrontDoor(tmp_path)
    ports = {"25,587": f"{relay.mx},{relay.submission}", "@25": f"@{relay.mx}"}
    relay.options |= example("access.md", "smtp-greeting-delay", ports)
    if hasattr(request, "param"):
        relay.options[f"smtp-greeting-delay@{relay.mx}"] = request.param
    relay.start()
    try:
        relay.wait_ready()
        yield relay
    finally:
        relay.cleanup()


class Late(Wire):
    """A client that does not listen to its greeting until it is asked to."""

    def __init__(self, port: int, begin: bytes = b"") -> None:
        self._listens = False
        super().__init__(port, begin=begin)
        self._listens = True

    def reply(self) -> str:
        """Read one reply, but not the first one at once."""
        return super().reply() if self._listens else ""

    def is_greeted(self) -> bool:
        """Is there something to hear?"""
        return bool(select.select([self._sock], [], [], 0)[0])


def test_who_waits_is_greeted_after_the_delay(relay: FrontDoor) -> None:
    """A patient client hears its greeting no sooner than the guide says, and is served then."""
    begin = time.monotonic()
    with Wire(relay.mx) as client:
        assert time.monotonic() - begin >= DELAY_S
        assert client.greeting.startswith("220")
        assert client.say("EHLO client.test").startswith("250")


@pytest.mark.parametrize("relay", ["100"], indirect=True)
def test_who_waits_holds_nobody_up(relay: FrontDoor) -> None:
    """While some wait for their greeting, other ports greet at once, that with TLS from the first byte as well."""
    waiting = [Late(relay.mx) for _ in range(20)]
    with Wire(relay.submission) as other:
        assert other.say("EHLO client.test").startswith("250")
    with smtplib.SMTP_SSL("127.0.0.1", relay.secure, timeout=60, context=relay.trust) as secure:
        assert secure.ehlo()[0] == 250
    with Wire(relay.mx, begin=EARLY) as early:
        assert early.greeting.startswith("554 5.5.1")
    assert not any(client.is_greeted() for client in waiting)
    for client in waiting:
        client.close()


@pytest.mark.parametrize("relay", ["100"], indirect=True)
def test_who_waits_is_told_when_the_relay_stops(relay: FrontDoor) -> None:
    """The end of the relay does not wait for the greeting."""
    with Late(relay.mx) as waiting:
        with Wire(relay.submission):
            assert relay.stop() == 0
        assert waiting.reply().startswith("421 4.3.2")


def test_who_speaks_while_it_should_wait_is_refused(relay: FrontDoor) -> None:
    """It is told 554 5.5.1 before the delay is over, and closed; the log has each of them, and ten block the client."""
    for number in range(1, 11):
        with Wire(relay.mx, begin=EARLY) as client:
            assert client.greeting.startswith("554 5.5.1")
            assert client.reply() == ""
        wait_until(lambda wanted=number: len(relay.events("session.closed")) == wanted, "the session's end")
    refused = relay.events("session.refused")
    assert {(event["reply_code"], event["enhanced_code"]) for event in refused} == {(554, "5.5.1")}
    [block] = wait_until(lambda: relay.events("block.added"), "the client to be blocked")
    assert block["network"] == "127.0.0.1/32"
    assert Wire(relay.submission).greeting.startswith("554 5.7.1")


def test_who_has_spoken_when_it_is_accepted_is_refused_without_a_delay(relay: FrontDoor) -> None:
    """On a port that makes nobody wait, words that were there before the greeting are found."""
    [pid] = relay.worker_pids("receive")
    os.kill(pid, signal.SIGSTOP)  # the kernel takes the connection and the words, nobody greets
    try:
        client = Late(relay.submission, EARLY)
    finally:
        os.kill(pid, signal.SIGCONT)
    with client:
        assert client.reply().startswith("554 5.5.1")
