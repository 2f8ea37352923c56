"""Reports to local addresses in a running relay: each kind is read, and goes to the queue for reports."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import re
import smtplib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from jsonschema import Draft202012Validator

from mtaq.broker import BrokerOptions, open_broker
from mtaq.broker.address import parse_addresses
from mtaq.broker.embedded import EmbeddedBroker
from mtaq.model.parcel import INBOX_TYPE, REPORT_TYPE, Parcel, QueueSpec
from mtaq.reports import recognise
from mtaq.telemetry.vocabulary import REPORT_RECOGNISED
from tests.support.front_door import PASSWORD, USER, FrontDoor, messages
from tests.support.instance import ROOT, wait_until
from tests.support.queues import Inbox, fresh_name
from tests.support.rabbitmq import RabbitNode
from tests.support.received import example
from tests.support.wire import Wire
from tests.unit.reports.mails import AGGREGATE, TLS_REPORT, aggregate_mail, attachment, dsn_mail, mixed, part
from tests.unit.reports.test_odd import QMAIL

VECTORS = ROOT / "tests" / "conformance" / "reports"
SCHEMAS = {
    name: Draft202012Validator(json.loads((ROOT / "docs" / "schema" / f"{name}.json").read_text(encoding="utf-8")))
    for name in ("inbox", "report", "outbox")
}
MDN = part("message/disposition-notification", "Disposition: manual-action/MDN-sent-manually; displayed\r\n")
BOMB = mixed(part("text/plain", "x"), attachment("application/gzip", gzip.compress(b"<feedback>" + bytes(60_000_000))))
LAUGHS = attachment("text/xml", AGGREGATE.replace(b"<feedback>", b'<!DOCTYPE f [<!ENTITY a "b">]><feedback>'))
PLAIN = b"Subject: hello\r\n\r\nhello\r\n"

REPORTS = {
    "dsn": dsn_mail(),
    "mdn": mixed(part("text/plain", "read"), MDN),
    "arf": (VECTORS / "own" / "arf-abuse.eml").read_bytes(),
    "dmarc": aggregate_mail(),
    "tlsrpt": mixed(part("application/tlsrpt+json", TLS_REPORT)),
}


class Office:
    """An instance to which ``*@reports.example`` is local, with the guide's queues."""

    def __init__(self, folder: Path, address: str = "", **options: str) -> None:
        names = example("reports.md", "rabbitmq-reports", {})
        names |= {name.replace("_", "-"): value for name, value in options.items()}
        prefix = fresh_name("reports")
        self.names = {
            name: f"{prefix}.{names.get(f'rabbitmq-{name}', name)}"
            for name in ("inbox", "outbox", "dead", "local", "reports")
            if names.get(f"rabbitmq-{name}", name)
        }
        queues = {f"rabbitmq-{name}": value for name, value in self.names.items()}
        self.relay = FrontDoor(folder, address, cluster_exchange=prefix, **queues)
        self.relay.start()
        try:
            self.relay.wait_ready()
            self.relay.local("add", "*@reports.example")
            wait_until(lambda: self.answer("a@reports.example") == "250", "the pattern to be known")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop it."""
        self.relay.cleanup()

    def answer(self, recipient: str) -> str:
        """Return how a recipient is answered."""
        with Wire(self.relay.mx) as client:
            client.say("EHLO client.test")
            client.say("MAIL FROM:<eve@example.net>")
            return client.say(f"RCPT TO:<{recipient}>")[:3]

    def send(self, content: bytes, envelope: str, *recipients: str) -> None:
        """Send a message to the exchanger; it is always accepted."""
        with Wire(self.relay.mx) as client:
            client.say("EHLO client.test")
            client.say(f"MAIL FROM:<{envelope}>")
            for recipient in recipients:
                assert client.say(f"RCPT TO:<{recipient}>").startswith("250")
            assert client.data(content).startswith("250")

    def next(self, queue: str) -> dict[str, Any]:
        """Take the next message out of a queue; its JSON is valid, and usable in the outbox."""
        message = next(messages(self.relay.address, self.names[queue]))
        for kind in ("report" if queue == "reports" else "inbox", "outbox"):
            assert [error.message for error in SCHEMAS[kind].iter_errors(message)] == []
        return message


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    """One instance on the embedded queue for most tests."""
    office = Office(tmp_path_factory.mktemp("office"))
    yield office
    office.close()


@pytest.mark.parametrize("kind", REPORTS)
def test_each_kind_arrives_read(office: Office, kind: str) -> None:
    """It is in the queue for reports, with what it says, and otherwise like all received mail."""
    office.send(REPORTS[kind], "reporter@example.net", "a@reports.example")
    message = office.next("reports")
    assert message["report"]["type"] == kind
    assert "truncated" not in message["report"]
    assert message["recipient"] == "a@reports.example"
    assert message["mime"].startswith("Return-Path: <reporter@example.net>\r\nReceived: ")
    assert message["mime"].encode().endswith(REPORTS[kind])
    told = office.relay.events(REPORT_RECOGNISED.name)[-1]
    assert (told["report"], told["message_id"]) == (kind, message["message-id"].rpartition(".")[0])


def test_a_notice_to_an_address_made_for_one_recipient(office: Office) -> None:
    """A bounce in words is read too, and the address that it came to says whom it is about."""
    office.send(QMAIL, "", "bounces+gone=remote.example@reports.example")
    report = office.next("reports")["report"]
    assert report["recognised-by"] == "flufl.bounce"
    assert report["recipients"] == [{"final-recipient": "gone@remote.example", "action": "failed"}]
    assert report["verp"] == "gone@remote.example"


@pytest.mark.parametrize("content", [BOMB, LAUGHS, aggregate_mail(AGGREGATE[:-9]), PLAIN],
                         ids=["bomb", "entities", "broken", "plain"])  # fmt: skip
def test_what_is_no_report_is_local_mail(office: Office, content: bytes) -> None:
    """Bombs and broken reports are accepted, and go where other local mail goes."""
    office.send(content, "reporter@example.net", "a@reports.example")
    message = office.next("local")
    assert "report" not in message
    assert message["mime"].encode().endswith(content)


async def test_only_the_local_recipients_copies_are_reports(office: Office) -> None:
    """A transaction is split: whoever is not local gets the mail on its way, with nothing read from it."""
    broker = EmbeddedBroker(Path(office.relay.address.removeprefix("embedded://")), max_size_bytes=1 << 24)
    await broker.start()
    inbox = Inbox(ack=True)
    for name in ("reports", "inbox"):
        broker.consume(office.names[name], prefetch=10, on_message=inbox)
    await asyncio.to_thread(send_as_user, office, dsn_mail(), ["a@reports.example", "b@elsewhere.example"])
    taken = {message.queue: message for message in await inbox.wait(2)}
    await broker.close()
    report, other = taken[office.names["reports"]], taken[office.names["inbox"]]
    assert (report.type, other.type) == (REPORT_TYPE, INBOX_TYPE)
    assert orjson.loads(report.body)["report"]["type"] == "dsn"
    assert "report" not in orjson.loads(other.body)
    assert orjson.loads(other.body)["recipient"] == "b@elsewhere.example"


def send_as_user(office: Office, content: bytes, recipients: list[str]) -> None:
    with smtplib.SMTP("127.0.0.1", office.relay.submission, timeout=60) as client:
        client.starttls(context=office.relay.trust)
        client.login(USER, PASSWORD)
        client.sendmail(USER, recipients, content)


def test_without_a_queue_for_reports(tmp_path: Path) -> None:
    """They go where local mail goes, here the inbox, and are read all the same."""
    office = Office(tmp_path, rabbitmq_reports="", rabbitmq_local="")
    try:
        office.send(dsn_mail(), "", "a@reports.example")
        assert office.next("inbox")["report"]["recipients"][0]["status"] == "5.1.1"
    finally:
        office.close()


@pytest.mark.rabbitmq
async def test_on_rabbitmq(rabbitmq: RabbitNode, tmp_path: Path) -> None:
    """The queue is declared like the others, and the message has its own type."""
    office = await asyncio.to_thread(Office, tmp_path, rabbitmq.address)
    broker = open_broker(BrokerOptions(addresses=parse_addresses(rabbitmq.address)))
    try:
        await asyncio.to_thread(office.send, aggregate_mail(), "reporter@example.net", "a@reports.example")
        await broker.start()
        inbox = Inbox(ack=True)
        broker.consume(office.names["reports"], prefetch=1, on_message=inbox)
        (message,) = await inbox.wait(1)
        assert message.type == REPORT_TYPE
        assert orjson.loads(message.body)["report"]["feedback"]["policy_published"]["domain"] == "local.example"
    finally:
        await broker.close()
        office.close()


async def test_the_guides_consumer(tmp_path: Path) -> None:
    """The script of docs/guide/reports.md says what the reports in the queue say."""
    text = (ROOT / "docs/guide/reports.md").read_text("utf-8")
    (script,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    broker = EmbeddedBroker(tmp_path / "queues", max_size_bytes=1 << 20)
    await broker.start()
    await broker.declare([QueueSpec(name="reports")])
    for kind in ("dsn", "arf", "dmarc", "mdn", "tlsrpt"):
        await broker.publish("reports", Parcel(body=in_the_queue(kind), type=REPORT_TYPE), timeout_s=10)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=os.environ | {"MTAQ_RABBITMQ_ADDRESS": f"embedded://{tmp_path / 'queues'}"},
    )  # fmt: skip
    assert process.stdout is not None
    async with asyncio.timeout(30):
        lines = [await process.stdout.readline() for _ in range(3)]
        process.terminate()
        _, errors = await process.communicate()
    await broker.close()
    assert lines == [b"dsn gone@remote.example failed 5.1.1\n", b"arf abuse []\n", b"dmarc 192.0.2.1 3\n"]
    assert (process.returncode, errors) == (0, b"")


def in_the_queue(kind: str) -> bytes:
    report = recognise(REPORTS[kind], envelope="")
    assert report is not None
    return orjson.dumps({"recipient": "a@reports.example", "mime": "", "report": report.to_json()})
