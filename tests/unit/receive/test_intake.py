"""What becomes of a transaction: the JSON, the reply, and when it is given."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC
from typing import Any

import orjson
import pytest

from mtaq.model.address import Address
from mtaq.model.decision import Decision, accept
from mtaq.model.errors import BrokerUnavailable, UnconfirmedPublish
from mtaq.model.parcel import INBOX_TYPE
from mtaq.receive.evidence import Evidence
from mtaq.receive.intake import Intake, IntakeOptions, accepted_reply
from mtaq.smtp.grammar import parse_mailbox
from mtaq.smtp.server_session import Transaction
from tests.unit.receive.fakes import NOW, ManualBroker, State, event_log, facts, no_evidence, policy

CONTENT = b"Subject: hello\r\n\r\nhello\r\n"
GRACE = Address("grace", "example.com")


def transaction(*forward_paths: Address, **values: object) -> Transaction:
    """Return a transaction from ada to *forward_paths*."""
    made = Transaction(reverse_path=Address("ada", "example.org"), size_bytes=None, body="8bitmime", smtputf8=False)
    made.forward_paths.extend(forward_paths or (GRACE,))
    return made


def intake(broker: ManualBroker, *, inbox: str | None = "inbox", broker_max_bytes: int | None = None) -> Intake:
    """Return an intake on *broker*."""
    options = IntakeOptions(inbox=inbox, server_id="test", broker_max_bytes=broker_max_bytes)
    return Intake(
        options, publisher=broker, addresses=State(), evidence=no_evidence(broker), events=event_log()[0],
        clock=lambda: NOW,
    )  # fmt: skip


async def started(broker: ManualBroker, made: Transaction, publishes: int = 1, **options: str) -> asyncio.Task:
    """Start taking *made*, and wait until its publishes are under way."""
    task = asyncio.create_task(intake(broker).take(made, CONTENT, facts(policy(**options))))
    while len(broker.waiting) < publishes:
        await asyncio.sleep(0)
    return task


async def turns(count: int = 20) -> None:
    """Let everything run that can."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_250_is_said_only_after_the_confirm() -> None:
    """There is no reply while the broker has not confirmed."""
    broker = ManualBroker()
    task = await started(broker, transaction())
    await turns()
    assert not task.done()
    broker.settle(0)
    assert (await task).code == 250


async def test_250_is_said_only_after_the_confirm_of_the_last_recipient() -> None:
    """With several recipients every one of them must be confirmed."""
    broker = ManualBroker()
    task = await started(broker, transaction(GRACE, Address("joan", "example.com"), Address("mary", "x.test")), 3)
    broker.settle(0)
    broker.settle(2)
    await turns()
    assert not task.done()
    broker.settle(1)
    assert (await task).code == 250


@pytest.mark.parametrize("error", [BrokerUnavailable("gone"), UnconfirmedPublish("returned")])
async def test_one_unconfirmed_recipient_refuses_the_whole_transaction_for_now(error: Exception) -> None:
    """Two of three confirmed are not enough for 250."""
    broker = ManualBroker()
    task = await started(broker, transaction(GRACE, GRACE, GRACE), 3)
    broker.settle(0)
    broker.settle(2)
    broker.settle(1, error)
    reply = await task
    assert (reply.code, reply.status) == (451, "4.3.0")


async def test_the_reply_names_the_id_of_each_recipient() -> None:
    """The ids of the reply are those of the JSON and of the AMQP properties."""
    broker = ManualBroker()
    task = await started(broker, transaction(GRACE, Address("joan", "example.net")), 2)
    broker.settle(0)
    broker.settle(1)
    reply = await task
    assert (reply.code, reply.status, reply.lines[0]) == (250, "2.6.0", "accepted")
    for number, (queue, parcel, _) in enumerate(broker.waiting):
        message = orjson.loads(parcel.body)
        assert queue == "inbox"
        assert parcel.type == INBOX_TYPE
        assert parcel.correlation_id == message["message-id"]
        assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-00", str(parcel.headers["traceparent"]))
        assert reply.lines[number + 1] == f"{message['message-id']} for {message['recipient']}"
        assert len(message["message-id"]) <= 64


async def test_a_priority_is_the_brokers_too() -> None:
    """``x-mq-priority`` becomes the AMQP property, which alone makes a queue hand it out first."""
    broker = ManualBroker()
    content = b"X-MQ-Priority: 7\r\n" + CONTENT
    task = asyncio.create_task(intake(broker).take(transaction(), content, facts(policy())))
    while not broker.waiting:
        await asyncio.sleep(0)
    broker.settle(0)
    assert (await task).code == 250
    parcel = broker.waiting[0][1]
    assert parcel.priority == orjson.loads(parcel.body)["priority"] == 7


async def test_the_json_tells_the_whole_transaction() -> None:
    """Envelope, connection, size, body and the content behind our Received field."""
    broker = ManualBroker()
    task = await started(broker, transaction())
    broker.settle(0)
    await task
    message = orjson.loads(broker.waiting[0][1].body)
    assert message["envelope"] == "ada@example.org"
    assert message["recipient"] == "grace@example.com"
    assert message["received"] == "2026-05-01 05:59:58"
    assert message["hostname"] == "relay.test"
    assert message["size"] == len(CONTENT)
    assert message["body"] == "8bitmime"
    assert message["connection"] == {
        "local-ip": "127.0.0.1", "local-port": 25, "remote-ip": "198.51.100.7", "remote-port": 40112,
        "helo": "client.test", "secure": False,
    }  # fmt: skip
    assert message["mime"].startswith("Received: from client.test ([198.51.100.7])")
    assert message["mime"].endswith(CONTENT.decode())
    assert "ips" not in message  # loopback is not mappable by default
    assert NOW.tzinfo is UTC


async def test_the_local_address_is_mapped_unless_excepted() -> None:
    """Mail accepted on a mappable address leaves from it; unmappable ones are excepted."""
    ranges = {"smtp_mappable_ips": "192.0.2.0/24", "smtp_unmappable_ips": "192.0.2.28"}
    for local_ip, ips in (("192.0.2.100", ["192.0.2.100"]), ("192.0.2.28", None), ("203.0.113.1", None)):
        broker = ManualBroker()
        task = asyncio.create_task(intake(broker).take(transaction(), CONTENT, facts(policy(**ranges), local_ip)))
        await turns()
        broker.settle(0)
        await task
        assert orjson.loads(broker.waiting[0][1].body).get("ips") == ips


async def test_a_loop_is_refused_for_good() -> None:
    """More Received fields than smtp-max-hops: 554 5.4.6, and nothing is published."""
    broker = ManualBroker()
    looped = b"Received: from a by b\r\n" * 51 + CONTENT
    reply = await intake(broker).take(transaction(), looped, facts(policy()))
    assert (reply.code, reply.status) == (554, "5.4.6")
    assert not broker.waiting


async def test_what_the_broker_cannot_take_is_refused_for_good() -> None:
    """A JSON larger than rabbitmq-maxsize: 552 5.3.4, and nothing is published."""
    broker = ManualBroker()
    reply = await intake(broker, broker_max_bytes=100).take(transaction(), CONTENT, facts(policy()))
    assert (reply.code, reply.status) == (552, "5.3.4")
    assert not broker.waiting


async def test_an_explicitly_empty_inbox_discards() -> None:
    """Without an inbox the message is answered 250 and goes nowhere."""
    broker = ManualBroker()
    reply = await intake(broker, inbox=None).take(transaction(), CONTENT, facts(policy()))
    assert reply.code == 250
    assert not broker.waiting


async def test_a_long_list_of_ids_becomes_a_range() -> None:
    """A reply of 2,000 bytes or more is one line instead."""
    broker = ManualBroker()
    task = await started(broker, transaction(*[GRACE] * 100), 100)
    for number in range(100):
        broker.settle(number)
    reply = await task
    assert len(reply.lines) == 1
    assert reply.lines[0].endswith(".1-100 accepted")


async def test_evidence_of_what_is_too_large_has_no_content() -> None:
    """With it, it would be too large as well; client and envelope are kept, also of mail for several queues."""
    broker, state = ManualBroker(), State()
    state.local.add(GRACE)
    evidence = Evidence(
        "refused", publisher=broker, watch=lambda task: None, max_bytes=1500, identify=lambda now: "test.0",
        clock=lambda: NOW,
    )  # fmt: skip
    taken = Intake(
        IntakeOptions(inbox="inbox", local="local", server_id="test", broker_max_bytes=1500), publisher=broker,
        addresses=state, evidence=evidence, events=event_log()[0], clock=lambda: NOW,
    )  # fmt: skip
    content = CONTENT + b"x" * 2000
    reply = await taken.take(transaction(GRACE, Address("joan", "example.net")), content, facts(policy()))
    assert (reply.code, reply.status) == (552, "5.3.4")
    await turns()
    kept = [orjson.loads(parcel.body) for queue, parcel, _ in broker.waiting if queue == "refused"]
    assert [(one["recipient"], one["mime"], one["size"]) for one in kept] == [
        ("grace@example.com", "", len(content)), ("joan@example.net", "", len(content)),
    ]  # fmt: skip


def listed(*forward_paths: Address, smtputf8: bool = False) -> tuple[str, ...]:
    """Return the lines of the final reply."""
    made = transaction(*forward_paths)
    made.smtputf8 = smtputf8
    return accepted_reply("test.id", made).lines


def test_a_client_without_smtputf8_is_told_ascii_alone() -> None:
    """It gave A-labels; the JSON has U-labels, which it could not read."""
    found = parse_mailbox("grace@xn--bcher-kva.example", strict=True, smtputf8=False)
    assert listed(found)[1] == "test.id.1 for grace@xn--bcher-kva.example"
    assert listed(found, smtputf8=True)[1] == "test.id.1 for grace@b\N{LATIN SMALL LETTER U WITH DIAERESIS}cher.example"


def test_no_line_of_the_reply_is_longer_than_512_octets() -> None:
    """An address that is too long for a line of a reply is not named (RFC 5321 §4.5.3.1.5)."""
    assert listed(Address("x" * 512, "example.com")) == ("test.id.1-1 accepted",)


@pytest.mark.parametrize(("wish", "priority"), [(None, 0), (1000, 255)])
async def test_a_priority_that_amqp_cannot_say_is_no_bug(wish: object, priority: int) -> None:
    """A hook may have written anything that the outbox understands: ``null`` is none, and 255 is the highest."""
    broker = ManualBroker()
    port_policy = policy()
    port_policy.hook = Prioritising(wish)
    task = asyncio.create_task(intake(broker).take(transaction(), CONTENT, facts(port_policy)))
    while not broker.waiting:
        await asyncio.sleep(0)
    broker.settle(0)
    assert (await task).code == 250
    assert broker.waiting[0][1].priority == priority


class Prioritising:
    """A hook that writes a priority into each message."""

    def __init__(self, wish: object) -> None:
        self._wish = wish

    async def sender(self, session: dict[str, Any]) -> Decision:
        """Accept."""
        return accept()

    async def recipient(self, session: dict[str, Any]) -> Decision:
        """Accept."""
        return accept()

    async def message(self, message: dict[str, Any]) -> Decision:
        """Change it."""
        return accept({**message, "priority": self._wish})
