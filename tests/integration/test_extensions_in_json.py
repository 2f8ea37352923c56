"""DSN, REQUIRETLS and LIMITS on a running relay: to whom they are announced, and what the JSON says of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.support.instance import Relay
from tests.support.received import received
from tests.support.wire import Wire

LOGIN = "AUTH PLAIN AGFkYQBzZWNyZXQ="  # ada, secret


@contextmanager
def running(folder: Path, **options: object) -> Iterator[Relay]:
    """Run a reception with a certificate."""
    pem = folder / "relay.pem"
    trustme.CA().issue_cert("relay.test", "127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(pem))
    relay = Relay(
        folder, f"embedded://{folder / 'queue'}", verb="receive", smtp_threads=1, smtp_certificate=pem, smtp_key=pem,
        **options,
    )  # fmt: skip
    try:
        relay.start()
        relay.wait_ready()
        yield relay
    finally:
        relay.cleanup()


def introduced(wire: Wire, *, tls: bool) -> str:
    """Say EHLO, inside TLS if wanted, and return what is announced."""
    announced = wire.say("EHLO client.test")
    if tls:
        wire.start_tls()
        announced = wire.say("EHLO client.test")
    return announced


def send(wire: Wire, mail: str, *recipients: str) -> None:
    """Send a message with these parameters."""
    for command in (f"MAIL FROM:<ada@example.org>{mail}", *(f"RCPT TO:{item}" for item in recipients)):
        assert wire.say(command).startswith("250"), command
    assert wire.data(b"Subject: a\r\n\r\nb\r\n").startswith("250")


def test_dsn_parameters_are_in_the_json_of_their_recipient(tmp_path: Path) -> None:
    """RET and ENVID go to all, NOTIFY and ORCPT to the one they were given for; without them there is no ``dsn``."""
    grace = "<grace@example.com> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;g+2Bx@example.net"
    with running(tmp_path) as relay, Wire(relay.port) as wire:
        assert "250-DSN" in introduced(wire, tls=False)
        send(wire, " RET=HDRS ENVID=a+2B1", grace, "<joan@example.com>")
        send(wire, "", "<mary@example.com>")
        first, second, third = received(str(relay.options["rabbitmq-address"]), 3)
    assert first["dsn"] == {
        "ret": "HDRS", "envid": "a+1", "notify": "SUCCESS,FAILURE", "orcpt": "rfc822;g+x@example.net",
    }  # fmt: skip
    assert second["dsn"] == {"ret": "HDRS", "envid": "a+1"}
    assert "dsn" not in third


def announced_to(relay: Relay, *, tls: bool = False, login: bool = False) -> str:
    """Return what a client is told in answer to EHLO."""
    with Wire(relay.port) as wire:
        announced = introduced(wire, tls=tls or login)
        if login:
            assert wire.say(LOGIN).startswith("235")
            announced = wire.say("EHLO client.test")
        return announced


@pytest.mark.parametrize(
    ("options", "stranger", "user"),
    [
        ({}, False, True),
        ({"smtp_extract_range": "127.0.0.1"}, True, True),
        ({"smtp_relay": "range"}, True, True),
        ({"smtp_relay": "range", "smtp_range": "0.0.0.0/0;::/0"}, False, True),
        ({"dsn_advertise": "false"}, False, False),
    ],
)
def test_dsn_is_for_those_who_are_known(tmp_path: Path, options: dict[str, Any], stranger: bool, user: bool) -> None:
    """Logged in, in ``smtp-extract-range``, or let in to relay: strangers could have notices bother third parties."""
    with running(tmp_path, smtp_auth="hardcoded://ada:secret", **options) as relay:
        assert ("250-DSN" in announced_to(relay)) is stranger
        assert ("250-DSN" in announced_to(relay, login=True)) is user


def test_where_dsn_is_not_offered_its_parameters_are_refused(tmp_path: Path) -> None:
    """555 5.5.4: they would not be kept."""
    with running(tmp_path, dsn_advertise="false") as relay, Wire(relay.port) as wire:
        introduced(wire, tls=False)
        assert wire.say("MAIL FROM:<ada@example.org> RET=FULL").startswith("555 5.5.4")


def test_requiretls_is_offered_inside_tls_and_reaches_the_json(tmp_path: Path) -> None:
    """RFC 8689: a client in clear cannot demand it."""
    with running(tmp_path) as relay:
        assert "REQUIRETLS" not in announced_to(relay)
        with Wire(relay.port) as wire:
            assert "REQUIRETLS" in introduced(wire, tls=True)
            send(wire, " REQUIRETLS", "<grace@example.com>")
        [message] = received(str(relay.options["rabbitmq-address"]), 1)
        assert message["requiretls"] is True


def test_limits_names_the_most_recipients(tmp_path: Path) -> None:
    """RFC 9422: what ``smtp-max-recipients`` says."""
    with running(tmp_path, smtp_max_recipients=7) as relay:
        assert "LIMITS RCPTMAX=7" in announced_to(relay)
