"""Which properties does the JSON in the queues have? One table per kind of message.

The JSON Schemas in ``docs/schema`` and ``docs/reference/message-json.md`` are made of these tables; ``codec`` is what
they describe, and tests hold the two together. Pure; knows nothing of AMQP.

A schema says what mtaq publishes and what it understands. Properties that are not listed are allowed everywhere: in
the outbox they are kept and come back in the result.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from mtaq.model.message import Body, Security
from mtaq.model.outcome import ResultWord, State

Kind = Literal["inbox", "outbox", "result"]


@dataclass(frozen=True, slots=True)
class Property:
    """One property of an object.

    Attributes:
        name: As it is spelled in the JSON.
        form: JSON Schema of the value, without its description and its own properties.
        meaning: What it says, in one sentence.
        required: Is it always there?
        properties: What the value holds, when it is an object or an array of objects.
    """

    name: str
    form: Mapping[str, Any]
    meaning: str
    required: bool = False
    properties: tuple[Property, ...] = ()


def _words(words: Sequence[str]) -> dict[str, Any]:
    return {"type": "string", "enum": list(words)}


_TEXT = {"type": "string"}
_TEXTS = {"type": "array", "items": _TEXT}
_YES_NO = {"type": "boolean"}
_COUNT = {"type": "integer", "minimum": 0}
_PORT = {"type": "integer", "minimum": 1, "maximum": 65535}
#: A PROXY header may say 0.
_PROXIED_PORT = {"type": "integer", "minimum": 0, "maximum": 65535}
_OBJECT = {"type": "object"}
_OBJECTS = {"type": "array", "items": {"type": "object"}}
_TIME = {"type": "string", "pattern": r"^[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}$"}
#: What scripts may write; ``model.times`` reads it.
_ANY_TIME = {
    "type": "string",
    "pattern": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})?$",
}
_MESSAGE_ID = {
    "type": "string",
    "pattern": "^[A-Za-z0-9-]{1,31}[.][0-9a-v]{26}[.][1-9][0-9]*$",
    "maxLength": 64,
}
_BASE64 = {"type": "string", "contentEncoding": "base64"}
_QUEUE = {"type": ["string", "null"], "minLength": 1, "maxLength": 255, "pattern": "^(?!amq[.])"}
_NAME_OR_NAMES = {"anyOf": [_TEXT, _TEXTS]}
_VALUES = {"type": "object", "additionalProperties": _TEXT}
_LISTS = {"type": "object", "additionalProperties": _NAME_OR_NAMES}

_PARTS = (
    Property("local", _TEXT, "The local-part.", True),
    Property("domain", _TEXT, "The domain.", True),
)

_CONNECTION = (
    Property("local-ip", _TEXT, "The address the client connected to: ours, or our proxy's.", True),
    Property("local-port", _PROXIED_PORT, "The port the client connected to.", True),
    Property("remote-ip", _TEXT, "The client's address; IPv4-mapped IPv6 is written as IPv4.", True),
    Property("remote-port", _PROXIED_PORT, "The client's port.", True),
    Property("helo", _TEXT, "The name the client gave in EHLO or HELO.", True),
    Property("secure", _YES_NO, "Whether the session was encrypted.", True),
    Property(
        "tls",
        _OBJECT,
        "How the session was encrypted; only when it was.",
        properties=(
            Property("version", _TEXT, "Version, such as `TLSv1.3`.", True),
            Property("cipher", _TEXT, "OpenSSL's name of the cipher; empty when a proxy did not tell it.", True),
            Property(
                "client-cert",
                _OBJECT,
                "The client's certificate; only when it showed one, which `smtp-tls-client-ca` asks for.",
                properties=(
                    Property("subject", _TEXT, "Whom it names.", True),
                    Property("verified", _YES_NO, "Whether one of those authorities signed it.", True),
                ),
            ),
        ),
    ),
    Property(
        "proxy",
        _OBJECT,
        "The proxy whose PROXY header told the other addresses; only when there was one.",
        properties=(
            Property("ip", _TEXT, "Its address.", True),
            Property("port", _PORT, "Its port.", True),
        ),
    ),
)

_SPOOL = (
    Property("directory", _TEXT, "The spool directory.", True),
    Property("file", _TEXT, "The file's name in it.", True),
    Property("user", _TEXT, "Who owned it.", True),
    Property("size", _COUNT, "Bytes of the file.", True),
)

_CONTENT = (
    Property("mime", _TEXT, "The content, when it is valid UTF-8: encoding the string gives the bytes."),
    Property("mime-base64", _BASE64, "The content in base64, when it is not valid UTF-8."),
)

_ATTACHMENT = (
    Property("filename", _TEXT, "Its file's name, if it has one."),
    Property("type", _TEXT, "Its media type in lower case.", True),
    Property("size", _COUNT, "Bytes, decoded.", True),
    Property("sha256", _TEXT, "Digest of what it holds, decoded; hexadecimal.", True),
    Property("disposition", _words(("attachment", "inline")), "How it is to be shown, if it says so."),
    Property("cid", _TEXT, "Its content id without angle brackets, if it has one."),
    Property("container", _TEXT, "Name of the `winmail.dat` (TNEF) it was found in; absent outside of one."),
)

_EXTRACTED = (
    Property("from", _TEXT, "Address of the first author."),
    Property("to", _TEXTS, "Addresses."),
    Property("cc", _TEXTS, "Addresses."),
    Property("subject", _TEXT, "Decoded."),
    Property("date", _TEXT, "As it stands."),
    Property("message-id", _TEXT, "As it stands."),
    Property("headers", _LISTS, "Every field by its name in lower case; a list when it occurs again."),
    Property("envelope", _OBJECT, "The reverse-path in parts.", properties=_PARTS),
    Property("recipient", _OBJECT, "The forward-path in parts.", properties=_PARTS),
    Property("text", _TEXT, "The text bodies, one after the other; with `smtp-parse: full` or `parse-full`."),
    Property("html", _TEXT, "The HTML bodies, likewise: as harmful as the content is."),
    Property("attachments", _OBJECTS, "All other parts, likewise.", properties=_ATTACHMENT),
    Property("truncated", _YES_NO, "True when texts, parts or nesting went beyond the bounds, and were left out."),
)

#: What reception writes, without the content.
_RECEIVED = (
    Property("received", _TIME, "When the content was complete, UTC.", True),
    Property("hostname", _TEXT, "Our name in the session.", True),
    Property("connection", _OBJECT, "The session that the message came by, if not in a file.", False, _CONNECTION),
    Property("spool", _OBJECT, "The file of the spool directory that the message came in.", False, _SPOOL),
    Property("size", _COUNT, "Bytes of the content as received, before our `Received:` field.", True),
    Property("body", _words(get_args(Body)), "What the client declared with BODY.", True),
    Property("smtputf8", {"const": True}, "The client asked for SMTPUTF8; only when it did."),
    Property("ips", _TEXTS, "Source addresses to leave from: the mapped local address, when it is mappable."),
)

INBOX: tuple[Property, ...] = (
    Property("message-id", _MESSAGE_ID, "`<server-id>.<time-ordered id>.<n>`, unique per recipient.", True),
    Property("recipient", _TEXT, "One forward-path.", True),
    Property("envelope", _TEXT, "The reverse-path; empty for the null one.", True),
    *_CONTENT,
    *_RECEIVED,
    Property("extracted", _OBJECT, "What the content says, as far as `smtp-parse` has it read.", properties=_EXTRACTED),
)
"""A message that was received: usable unchanged in the outbox."""

CATEGORIES = (
    "bad-mailbox", "bad-domain", "policy", "spam", "reputation", "quota", "content", "greylist", "rate", "network",
    "tls", "auth", "other",
)  # fmt: skip
"""The words for why an attempt did not succeed; ``deliver.classify`` chooses."""

ATTEMPT: tuple[Property, ...] = (
    Property("attempt", {"type": "integer", "minimum": 1}, "Number of the attempt.", True),
    Property("time", _TIME, "When the outcome was known, UTC.", True),
    Property("state", _words(get_args(State)), "How far the attempt came.", True),
    Property("result", _words(get_args(ResultWord)), "How it ended there.", True),
    Property("mta", _TEXT, "The name in the peer's greeting."),
    Property("from", _TEXT, "Local IP address."),
    Property("to", _TEXT, "Remote IP address."),
    Property("code", {"type": "integer", "minimum": 200, "maximum": 599}, "Reply code: the peer's, or ours."),
    Property("status", _TEXT, "Enhanced status code, likewise."),
    Property("description", _TEXT, "The peer's text, or what went wrong here."),
    Property(
        "cipher",
        _OBJECT,
        "How the connection was encrypted; only when it was.",
        properties=(
            Property("name", _TEXT, "OpenSSL's name of the cipher.", True),
            Property("version", _TEXT, "Version of TLS.", True),
            Property("bits", _COUNT, "Length of the secret key.", True),
        ),
    ),
    Property(
        "certificate",
        _OBJECT,
        "The peer's certificate; only on an encrypted connection.",
        properties=(
            Property("verified", _YES_NO, "Whether it was checked against the name of the host, and right.", True),
            Property("subject", _TEXT, "Whom it names."),
            Property("issuer", _TEXT, "Who signed it."),
            Property("notafter", _TIME, "When it expires, UTC."),
        ),
    ),
    Property("tls-policy", _words(("none", *get_args(Security))), "What encryption was asked for."),
    Property("messages", {"type": "integer", "minimum": 1}, "Mail transactions on that connection, this one included."),
    Property(
        "sent",
        _OBJECT,
        "Bytes sent.",
        properties=(
            Property("connection", _COUNT, "On the connection so far.", True),
            Property("data", {"type": ["integer", "null"], "minimum": 0}, "Of the content in this transaction."),
        ),
    ),
    Property("duration", _COUNT, "Milliseconds from the start of the attempt to its outcome."),
    Property("dsn", _YES_NO, "Whether the peer announced DSN."),
    Property("category", _words(CATEGORIES), "Why it did not succeed, in one word."),
)
"""One item of ``results``."""

_QUEUES = (
    Property("results", _QUEUE, "Instead of `rabbitmq-results`."),
    Property("success", _QUEUE, "Instead of `rabbitmq-success`."),
    Property("failure", _QUEUE, "Instead of `rabbitmq-failure`."),
    Property("retry", _QUEUE, "Instead of `rabbitmq-retry`."),
)

_HEADER_EDITS = (
    Property("remove", _NAME_OR_NAMES, "Names of fields to take out."),
    Property("replace", _VALUES, "Name → value: set in place of the first such field, or appended."),
    Property("update", _VALUES, "Name → value: set in place of the first such field, if there is one."),
    Property("prepend", _LISTS, "Name → value or values, put at the top."),
    Property("append", _LISTS, "Name → value or values, put at the end of the header section."),
)

#: What a script may say about a message, apart from its content.
_ORDERS = (
    Property("recipient", {"type": "string", "minLength": 1}, "The forward-path.", True),
    Property("envelope", _TEXT, "The reverse-path; absent or empty for the null one."),
    Property("message-id", _TEXT, "Names the message in logs and results."),
    Property("ips", _TEXTS, "Source addresses: the first one that works is used."),
    Property(
        "nextattempt",
        _OBJECT,
        "Not before that moment.",
        properties=(Property("time", _ANY_TIME, "The moment, UTC unless it says otherwise."),),
    ),
    Property("delayed", _ANY_TIME, "Older spelling of `nextattempt.time`, which comes first."),
    Property("maxdelivertime", _ANY_TIME, "When the message is given up, instead of `max-delivertime`."),
    Property("maxattempts", _COUNT, "Attempts until it is given up, instead of `max-attempts`; 0 is unlimited."),
    Property(
        "retries",
        {"type": "array", "items": _COUNT, "minItems": 1},
        "Seconds after the first, second, … transient failure, instead of `retry-interval`; the last repeats.",
    ),
    Property("priority", _COUNT, "Priority with which `mtaq.client` publishes the message."),
    Property("security", _words(get_args(Security)), "Encryption demanded, instead of `delivery-security`."),
    Property(
        "smarthost",
        _OBJECT,
        "Host that gets this message, instead of the recipient's mail hosts or the configured smarthost.",
        properties=(
            Property("hostname", _TEXT, "Its name or IP address.", required=True),
            Property("port", {"type": "integer", "minimum": 1, "maximum": 65535}, "Its port; 25 when left out."),
        ),
    ),
    Property(
        "queues",
        _OBJECT,
        "Where results go: a queue's name, or `null` for nowhere; never the outbox.",
        properties=_QUEUES,
    ),
    Property("headers", _OBJECT, "Edits of the header section, made before sending.", properties=_HEADER_EDITS),
    Property("keepmime", _YES_NO, "Whether the content stays in the result."),
    Property("body", _words(get_args(Body)), "How the content is encoded; `binarymime` is sent by BDAT only."),
    Property("smtputf8", _YES_NO, "Whether the message needs SMTPUTF8."),
)

_CARRIED = (
    Property("connection", _OBJECT, "As reception wrote it; `local-ip` marks `ips` as a wish."),
    Property("seen", _ANY_TIME, "First pick-up by delivery, written by it."),
    Property("results", _OBJECTS, "The attempts made so far, written by delivery.", properties=ATTEMPT),
)

OUTBOX: tuple[Property, ...] = (*_ORDERS, *_CONTENT, *_CARRIED)
"""A message to deliver."""

RESULT: tuple[Property, ...] = (
    *_ORDERS,
    *_CARRIED[:-1],
    Property("results", _OBJECTS | {"minItems": 1}, "One item per attempt, the last one last.", True, ATTEMPT),
    Property("extracted", _OBJECT, "What the header section says, for people and scripts.", properties=_EXTRACTED),
    *_CONTENT,
)
"""What became of a message: the outbox message without its content, unless ``keepmime``."""

TABLES: Mapping[Kind, tuple[Property, ...]] = {"inbox": INBOX, "outbox": OUTBOX, "result": RESULT}

_TITLES: Mapping[Kind, str] = {
    "inbox": "A received message, as it stands in the inbox",
    "outbox": "A message to deliver, as the outbox takes it",
    "result": "The result of a message",
}


def schema(kind: Kind) -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a *kind* of message."""
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": f"urn:mtaq:{kind}:v1"}
    made = head | {"title": _TITLES[kind], "type": "object"} | _object(TABLES[kind], null_is_absent=kind != "inbox")
    content = [
        {"required": [row.name], "properties": {row.name: {"type": "string"}}} for row in _CONTENT
    ]  # null is none
    return made if kind == "result" else made | {"oneOf" if kind == "inbox" else "anyOf": content}


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
        form = form | {"items": dict(form["items"]) | below} if form["type"] == "array" else form | below
    if null_is_absent and not row.required:
        form = _or_null(form)
    return {"description": row.meaning.replace("`", ""), **form}


def _or_null(form: dict[str, Any]) -> dict[str, Any]:
    """In the outbox ``null`` counts as absent."""
    if "anyOf" in form:
        return form | {"anyOf": [*form["anyOf"], {"type": "null"}]}
    if "enum" in form:
        return form | {"type": [form["type"], "null"], "enum": [*form["enum"], None]}
    if isinstance(form["type"], str):
        return form | {"type": [form["type"], "null"]}
    return form
