"""Mail to local addresses and what is refused, in a running relay, on both queues."""

from __future__ import annotations

import json
import re
import smtplib
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.support.front_door import PASSWORD, USER, FrontDoor, messages
from tests.support.instance import ROOT, wait_until
from tests.support.queues import fresh_name
from tests.support.rabbitmq import RabbitNode
from tests.support.wire import Wire

INBOX_SCHEMA = Draft202012Validator(json.loads((ROOT / "docs" / "schema" / "inbox.json").read_text(encoding="utf-8")))

ANN, LIST, ELSEWHERE = "ann@local.example", "dev@lists.example", "bob@elsewhere.example"
CONTENT = b"Subject: hello\r\n\r\nhello\r\n"

#: How long a change may take to be seen is 2 s; the rest is for a machine with other things to do.
SEEN_S = 5.0

HOOK = """#!/bin/sh
if [ "$1" = message ] && grep -q '"envelope": *"reject-'; then
    echo '{"code": 554, "status": "5.7.26", "text": "not from you"}'
    exit 77
fi
cat > /dev/null
exit 0
"""


class Scene:
    """An instance with a queue for each kind of mail.

    Attributes:
        relay: The instance.
    """

    def __init__(self, folder: Path, address: str, stack: ExitStack) -> None:
        prefix = fresh_name("local")
        hook = folder / "hook"
        hook.write_text(HOOK)
        hook.chmod(0o755)
        queues = {f"rabbitmq-{name}": f"{prefix}.{name}" for name in ("inbox", "local", "refused", "outbox", "dead")}
        self.relay = FrontDoor(folder, address, smtp_hook=f"exec://{hook}", cluster_exchange=prefix, **queues)
        self.relay.start()
        stack.callback(self.relay.cleanup)
        self.relay.wait_ready()
        self._queues: dict[str, Generator[dict[str, Any], None, None]] = {}
        for name in ("inbox", "local", "refused"):
            self._queues[name] = messages(self.relay.address, queues[f"rabbitmq-{name}"])
            stack.callback(self._queues[name].close)

    def next(self, queue: str, envelope: str) -> dict[str, Any]:
        """Wait for the next message of a queue that has this reverse-path; its JSON is valid."""
        message = next(message for message in self._queues[queue] if message["envelope"] == envelope)
        assert [error.message for error in INBOX_SCHEMA.iter_errors(message)] == []
        return message

    def user(self) -> smtplib.SMTP:
        """Return a session of somebody who has logged in."""
        client = smtplib.SMTP("127.0.0.1", self.relay.submission, timeout=60)
        client.starttls(context=self.relay.trust)
        client.login(USER, PASSWORD)
        return client

    def answer(self, recipient: str, port: int | None = None, envelope: str = "eve@example.net") -> str:
        """Return code and status of the answer to a recipient, given to a client that is nobody."""
        with Wire(port or self.relay.mx) as client:
            client.say("EHLO client.test")
            client.say(f"MAIL FROM:<{envelope}>")
            return client.say(f"RCPT TO:<{recipient}>")[:9]

    def wait_local(self, *recipients: str) -> None:
        """Wait until these are known to be local."""
        for recipient in recipients:
            wait_until(lambda who=recipient: self.answer(who) == "250 2.1.5", f"{recipient} to be local", SEEN_S)

    def send(self, envelope: str, *recipients: str, content: bytes = CONTENT, port: int | None = None) -> str:
        """Send a message, to the exchanger unless there is a port, and return the last reply."""
        with Wire(port or self.relay.mx) as client:
            client.say("EHLO client.test")
            client.say(f"MAIL FROM:<{envelope}>")
            for recipient in recipients:
                client.say(f"RCPT TO:<{recipient}>")
            return client.data(content)


@pytest.fixture(scope="module", params=["embedded", pytest.param("rabbitmq", marks=pytest.mark.rabbitmq)])
def scene(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """One instance for all tests, on each queue, to which two patterns are local."""
    folder, address = tmp_path_factory.mktemp("scene"), ""
    if request.param == "rabbitmq":
        node: RabbitNode = request.getfixturevalue("rabbitmq")
        address = node.address
    with ExitStack() as stack:
        scene = Scene(folder, address, stack)
        scene.relay.local("add", ANN)
        scene.relay.local("add", "*@lists.example")
        scene.wait_local(ANN, LIST)
        yield scene


@pytest.fixture
def sender() -> str:
    """A reverse-path that no other test has."""
    return f"{fresh_name('sender')}@example.net"


def test_a_running_instance_sees_what_is_added_and_removed(scene: Scene) -> None:
    """``mtaq local add`` and ``remove``: what reception answers is another within two seconds."""
    address = f"{fresh_name('new')}@local.example"
    assert scene.answer(address) == "550 5.7.1"
    for verb, answer in (("add", "250 2.1.5"), ("remove", "550 5.7.1")):
        begin = time.monotonic()
        scene.relay.local(verb, address)
        wait_until(lambda wanted=answer: scene.answer(address) == wanted, f"the answer to change: {verb}", SEEN_S)
        print(f"{verb} was seen {time.monotonic() - begin:.2f} s after the verb was started")


@pytest.mark.parametrize("port", ["mx", "submission"])
def test_local_addresses_need_neither_login_nor_tls(scene: Scene, sender: str, port: str) -> None:
    """Also where others must log in first, a stranger in clear may write to us, and to nobody else."""
    number = getattr(scene.relay, port)
    assert [scene.answer(address, number)[:3] for address in (ANN, LIST, "ANN@Local.Example")] == ["250"] * 3
    assert scene.answer(ELSEWHERE, number) == ("550 5.7.1" if port == "mx" else "530 5.7.0")
    assert scene.send(sender, ANN, port=number).startswith("250")
    message = scene.next("local", sender)
    assert message["connection"]["secure"] is False
    assert "user" not in message["connection"]


def test_a_message_with_local_and_other_recipients_is_split(scene: Scene, sender: str) -> None:
    """Each recipient's JSON is in the queue that is right for it, and only local mail has a Return-Path."""
    with scene.user() as client:
        client.mail(sender)
        for recipient in (ANN, ELSEWHERE, LIST):
            assert client.rcpt(recipient)[0] == 250
        code, text = client.data(CONTENT)
    assert code == 250
    ids = dict(re.findall(r"(\S+\.[0-9]+) for (\S+)", text.decode()))
    local, other = [scene.next("local", sender), scene.next("local", sender)], scene.next("inbox", sender)
    local.sort(key=lambda message: message["message-id"])
    assert {message["message-id"]: message["recipient"] for message in (*local, other)} == ids
    assert [message["recipient"] for message in local] == [ANN, LIST]
    assert other["recipient"] == ELSEWHERE
    for message in local:
        assert message["mime"].startswith(f"Return-Path: <{sender}>\r\nReceived: ")
    assert "Return-Path" not in other["mime"]
    for message in (*local, other):
        assert message["mime"].endswith("\r\nSubject: hello\r\n\r\nhello\r\n")
        assert message["connection"]["user"] == USER


def test_a_notice_to_us_has_an_empty_return_path(scene: Scene) -> None:
    """The null reverse-path stays one."""
    assert scene.send("", ANN).startswith("250")
    message = scene.next("local", "")
    assert message["mime"].startswith("Return-Path: <>\r\n")


def refused(message: dict[str, Any]) -> tuple[object, ...]:
    """Return code, status and stage; there is a reason too, and nothing else."""
    assert set(message["refused"]) == {"code", "status", "reason", "stage"}
    assert message["refused"]["reason"]
    return message["refused"]["code"], message["refused"]["status"], message["refused"]["stage"]


def test_a_refused_recipient_is_kept_as_evidence(scene: Scene, sender: str) -> None:
    """The envelope and the client of a refused RCPT are in the queue; there is no content yet."""
    assert scene.answer(ELSEWHERE, envelope=sender) == "550 5.7.1"
    message = scene.next("refused", sender)
    assert refused(message) == (550, "5.7.1", "rcpt")
    assert (message["recipient"], message["size"], message["mime"]) == (ELSEWHERE, 0, "")
    assert message["connection"]["helo"] == "client.test"


def test_refused_content_is_kept_as_evidence(scene: Scene, sender: str) -> None:
    """A message that is refused for its content is there for each recipient, as it was sent."""
    content = b"Received: from a by b; Thu, 1 Jan 2026 00:00:00 +0000\r\n" * 60 + CONTENT
    assert scene.send(sender, ANN, LIST, content=content).startswith("554 5.4.6")
    kept = [scene.next("refused", sender) for _ in range(2)]
    assert {message["recipient"] for message in kept} == {ANN, LIST}
    for message in kept:
        assert refused(message) == (554, "5.4.6", "content")
        assert message["mime"] == content.decode()


def test_what_a_hook_refused_is_kept_as_evidence(scene: Scene, sender: str) -> None:
    """The hook's own code, status and words are in the evidence."""
    assert scene.send(f"reject-{sender}", ANN) == "554 5.7.26 not from you"
    message = scene.next("refused", f"reject-{sender}")
    assert refused(message) == (554, "5.7.26", "hook")
    assert "not from you" in message["refused"]["reason"]
    assert message["mime"] == CONTENT.decode()


def test_what_is_put_off_is_no_evidence(scene: Scene, sender: str) -> None:
    """A transient refusal is not kept: the client comes again."""
    with Wire(scene.relay.mx) as client:
        client.say("EHLO client.test")
        client.say(f"MAIL FROM:<{sender}>")
        for _ in range(50):
            client.say(f"RCPT TO:<{ANN}>")
        assert client.say(f"RCPT TO:<{ANN}>").startswith("452")
        assert client.say(f"RCPT TO:<{ELSEWHERE}>").startswith("452")
    assert scene.answer(ELSEWHERE, envelope=sender) == "550 5.7.1"
    assert refused(scene.next("refused", sender)) == (550, "5.7.1", "rcpt")
