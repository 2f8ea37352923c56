"""The published schemas and the codec say the same."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from mtaq.deliver import category
from mtaq.mime.extract import extracted
from mtaq.model.address import Address
from mtaq.model.codec import (
    decode_outbox,
    encode_inbox,
    encode_outbox,
    encode_result,
    inbox_properties,
    inbox_recipients,
)
from mtaq.model.errors import BadMessage
from mtaq.model.identity import transaction_id
from mtaq.model.message import ConnectionFacts, ReceivedMessage, TlsFacts
from mtaq.model.outcome import Result
from mtaq.model.schema import ATTEMPT, CATEGORIES, OUTBOX, RESULT, TABLES, Kind, schema
from mtaq.model.schema_forms import Property
from mtaq.model.schema_inbox import INBOX

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
TEXT = b"From: ada@example.org\r\nTo: grace@example.com\r\nSubject: hello\r\n\r\nit works\r\n"
PUBLISHED = Path(__file__).parents[3] / "docs" / "schema"


def validator(kind: Kind) -> Draft202012Validator:
    return Draft202012Validator(json.loads((PUBLISHED / f"{kind}.json").read_text(encoding="utf-8")))


def problems(kind: Kind, message: object) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in validator(kind).iter_errors(message)]


def received(**changes: Any) -> ReceivedMessage:
    connection = ConnectionFacts(
        local_ip="192.0.2.10", local_port=25, remote_ip="2001:db8::1", remote_port=52114, helo="[192.0.2.80]",
        tls=TlsFacts(version="TLSv1.3", cipher="TLS_AES_256_GCM_SHA384"), proxy=("192.0.2.5", 40000),
    )  # fmt: skip
    facts: dict[str, Any] = {
        "transaction": transaction_id("relay-1", now=NOON, random=bytes(range(10))),
        "envelope": Address("ada", "example.org"),
        "recipients": (Address("grace", "example.com"), Address("postmaster", "")),
        "received_at": NOON,
        "hostname": "relay.example.org",
        "connection": connection,
        "size_bytes": len(TEXT),
        "smtputf8": True,
        "ips": ("192.0.2.10",),
    }
    return ReceivedMessage(**{**facts, **changes})


def inbox(message: ReceivedMessage, content: bytes = TEXT) -> list[dict[str, Any]]:
    return [json.loads(body) for _, body in encode_inbox(inbox_properties(message), inbox_recipients(message), content)]


# Without ``authentication``: delivery does not log in anywhere yet, so the tables do not mention it.
FULL_RESULT = Result(
    attempt=2, time=NOON, state="message", result="accepted", code=250, status="2.0.0", description="queued",
    mta="mx.example.com", source="192.0.2.10", destination="203.0.113.25",
    cipher={"name": "TLS_AES_256_GCM_SHA384", "version": "TLSv1.3", "bits": 256},
    certificate={"verified": True, "subject": "CN=mx", "issuer": "CN=ca", "notafter": "2026-12-31 23:59:59"},
    tls_policy="verified", messages=1, sent_connection=512, sent_data=74, duration_ms=183,
    dsn=True, category="greylist",
)  # fmt: skip

FULL_OUTBOX: dict[str, Any] = {
    "dkim": [
        {
            "domain": "example.org",
            "selector": "s1",
            "key": "PEM",
            "headers": ["Feedback-ID"],
            "expire": 86400,
            "canonicalization": "relaxed/simple",
            "protocols": ["dkim", "arc"],
            "oversign": ["subject"],
        },
        {"domain": "example.org", "selector": "s2", "key": "PEM", "expire": "2036-01-01 00:00:00", "oversign": True},
    ],
    "recipient": "grace@example.com",
    "envelope": "",
    "message-id": "anything",
    "mime": "Subject: hello\n\nit works\n",
    "ips": ["192.0.2.10"],
    "nextattempt": {"time": "2026-03-01 12:00:00"},
    "delayed": "2026-03-01T12:00:00.5+01:00",
    "maxdelivertime": "2026-03-02T12:00:00Z",
    "maxattempts": 0,
    "retries": [60, 600],
    "priority": 3,
    "smarthost": {"hostname": "relay.example.net", "port": 2525},
    "security": "required",
    "queues": {"results": "mine", "success": None, "dsn": "outbox"},
    "idempotency-key": "invoice 4711",
    "headers": {"remove": "X-A", "replace": {"X-B": "b"}, "prepend": {"X-C": ["c", "d"]}, "append": {"X-E": "e"}},
    "keepmime": True,
    "body": "8bitmime",
    "smtputf8": False,
    "requiretls": True,
    "pool": "bulk",
    "tags": ["spring"],
    "dsn": {"notify": "SUCCESS,FAILURE", "ret": "HDRS", "orcpt": "rfc822;grace@example.com", "envid": "q-1"},
    "connection": {"local-ip": "192.0.2.10"},
    "seen": "2026-03-01 11:00:00",
    "results": [Result(attempt=1, time=NOON, state="dns", result="timeout").to_json()],
    "order": {"number": 4711},
}


@pytest.mark.parametrize("kind", TABLES)
def test_published_schemas_are_valid_and_current(kind: Kind) -> None:
    """Each file in docs/schema is a JSON Schema of 2020-12 and holds what the table says now."""
    published = json.loads((PUBLISHED / f"{kind}.json").read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(published)
    assert published == schema(kind)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"envelope": None, "smtputf8": False, "ips": ()},
        {"body": "binarymime"},
        {"recipients": (Address("a", "b"),)},
    ],
)
@pytest.mark.parametrize("content", [TEXT, b"", "Subject: ✓\r\n\r\n".encode(), b"\xff\x00\r\n"])
def test_what_reception_publishes_is_valid(changes: dict[str, Any], content: bytes) -> None:
    """Every message that reception can write is valid inbox JSON, whatever its content."""
    for message in inbox(received(**changes), content):
        assert problems("inbox", message) == []


def test_inbox_is_valid_outbox() -> None:
    """What stands in the inbox may be put into the outbox unchanged."""
    for content in (TEXT, b"\xff"):
        for message in inbox(received(), content):
            assert problems("outbox", message) == []
            decode_outbox(json.dumps(message).encode())


def test_inbox_table_lists_everything_that_reception_writes() -> None:
    """No property of a received message is missing from the table, at any depth."""
    (text, _), (binary, _) = inbox(received()), inbox(received(), b"\xff")
    assert undescribed(INBOX, text | binary) == []


def test_result_table_lists_everything_that_delivery_writes() -> None:
    """No property of a result is missing from the table, at any depth."""
    properties = json.loads(
        encode_result(
            decode_outbox(json.dumps(FULL_OUTBOX).encode()),
            [FULL_RESULT.to_json()],
            extracted(TEXT + b"Cc: x@example.com\r\nDate: now\r\n", "ada@example.org", "grace@example.com"),
        )
    )
    del properties["order"], properties["connection"]["local-ip"]
    assert undescribed(RESULT, properties) == []
    assert {row.name for row in ATTEMPT} >= set(FULL_RESULT.to_json())


def test_categories_are_those_that_delivery_chooses_from() -> None:
    """The table names every word that the classification has a rule for."""
    chosen = {word for word, _ in (*category._BEFORE, *category._AFTER, *category._STATUSES)}
    assert chosen | {"other"} == set(CATEGORIES)


def test_results_keep_what_delivery_does_not_act_upon() -> None:
    """Tags, the pool and wishes for notices come back in every result, as unknown properties do."""
    body = json.loads(encode_result(decode_outbox(json.dumps(FULL_OUTBOX).encode()), [FULL_RESULT.to_json()], None))
    for name in ("tags", "pool", "dsn", "smarthost", "queues", "order"):
        assert body[name] == FULL_OUTBOX[name]


def undescribed(rows: tuple[Property, ...], message: dict[str, Any], at: str = "") -> list[str]:
    known = {row.name: row for row in rows}
    missing: list[str] = []
    for name, value in message.items():
        if name not in known:
            missing.append(at + name)
            continue
        for below in value if isinstance(value, list) else [value]:
            if isinstance(below, dict) and known[name].properties:
                missing += undescribed(known[name].properties, below, f"{at}{name}.")
    return missing


def test_full_outbox_message_is_valid_and_understood() -> None:
    """A message with every property of the table is valid, understood, and valid again after another trip."""
    assert {row.name for row in OUTBOX} <= {*FULL_OUTBOX, "mime-base64"}
    assert problems("outbox", FULL_OUTBOX) == []
    message = decode_outbox(json.dumps(FULL_OUTBOX).encode())
    again = json.loads(encode_outbox(message, {"seen": "2026-03-01 12:00:00"}))
    assert problems("outbox", again) == []


@pytest.mark.parametrize("keep", [True, False])
def test_results_are_valid(keep: bool) -> None:
    """What delivery publishes about a message is valid, with and without its content."""
    message = decode_outbox(json.dumps(FULL_OUTBOX | {"keepmime": keep}).encode())
    results = [*FULL_OUTBOX["results"], FULL_RESULT.to_json()]
    body = json.loads(encode_result(message, results, extracted(TEXT, "", "grace@example.com")))
    assert problems("result", body) == []
    assert ("mime" in body) is keep


WRONG_DKIM: list[dict[str, Any]] = [
    {"domain": 1}, {"selector": ""}, {"key": None}, {"headers": "subject"}, {"headers": ["a b"]}, {"headers": ["a;"]},
    {"expire": 0}, {"expire": "soon"}, {"expire": True}, {"canonicalization": "relaxed"}, {"protocols": []},
    {"protocols": ["spf"]}, {"protocols": "arc"}, {"oversign": 1}, {"oversign": [1]},
]  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {"recipient": None}, {"recipient": ""}, {"recipient": 1}, {"envelope": []}, {"mime": None}, {"mime": 5},
        {"mime": None, "mime-base64": 5}, {"nextattempt": "soon"}, {"nextattempt": {"time": "soon"}},
        {"delayed": 60}, {"maxdelivertime": "1 day"}, {"maxattempts": -1}, {"maxattempts": True}, {"retries": []},
        {"retries": [-1]}, {"retries": 60}, {"priority": "high"}, {"security": "tls"}, {"queues": "results"},
        {"queues": {"results": ""}}, {"queues": {"retry": "amq.direct"}}, {"headers": []}, {"keepmime": "yes"},
        {"body": "9bit"}, {"smtputf8": 1}, {"connection": "x"}, {"seen": "never"}, {"results": {}}, {"ips": [1]},
        {"message-id": 7}, {"dkim": "key"}, {"dkim": [[]]}, {"dkim": {"domain": "a.test", "selector": "s"}},
        *({"dkim": {"domain": "a.test", "selector": "s", "key": "k"} | wrong} for wrong in WRONG_DKIM),
    ],
    ids=json.dumps,
)  # fmt: skip
def test_schema_and_codec_refuse_the_same(changes: dict[str, Any]) -> None:
    """What makes a message dead is invalid by the schema as well."""
    message = {"recipient": "a@example.com", "mime": "x"} | changes
    assert problems("outbox", message) != []
    with pytest.raises(BadMessage):
        decode_outbox(json.dumps(message).encode())


@pytest.mark.parametrize("name", [row.name for row in OUTBOX if not row.required])
def test_null_counts_as_absent(name: str) -> None:
    """An optional property may be null; the content then stands in the other one."""
    message = {"recipient": "a@example.com", "mime": "x", "mime-base64": "eA=="} | {name: None}
    assert problems("outbox", message) == []
    decode_outbox(json.dumps(message).encode())
