"""One instance, several services: what ``key@port`` of the guide's example and of some more means to clients."""

from __future__ import annotations

import smtplib
import socket
import ssl
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.front_door import EXCHANGER, PASSWORD, SUBMISSION, USER, FrontDoor, messages
from tests.support.instance import free_port, wait_until
from tests.support.wire import Wire

LOCAL, ELSEWHERE = "ann@local.example", "bob@elsewhere.example"
FIELDS = b"Subject: hello\r\nX-MQ-Tag: mine\r\nX-MQ-Customer: 9\r\n\r\nhello\r\n"

#: The user of the secure port alone.
OTHER_USER, OTHER_PASSWORD = "grace@example.org", "n0t the same"

#: The only client of the internal port.
INSIDE = "127.0.0.9"

HOOK = """#!/bin/sh
cat > /dev/null
[ "$1" = sender ] && exit 77
exit 0
"""


class Instance(FrontDoor):
    """The example, and beside it a port for the own network, one with a hook, and one that is closed.

    Attributes:
        internal: Open to one address, which may relay.
        hooked: Where a hook refuses every sender.
        closed: Switched off.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.internal, self.hooked, self.closed = free_port(), free_port(), free_port()
        hook = folder / "hook"
        hook.write_text(HOOK)
        hook.chmod(0o755)
        self.options["smtp-port"] = f"{self.options['smtp-port']},{self.internal},{self.hooked},{self.closed}"
        self.options |= {
            f"smtp-auth@{self.secure}": f"hardcoded://{OTHER_USER}:{OTHER_PASSWORD.replace(' ', '%20')}",
            f"smtp-relay@{self.internal}": "range",
            f"smtp-range@{self.internal}": "192.0.2.1",  # the environment knows better
            f"smtp-hook@{self.hooked}": f"exec://{hook}",
            f"smtp-enabled@{self.closed}": "false",
        }
        self.environment = {f"MTAQ_SMTP_RANGE__{self.internal}": INSIDE}


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    """The instance that all tests share."""
    instance = Instance(tmp_path_factory.mktemp("instance"))
    instance.start()
    try:
        instance.wait_ready()
        instance.local("add", LOCAL)
        wait_until(lambda: answers(instance.mx, LOCAL)[-1].startswith("250"), "the local address to be known")
        yield instance
    finally:
        instance.cleanup()


@pytest.fixture(scope="module")
def inbox(instance: Instance) -> Iterator[Iterator[dict[str, Any]]]:
    """What it has received."""
    with closing(messages(instance.address, "inbox")) as inbox:
        yield inbox


@contextmanager
def session(instance: Instance, port: int, user: str = "", password: str = "") -> Iterator[smtplib.SMTP]:
    """A session under TLS, logged in if there is a user."""
    with (
        smtplib.SMTP_SSL("127.0.0.1", port, timeout=60, context=instance.trust)
        if port == instance.secure
        else smtplib.SMTP("127.0.0.1", port, timeout=60)
    ) as client:
        if port != instance.secure:
            client.starttls(context=instance.trust)
        client.ehlo()
        if user:
            client.login(user, password)
        yield client


def answers(port: int, *recipients: str) -> list[str]:
    """Return the answer to each recipient, of a client that is nobody and speaks no TLS."""
    with Wire(port) as client:
        client.say("EHLO client.test")
        client.say("MAIL FROM:<eve@example.net>")
        return [client.say(f"RCPT TO:<{recipient}>") for recipient in recipients]


def send(client: smtplib.SMTP, recipient: str, content: bytes = FIELDS) -> None:
    """Send a message."""
    assert client.sendmail("eve@example.net", [recipient], content) == {}


def test_everybody_may_send_to_local_addresses_and_nobody_further(instance: Instance) -> None:
    """The exchanger never relays; submission does for those who log in; none of them needs it for local addresses."""
    assert [answer[:9] for answer in answers(instance.mx, LOCAL, ELSEWHERE)] == ["250 2.1.5", "550 5.7.1"]
    assert [answer[:9] for answer in answers(instance.submission, LOCAL, ELSEWHERE)] == ["250 2.1.5", "530 5.7.0"]
    with session(instance, instance.secure) as client:
        client.mail("eve@example.net")
        assert client.rcpt(LOCAL)[0] == 250
        assert client.rcpt(ELSEWHERE)[0] == 530
    with session(instance, instance.submission, USER, PASSWORD) as client:
        client.mail(USER)
        assert client.rcpt(ELSEWHERE)[0] == 250


def test_logins_of_one_port_are_none_on_another(instance: Instance) -> None:
    """The exchanger offers no AUTH, also under TLS; the other two know different users."""
    with session(instance, instance.mx) as client:
        assert not client.has_extn("auth")
    for port, good, bad in (
        (instance.submission, (USER, PASSWORD), (OTHER_USER, OTHER_PASSWORD)),
        (instance.secure, (OTHER_USER, OTHER_PASSWORD), (USER, PASSWORD)),
    ):
        with session(instance, port, *good) as client:
            client.mail(good[0])
            assert client.rcpt(ELSEWHERE)[0] == 250
        with session(instance, port) as client, pytest.raises(smtplib.SMTPAuthenticationError):
            client.login(*bad)


def test_logins_are_not_offered_in_clear(instance: Instance) -> None:
    """On the submission port AUTH comes with TLS."""
    with Wire(instance.submission) as client:
        assert "AUTH" not in client.say("EHLO client.test")
        assert client.say("AUTH PLAIN AGEAYg==").startswith("538 5.7.11")


def test_each_port_has_its_name_and_its_certificate(instance: Instance) -> None:
    """Greeting, answer to EHLO and certificate are those of the service that the client came to."""
    for port, name in ((instance.mx, EXCHANGER), (instance.submission, SUBMISSION), (instance.secure, SUBMISSION)):
        with session(instance, port) as client:
            assert isinstance(client.sock, ssl.SSLSocket)
            certificate = client.sock.getpeercert()
            assert certificate is not None
            assert ("DNS", name) in certificate["subjectAltName"]
            assert client.ehlo()[1].split()[0] == name.encode()
    for port, name in ((instance.mx, EXCHANGER), (instance.submission, SUBMISSION)):
        with Wire(port) as client:
            assert client.greeting.startswith(f"220 {name} ")


def test_each_port_announces_and_enforces_its_limits(instance: Instance) -> None:
    """SIZE and the number of recipients differ, in what EHLO says and in what is refused."""
    with Wire(instance.mx) as exchanger, Wire(instance.hooked) as other:
        said = exchanger.say("EHLO client.test")
        assert "SIZE 20971520" in said
        assert "RCPTMAX=50" in said
        assert "SIZE 52428800" in (said := other.say("EHLO client.test"))
        assert "RCPTMAX=1000" in said
        assert exchanger.say("MAIL FROM:<eve@example.net> SIZE=30000000").startswith("552 5.3.4")
        exchanger.say("MAIL FROM:<eve@example.net>")
        replies = [exchanger.say(f"RCPT TO:<{LOCAL}>") for _ in range(51)]
        assert {reply[:9] for reply in replies[:50]} == {"250 2.1.5"}
        assert replies[50].startswith("452 4.5.3")
    with Wire(instance.submission) as submission:
        submission.say("EHLO client.test")
        assert submission.say("MAIL FROM:<eve@example.net> SIZE=30000000").startswith("250")
        assert {submission.say(f"RCPT TO:<{LOCAL}>")[:3] for _ in range(51)} == {"250"}


def test_fields_of_strangers_stay_and_those_of_users_become_properties(
    instance: Instance, inbox: Iterator[dict[str, Any]]
) -> None:
    """On the exchanger x-mq fields are text; on submission they are taken from users, and from others thrown away."""
    with smtplib.SMTP("127.0.0.1", instance.mx, timeout=60) as client:
        send(client, LOCAL)
    with session(instance, instance.submission) as client:
        send(client, LOCAL)
    with session(instance, instance.submission, USER, PASSWORD) as client:
        send(client, ELSEWHERE)
    exchanged, nobody, user = (next(inbox) for _ in range(3))
    assert b"X-MQ-Tag: mine\r\nX-MQ-Customer: 9\r\n" in exchanged["mime"].encode()
    assert (exchanged["tags"], exchanged.get("customer")) == (["mx"], None)
    assert "X-MQ" not in nobody["mime"] + user["mime"]
    assert (nobody["tags"], nobody.get("customer")) == (["submission"], None)
    assert (sorted(user["tags"]), user["customer"]) == (["mine", "submission"], "9")
    assert [message["connection"]["local-port"] for message in (exchanged, nobody, user)] == [
        instance.mx, instance.submission, instance.submission,
    ]  # fmt: skip
    assert [message["hostname"] for message in (exchanged, nobody, user)] == [EXCHANGER, SUBMISSION, SUBMISSION]


def test_a_range_of_one_port_keeps_others_out_and_lets_its_own_relay(
    instance: Instance, inbox: Iterator[dict[str, Any]]
) -> None:
    """The environment's ``MTAQ_SMTP_RANGE__port`` counts above the file: one client is let in, and needs no login."""
    with Wire(instance.internal) as client:
        assert client.greeting.startswith("554 5.7.1")
    with Wire(instance.internal, source_ip=INSIDE) as client:
        client.say("EHLO client.test")
        client.say("MAIL FROM:<eve@example.net>")
        assert client.say(f"RCPT TO:<{ELSEWHERE}>").startswith("250")
        assert client.data(b"Subject: from inside\r\n\r\n").startswith("250")
    message = next(inbox)
    assert message["connection"]["remote-ip"] == INSIDE
    assert "tags" not in message


def test_a_hook_of_one_port_is_asked_there_alone(instance: Instance) -> None:
    """The hook refuses all senders; on the other ports they are taken."""
    with Wire(instance.hooked) as client:
        client.say("EHLO client.test")
        assert client.say("MAIL FROM:<eve@example.net>").startswith("550 5.7.1")
    for port in (instance.mx, instance.submission):
        with Wire(port) as client:
            client.say("EHLO client.test")
            assert client.say("MAIL FROM:<eve@example.net>").startswith("250")


def test_a_port_that_is_switched_off_is_closed(instance: Instance) -> None:
    """Nobody listens there, and the configuration is right all the same."""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", instance.closed), 5)
