"""Everything that reception publishes is in the tables of properties, and valid by ``docs/schema``."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from mtaq.model.address import Address
from mtaq.model.codec import decode_outbox
from mtaq.model.message import ClientCertificate, SpoolFacts, TlsFacts
from mtaq.model.schema_inbox import INBOX
from mtaq.receive.draft import Refusal, SessionFacts
from mtaq.receive.intake import Intake, IntakeOptions
from mtaq.receive.properties import FIELDS
from mtaq.smtp import codes
from mtaq.smtp.dsn import RecipientDsn
from mtaq.smtp.server_events import Transaction
from tests.unit.model.test_schema import problems, undescribed
from tests.unit.receive.fakes import NOW, ManualBroker, State, event_log, facts, no_evidence, policy

CONTENT = b"From: Ada <ada@example.org>\r\nSubject: hello\r\n\r\nit works\r\n"
ORDERS = {
    "envelope": "<>", "ip": "192.0.2.1", "pool": "bulk", "tag": "spring", "delayed": "2026-05-01 06:00:00",
    "maxdelivertime": "600", "maxattempts": "3", "retries": "60,120", "inlinecss": "yes", "keepmime": "no",
    "priority": "9", "security": "required", "results-queue": "a", "success-queue": "b", "failure-queue": "c",
    "retry-queue": "d", "dsn-queue": "e", "smarthost-hostname": "relay.example.net", "smarthost-port": "2525",
    "dsn-notify": "SUCCESS,DELAY", "dsn-ret": "HDRS", "dsn-orcpt": "rfc822;x@example.com", "dsn-envid": "q-1",
    "idempotency-key": "invoice 4711",
    "order-id": "A-1001",
}  # fmt: skip


def transaction() -> Transaction:
    """Return one with everything that MAIL and RCPT can say."""
    return Transaction(
        reverse_path=Address("ada", "example.org"), body="8bitmime", smtputf8=True, ret="FULL", envid="q-2",
        requiretls=True, forward_paths=[Address("grace", "example.com"), Address("joan", "example.com")],
        dsn={1: RecipientDsn(("NEVER",), "utf-8;joan@example.com")},
    )  # fmt: skip


def session(**options: str) -> SessionFacts:
    """Return one with everything that can be known of a client."""
    plain = facts(policy(smtp_tags="a,b", smtp_mappable_ips="127.0.0.0/8", smtp_parse="full", **options))
    certificate = ClientCertificate(subject="CN=ada", verified=True)
    tls = TlsFacts(version="TLSv1.3", cipher="TLS_AES_256_GCM_SHA384", client_cert=certificate)
    connection = replace(plain.connection, tls=tls, user="ada", proxy=("192.0.2.5", 40000))
    return replace(plain, connection=connection)


async def published(made: Transaction, content: bytes, known: SessionFacts, count: int) -> list[dict[str, Any]]:
    """Take a message and return the JSON of its *count* copies."""
    broker = ManualBroker()
    intake = Intake(
        IntakeOptions(inbox="inbox", refused="refused", server_id="test", broker_max_bytes=None), publisher=broker,
        addresses=State(), evidence=no_evidence(broker, "refused"), events=event_log()[0], clock=lambda: NOW,
    )  # fmt: skip
    taking = asyncio.create_task(intake.take(made, content, known))
    while len(broker.waiting) < count:
        await asyncio.sleep(0)
    for number in range(count):
        broker.settle(number)
    await taking
    return [json.loads(parcel.body) for _, parcel, _ in broker.waiting]


async def test_what_a_session_says_is_described() -> None:
    """TLS, certificate, user, proxy, notices, tags, the archive's copy: all of it is in the table, at any depth."""
    messages = await published(transaction(), CONTENT, session(smtp_archive="journal@archive.test"), 3)
    for message in messages:
        assert undescribed(INBOX, message) == []
        assert problems("inbox", message) == []
        assert problems("outbox", message) == []
    assert [message["dsn"] for message in messages] == [
        {"ret": "FULL", "envid": "q-2"},
        {"ret": "FULL", "envid": "q-2", "notify": "NEVER", "orcpt": "utf-8;joan@example.com"},
        {"notify": "NEVER"},
    ]


async def test_what_fields_say_is_valid_in_inbox_and_outbox() -> None:
    """Every ``x-mq-*`` field there is gives JSON that the outbox takes."""
    assert set(FIELDS) - set(ORDERS) == {"smarthost-username", "smarthost-password"}  # delivery logs in nowhere yet
    content = b"".join(f"X-MQ-{name}: {value}\r\n".encode() for name, value in ORDERS.items()) + CONTENT
    for message in await published(transaction(), content, session(), 2):
        assert problems("inbox", message) == []
        assert problems("outbox", message) == []
        assert decode_outbox(json.dumps(message).encode()).priority == 9


async def test_what_came_in_a_file_is_described() -> None:
    """There is ``spool`` in place of ``connection``."""
    spool = SpoolFacts(directory="/srv/spool", file="one.eml", user="ada", size_bytes=60)
    for message in await published(transaction(), CONTENT, replace(session(), spool=spool), 2):
        assert undescribed(INBOX, message) == []
        assert problems("inbox", message) == []
        assert "connection" not in message


@pytest.mark.parametrize("path", [None, Address("grace", "example.com")], ids=["at MAIL", "at RCPT"])
async def test_evidence_of_a_refused_envelope_is_described(path: Address | None) -> None:
    """Without a recipient as well."""
    broker = ManualBroker()
    refusal = Refusal(codes.RELAY_DENIED, stage="rcpt" if path else "mail")
    no_evidence(broker, "refused").keep_envelope(refusal, session(), Address("ada", "example.org"), path)
    await asyncio.sleep(0)
    message = json.loads(broker.waiting[0][1].body)
    assert undescribed(INBOX, message) == []
    assert problems("inbox", message) == []


async def test_evidence_of_refused_content_is_described() -> None:
    """Each recipient's copy says why."""
    for message in await published(transaction(), b"X-MQ-Delayed: soon\r\n" + CONTENT, session(), 2):
        assert undescribed(INBOX, message) == []
        assert problems("inbox", message) == []
        assert message["refused"]["stage"] == "content"
