"""Which properties does the JSON in the queues have? One table per kind of message.

The JSON Schemas in ``docs/schema`` and ``docs/reference/message-json.md`` are made of these tables; ``codec`` is what
they describe, and tests hold the two together. Pure; knows nothing of AMQP.

A schema says what mtaq publishes and what it understands. Properties that are not listed are allowed everywhere: in
the outbox they are kept and come back in the result.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from mtaq.model.message import Body, Security
from mtaq.model.outcome import ResultWord, State
from mtaq.model.schema_dkim import DKIM_ASKED, DKIM_SHOWN
from mtaq.model.schema_forms import (
    ANY_TIME,
    COUNT,
    LISTS,
    NAME_OR_NAMES,
    OBJECT,
    OBJECTS,
    QUEUE,
    TEXT,
    TEXTS,
    TIME,
    VALUES,
    YES_NO,
    Property,
    words,
)
from mtaq.model.schema_inbox import CONTENT, DSN, EXTRACTED, INBOX
from mtaq.model.schema_report import REPORTS

Kind = Literal["inbox", "outbox", "result", "report"]

CATEGORIES = (
    "bad-mailbox", "bad-domain", "policy", "spam", "reputation", "quota", "content", "greylist", "rate", "network",
    "tls", "auth", "other",
)  # fmt: skip
"""The words for why an attempt did not succeed; ``deliver.classify`` chooses."""

NOTICES = ("failure", "delay", "success")
"""The kinds of notices (RFC 3461 §4.1)."""

ATTEMPT: tuple[Property, ...] = (
    Property("attempt", {"type": "integer", "minimum": 1}, "Number of the attempt.", True),
    Property("time", TIME, "When the outcome was known, UTC.", True),
    Property("state", words(get_args(State)), "How far the attempt came.", True),
    Property("result", words(get_args(ResultWord)), "How it ended there.", True),
    Property("mta", TEXT, "The name in the peer's greeting."),
    Property("from", TEXT, "Local IP address."),
    Property("to", TEXT, "Remote IP address."),
    Property("code", {"type": "integer", "minimum": 200, "maximum": 599}, "Reply code: the peer's, or ours."),
    Property("status", TEXT, "Enhanced status code, likewise."),
    Property("description", TEXT, "The peer's text, or what went wrong here."),
    Property(
        "cipher",
        OBJECT,
        "How the connection was encrypted; only when it was.",
        properties=(
            Property("name", TEXT, "OpenSSL's name of the cipher.", True),
            Property("version", TEXT, "Version of TLS.", True),
            Property("bits", COUNT, "Length of the secret key.", True),
        ),
    ),
    Property(
        "certificate",
        OBJECT,
        "The peer's certificate; only on an encrypted connection.",
        properties=(
            Property("verified", YES_NO, "Whether it was checked against the name of the host, and right.", True),
            Property("subject", TEXT, "Whom it names."),
            Property("issuer", TEXT, "Who signed it."),
            Property("notafter", TIME, "When it expires, UTC."),
        ),
    ),
    Property("tls-policy", words(("none", *get_args(Security), "dane", "mta-sts")), "What was asked of the host."),
    Property("authentication", TEXT, "Mechanism of our login at the peer; only with one."),
    Property("messages", {"type": "integer", "minimum": 1}, "Mail transactions on that connection, this one included."),
    Property(
        "sent",
        OBJECT,
        "Bytes sent.",
        properties=(
            Property("connection", COUNT, "On the connection so far.", True),
            Property("data", {"type": ["integer", "null"], "minimum": 0}, "Of the content in this transaction."),
        ),
    ),
    Property("duration", COUNT, "Milliseconds from the start of the attempt to its outcome."),
    Property("dsn", YES_NO, "Whether the peer announced DSN."),
    Property("category", words(CATEGORIES), "Why it did not succeed, in one word."),
    Property("notice", words(NOTICES), "What notice its sender was sent because of it."),
)
"""One item of ``results``."""

_QUEUES = (
    Property("results", QUEUE, "Instead of `rabbitmq-results`."),
    Property("success", QUEUE, "Instead of `rabbitmq-success`."),
    Property("failure", QUEUE, "Instead of `rabbitmq-failure`."),
    Property("retry", QUEUE, "Instead of `rabbitmq-retry`."),
    Property("dsn", QUEUE, "Instead of `rabbitmq-dsn`; the one that may be the outbox."),
)

_HEADER_EDITS = (
    Property("remove", NAME_OR_NAMES, "Names of fields to take out."),
    Property("replace", VALUES, "Name → value: set in place of the first such field, or appended."),
    Property("update", VALUES, "Name → value: set in place of the first such field, if there is one."),
    Property("prepend", LISTS, "Name → value or values, put at the top."),
    Property("append", LISTS, "Name → value or values, put at the end of the header section."),
)

#: What a script may say about a message, apart from its content.
_ORDERS = (
    Property("recipient", {"type": "string", "minLength": 1}, "The forward-path.", True),
    Property("envelope", TEXT, "The reverse-path; absent or empty for the null one."),
    Property("message-id", TEXT, "Names the message in logs and results."),
    Property("ips", TEXTS, "Source addresses: the first one that works is used."),
    Property("pool", TEXT, "A pool of source addresses, by name; kept, and in every result."),
    Property("tags", TEXTS, "Words of yours; kept, and in every result."),
    Property(
        "nextattempt",
        OBJECT,
        "Not before that moment.",
        properties=(Property("time", ANY_TIME, "The moment, UTC unless it says otherwise."),),
    ),
    Property("delayed", ANY_TIME, "Older spelling of `nextattempt.time`, which comes first."),
    Property("maxdelivertime", ANY_TIME, "When the message is given up, instead of `max-delivertime`."),
    Property("maxattempts", COUNT, "Attempts until it is given up, instead of `max-attempts`; 0 is unlimited."),
    Property(
        "retries",
        {"type": "array", "items": COUNT, "minItems": 1},
        "Seconds after the first, second, … transient failure, instead of `retry-interval`; the last repeats.",
    ),
    Property("priority", COUNT, "Priority with which reception and `mtaq.client` publish the message."),
    Property("security", words(get_args(Security)), "Encryption demanded, instead of `delivery-security`."),
    Property(
        "smarthost",
        OBJECT,
        "Host that gets this message, instead of the recipient's mail hosts or the configured smarthost.",
        properties=(
            Property("hostname", TEXT, "Its name or IP address.", required=True),
            Property("port", {"type": "integer", "minimum": 1, "maximum": 65535}, "Its port; 25 when left out."),
            Property("username", TEXT, "Log in as this user; only by TLS."),
            Property("password", TEXT, "Its password; a result shows `***` instead."),
            Property("security", words(get_args(Security)), "Encryption demanded there; with a login TLS always is."),
        ),
    ),
    Property(
        "queues",
        OBJECT,
        "Where results and notices go: a queue's name, or `null` for nowhere; results never to the outbox.",
        properties=_QUEUES,
    ),
    Property("headers", OBJECT, "Edits of the header section, made before sending.", properties=_HEADER_EDITS),
    Property("keepmime", YES_NO, "Whether the content stays in the result."),
    Property("body", words(get_args(Body)), "How the content is encoded; `binarymime` is sent by BDAT only."),
    Property("smtputf8", YES_NO, "Whether the message needs SMTPUTF8."),
    Property("requiretls", YES_NO, "Whether it may go by TLS alone, to hosts that promise the same (RFC 8689)."),
    Property("dsn", OBJECT, "What the sender wants to be told (RFC 3461); kept, and in every result.", properties=DSN),
    Property(
        "idempotency-key",
        {"type": "string", "minLength": 1, "maxLength": 1000},
        "Another message with the same key and recipient is not sent for `idempotency-ttl`.",
    ),
)

_CARRIED = (
    Property("connection", OBJECT, "As reception wrote it; `local-ip` marks `ips` as a wish."),
    Property("seen", ANY_TIME, "First pick-up by delivery, written by it."),
    Property("results", OBJECTS, "The attempts made so far, written by delivery.", properties=ATTEMPT),
)

OUTBOX: tuple[Property, ...] = (*_ORDERS, DKIM_ASKED, *CONTENT, *_CARRIED)
"""A message to deliver."""

RESULT: tuple[Property, ...] = (
    *_ORDERS,
    DKIM_SHOWN,
    *_CARRIED[:-1],
    Property("results", OBJECTS | {"minItems": 1}, "One item per attempt, the last one last.", True, ATTEMPT),
    Property("extracted", OBJECT, "What the header section says, for people and scripts.", properties=EXTRACTED),
    *CONTENT,
)
"""What became of a message: the outbox message without its content, unless ``keepmime``."""

TABLES: Mapping[Kind, tuple[Property, ...]] = {"inbox": INBOX, "outbox": OUTBOX, "result": RESULT, "report": REPORTS}

_TITLES: Mapping[Kind, str] = {
    "inbox": "A received message, as it stands in the inbox",
    "outbox": "A message to deliver, as the outbox takes it",
    "result": "The result of a message",
    "report": "A report that came to a local address, as it stands in the reports queue",
}


_RECEIVED = ("inbox", "report")
"""Written by reception: what is absent is left out."""


def schema(kind: Kind) -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a *kind* of message."""
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": f"urn:mtaq:{kind}:v1"}
    head |= {"title": _TITLES[kind], "type": "object"}
    made = head | _object(TABLES[kind], null_is_absent=kind not in _RECEIVED)
    content = [
        {"required": [row.name], "properties": {row.name: {"type": "string"}}} for row in CONTENT
    ]  # null is none
    return made if kind == "result" else made | {"oneOf" if kind in _RECEIVED else "anyOf": content}


def render_schema(kind: Kind) -> str:
    """Return ``docs/schema/<kind>.json``."""
    return json.dumps(schema(kind), indent=2, ensure_ascii=False) + "\n"


def _object(rows: Sequence[Property], *, null_is_absent: bool) -> dict[str, Any]:
    return {
        "properties": {row.name: _value(row, null_is_absent=null_is_absent) for row in rows},
        "required": [row.name for row in rows if row.required],
    }


def _value(row: Property, *, null_is_absent: bool) -> dict[str, Any]:
    form = dict(row.form)
    if row.properties:
        below = _object(row.properties, null_is_absent=null_is_absent)
        if "items" in form:
            form["items"] = dict(form["items"]) | below
        if "object" in form["type"]:
            form |= below
    if null_is_absent and not row.required:
        form = _or_null(form)
    return {"description": row.meaning.replace("`", ""), **form}


def _or_null(form: dict[str, Any]) -> dict[str, Any]:
    """In the outbox ``null`` counts as absent."""
    if "anyOf" in form:
        return form | {"anyOf": [*form["anyOf"], {"type": "null"}]}
    if "enum" in form:
        return form | {"type": [form["type"], "null"], "enum": [*form["enum"], None]}
    kinds = [form["type"]] if isinstance(form["type"], str) else form["type"]
    return form if "null" in kinds else form | {"type": [*kinds, "null"]}
