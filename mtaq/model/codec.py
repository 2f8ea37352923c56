"""Messages to JSON and back: the only place that translates between our nouns and the published names.

``spec/messages`` in code. Encoding cannot fail; decoding raises ``BadMessage`` with the reason that
``rabbitmq-dead`` shows the operator.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, get_args

import orjson

from mtaq.model.address import Address, address_text
from mtaq.model.dkim_property import decode_dkim, without_keys
from mtaq.model.dsn import NOTHING_ASKED, DsnRequest, parse_dsn
from mtaq.model.errors import BadMessage
from mtaq.model.identity import recipient_id
from mtaq.model.message import (
    Body,
    ConnectionFacts,
    InboxRecipient,
    OutboxMessage,
    ReceivedMessage,
    Security,
    Smarthost,
    TlsFacts,
)
from mtaq.model.times import format_time, parse_time

#: Properties that carry content; a message has exactly one of the first two.
CONTENT_PROPERTIES = ("mime", "mime-base64")

_BODIES: tuple[str, ...] = get_args(Body)
_SECURITIES: tuple[str, ...] = get_args(Security)

#: Longest ``idempotency-key``, in characters.
MAX_IDEMPOTENCY_KEY = 1000
#: Longest user name and password for a smarthost, in characters.
MAX_CREDENTIAL = 512
#: What a result shows in the place of a password.
_MASK = "***"

#: More content than this becomes JSON a piece at a time: a string takes four bytes for each of its characters when one
#: of them is an emoji.
_PIECE_BYTES = 2**20


def content_property(content: bytes) -> tuple[Literal["mime", "mime-base64"], str]:
    """Return name and value of the property that carries *content*: text when it is valid UTF-8, else base64."""
    try:
        return "mime", content.decode()
    except UnicodeDecodeError:
        return "mime-base64", base64.b64encode(content).decode("ascii")


def content_of(properties: Mapping[str, Any]) -> bytes:
    """
    Return the content that *properties* carry.

    Raises:
        BadMessage: There is none, or it has the wrong form.
    """
    text = properties.get("mime")
    if text is not None:
        if not isinstance(text, str):
            raise BadMessage(f"mime: a string is expected, not {_kind(text)}")
        return text.encode()
    encoded = properties.get("mime-base64")
    if encoded is None:
        raise BadMessage("no content: neither mime nor mime-base64")
    if not isinstance(encoded, str):
        raise BadMessage(f"mime-base64: a string is expected, not {_kind(encoded)}")
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadMessage(f"mime-base64: {error}") from error


def inbox_recipients(message: ReceivedMessage) -> list[InboxRecipient]:
    """Return each recipient of *message* with the properties that are its own, in order."""
    return [
        InboxRecipient(recipient_id(message.transaction, number), recipient)
        for number, recipient in enumerate(message.recipients, 1)
    ]


def encode_inbox(
    properties: Mapping[str, Any], recipients: Sequence[InboxRecipient], content: bytes
) -> Iterator[tuple[InboxRecipient, bytes]]:
    """
    Yield each of *recipients* with its JSON, in order.

    The content is turned into JSON once, whatever the number of recipients; each object exists only while the
    caller holds it.

    Args:
        properties: What all recipients share; see ``inbox_properties``. In ``extracted``, ``recipient`` is each
            one's own.
        recipients: Who gets it, and the properties that are each one's own; they win over shared ones.
        content: What the next server is to get: our ``Received:`` and then the content as it came.
    """
    name, encoded = _content_json(content)
    del content
    varying = {name: properties[name] for one in recipients for name in one.properties if name in properties}
    left_out = {*varying, "extracted"}
    head = orjson.dumps({name: value for name, value in properties.items() if name not in left_out})[1:-1]
    extracted = _extracted_json(properties.get("extracted"))
    tail = b',"%b":' % name.encode()
    for recipient in recipients:
        ids = {"message-id": recipient.message_id, "recipient": str(recipient.address)}
        own = orjson.dumps({**ids, **varying, **recipient.properties})[:-1]
        parts = [own, b",", head, *extracted(recipient.address), tail, *encoded, b"}"]
        if recipient is recipients[-1]:
            encoded = []
        yield recipient, _joined(parts)


def _extracted_json(extracted: Any) -> Callable[[Address], list[bytes]]:
    """Return what writes ``extracted`` for a recipient: all of it is shared but the recipient's own parts."""
    if extracted is None:
        return lambda _: []
    if not isinstance(extracted, dict):
        return lambda _: [b',"extracted":', orjson.dumps(extracted)]
    shared = orjson.dumps({name: value for name, value in extracted.items() if name != "recipient"})[1:-1]
    return lambda address: [
        b',"extracted":{',
        shared + b"," if shared else b"",
        b'"recipient":',
        orjson.dumps({"local": address.local_part, "domain": address.domain}),
        b"}",
    ]


def _joined(parts: list[bytes]) -> bytes:
    """Join *parts* and forget them: whoever calls would hold them as long as the result is worked on."""
    whole = b"".join(parts)
    parts.clear()
    return whole


def _content_json(content: bytes) -> tuple[str, list[bytes]]:
    """Return name and value, as JSON in parts, of the property that carries *content*; see ``content_property``."""
    try:
        return "mime", list(_text_json(content))
    except UnicodeDecodeError:
        return "mime-base64", [b'"', base64.b64encode(content), b'"']


def _text_json(content: bytes) -> Iterator[bytes]:
    if len(content) <= _PIECE_BYTES:
        yield orjson.dumps(content.decode())
        return
    decode = codecs.getincrementaldecoder("utf-8")().decode
    yield b'"'
    for start in range(0, len(content), _PIECE_BYTES):
        piece = content[start : start + _PIECE_BYTES]
        yield orjson.dumps(decode(piece, final=start + _PIECE_BYTES >= len(content)))[1:-1]
    yield b'"'


def inbox_properties(message: ReceivedMessage) -> dict[str, Any]:
    """Return what the JSON of all recipients of *message* shares, without its content."""
    properties: dict[str, Any] = {
        "envelope": address_text(message.envelope),
        "received": format_time(message.received_at),
        "hostname": message.hostname,
        **_origin_json(message),
        "size": message.size_bytes,
        "body": message.body,
    }
    if message.smtputf8:
        properties["smtputf8"] = True
    if message.ips:
        properties["ips"] = list(message.ips)
    if message.tags:
        properties["tags"] = list(message.tags)
    if message.requiretls:
        properties["requiretls"] = True
    return properties


def _origin_json(message: ReceivedMessage) -> dict[str, Any]:
    """Say how the message came: by a connection, or in a file."""
    spool = message.spool
    if spool is None:
        return {"connection": _connection_json(message.connection)}
    facts = {"directory": spool.directory, "file": spool.file, "user": spool.user, "size": spool.size_bytes}
    return {"spool": facts}


def _connection_json(facts: ConnectionFacts) -> dict[str, Any]:
    connection: dict[str, Any] = {
        "local-ip": facts.local_ip,
        "local-port": facts.local_port,
        "remote-ip": facts.remote_ip,
        "remote-port": facts.remote_port,
        "helo": facts.helo,
        "secure": facts.tls is not None,
    }
    if facts.tls is not None:
        connection["tls"] = _tls_json(facts.tls)
    if facts.user is not None:
        connection["user"] = facts.user
    if facts.proxy is not None:
        connection["proxy"] = {"ip": facts.proxy[0], "port": facts.proxy[1]}
    return connection


def _tls_json(facts: TlsFacts) -> dict[str, Any]:
    tls: dict[str, Any] = {"version": facts.version, "cipher": facts.cipher}
    if facts.client_cert is not None:
        tls["client-cert"] = {"subject": facts.client_cert.subject, "verified": facts.client_cert.verified}
    return tls


def decode_outbox(body: bytes) -> OutboxMessage:
    """
    Understand one message of the outbox.

    Addresses are not judged here: a bad one is a result (``process``/``invalid``), not a dead message.

    Raises:
        BadMessage: Not JSON, not an object, no recipient, no content, or a property of the wrong form.
    """
    try:
        properties = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadMessage(f"not JSON: {error}") from error
    if not isinstance(properties, dict):
        raise BadMessage(f"a JSON object is expected, not {_kind(properties)}")
    recipient = _typed(properties, "recipient", str, "")
    if not recipient:
        raise BadMessage("no recipient")
    content = content_of(properties)
    for name in CONTENT_PROPERTIES:
        properties.pop(name, None)
    return _outbox_message(properties, content)


#: What no rule changes: what a message is, what became of it, and private keys, which the journal would keep.
_FIXED = frozenset({*CONTENT_PROPERTIES, "key", "message-id", "envelope", "recipient", "results", "seen", "dkim"})


def change_outbox(
    message: OutboxMessage,
    changes: Mapping[str, Any],
    *,
    envelope: str | None = None,
    recipient: str | None = None,
) -> OutboxMessage:
    """
    Return *message* with other paths, if given, and with *changes* laid over its properties; ``None`` takes one out.

    Raises:
        BadMessage: A property of the wrong form.
    """
    properties = dict(message.properties)
    for name, value in changes.items():
        if value is None and name not in _FIXED:
            properties.pop(name, None)
        elif name not in _FIXED:
            properties[name] = value
    if envelope is not None:
        properties["envelope"] = envelope
    if recipient is not None:
        properties["recipient"] = recipient
    return _outbox_message(properties, message.content)


def _outbox_message(properties: dict[str, Any], content: bytes) -> OutboxMessage:
    recipient = _typed(properties, "recipient", str, "")
    if not recipient:
        raise BadMessage("no recipient")
    connection = _typed(properties, "connection", dict, {})
    local_ip = connection.get("local-ip")
    return OutboxMessage(
        properties=properties,
        message_id=_typed(properties, "message-id", str, ""),
        envelope=_typed(properties, "envelope", str, ""),
        recipient=recipient,
        content=content,
        attempts=len(_typed(properties, "results", list, [])),
        due_at=_due_at(properties),
        seen_at=_time(properties, "seen"),
        expires_at=_time(properties, "maxdelivertime"),
        max_attempts=_count(properties, "maxattempts"),
        retries_s=_retries(properties),
        ips=_texts(properties, "ips"),
        pool=_typed(properties, "pool", str, "") or None,
        tags=_tags(properties),
        local_ip=local_ip if isinstance(local_ip, str) else None,
        body=_word(properties, "body", _BODIES),
        smtputf8=_typed(properties, "smtputf8", bool, False),
        requiretls=_typed(properties, "requiretls", bool, False),
        security=_word(properties, "security", _SECURITIES),
        smarthost=_smarthost(properties),
        priority=_count(properties, "priority") or 0,
        keep_content=_typed(properties, "keepmime", bool, False),
        queues=_queues(properties),
        header_edits=_typed(properties, "headers", dict, None),
        dkim=decode_dkim(properties),
        dsn=_dsn(properties),
        idempotency_key=_idempotency_key(properties),
    )


def encode_outbox(message: OutboxMessage, changes: Mapping[str, Any]) -> bytes:
    """Return *message* as JSON for another trip through the outbox, with *changes* laid over its properties."""
    name, text = content_property(message.content)
    return orjson.dumps({**message.properties, **changes, name: text})


def encode_result(
    message: OutboxMessage, results: Sequence[Mapping[str, Any]], extracted: Mapping[str, Any] | None
) -> bytes:
    """Return the result JSON: the original object without its content (unless ``keepmime``), with ``results[]``."""
    properties = {**message.properties, "results": list(results)}
    if message.smarthost is not None and message.smarthost.password is not None:
        properties["smarthost"] = {**properties["smarthost"], "password": _MASK}
    if message.dkim:
        properties["dkim"] = without_keys(properties["dkim"])
    if extracted is not None:
        properties["extracted"] = extracted
    if message.keep_content:
        name, text = content_property(message.content)
        properties[name] = text
    return orjson.dumps(properties)


def _kind(value: object) -> str:
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def _typed(properties: Mapping[str, Any], name: str, kind: type, default: Any) -> Any:
    value = properties.get(name)
    if value is None:
        return default
    if not isinstance(value, kind):
        wanted = {str: "a string", dict: "an object", list: "an array", bool: "true or false"}[kind]
        raise BadMessage(f"{name}: {wanted} is expected, not {_kind(value)}")
    return value


def _count(properties: Mapping[str, Any], name: str) -> int | None:
    value = properties.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise BadMessage(f"{name}: a whole number from 0 is expected")
    return value


def _word(properties: Mapping[str, Any], name: str, words: tuple[str, ...]) -> Any:
    value = properties.get(name)
    if value is not None and value not in words:
        raise BadMessage(f"{name}: one of {', '.join(words)} is expected")
    return value


def _time(properties: Mapping[str, Any], name: str) -> datetime | None:
    value = properties.get(name)
    if value is None:
        return None
    try:
        return parse_time(value)
    except (ValueError, TypeError, AttributeError) as error:
        raise BadMessage(f"{name}: a time as YYYY-MM-DD HH:MM:SS is expected") from error


def _due_at(properties: Mapping[str, Any]) -> datetime | None:
    next_attempt = _typed(properties, "nextattempt", dict, None)
    if next_attempt is not None and "time" in next_attempt:
        try:
            return _time(next_attempt, "time")
        except BadMessage as error:
            raise BadMessage(f"nextattempt.{error}") from error
    return _time(properties, "delayed")


def _retries(properties: Mapping[str, Any]) -> tuple[int, ...] | None:
    values = _typed(properties, "retries", list, None)
    if values is None:
        return None
    if not values or any(isinstance(value, bool) or not isinstance(value, int) or value < 0 for value in values):
        raise BadMessage("retries: an array of seconds is expected")
    return tuple(values)


def _texts(properties: Mapping[str, Any], name: str) -> tuple[str, ...]:
    values = properties.get(name)
    if not isinstance(values, list):  # MailerQ takes anything but an array as absent
        return ()
    if any(not isinstance(value, str) for value in values):
        raise BadMessage(f"{name}: an array of strings is expected")
    return tuple(values)


def _tags(properties: Mapping[str, Any]) -> tuple[str, ...]:
    values = properties.get("tags")
    return tuple(value for value in values if isinstance(value, str)) if isinstance(values, list) else ()


def _smarthost(properties: Mapping[str, Any]) -> Smarthost | None:
    named = _typed(properties, "smarthost", dict, None)
    if named is None:
        return None
    hostname, port = named.get("hostname"), named.get("port", 25)
    if not isinstance(hostname, str) or not _is_host(hostname):
        raise BadMessage("smarthost.hostname: the name or IP address of a host is expected")
    if isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 65536:
        raise BadMessage("smarthost.port: a number from 1 to 65535 is expected")
    username, password = _credential(named, "username"), _credential(named, "password")
    if (username is None) != (password is None):
        raise BadMessage("smarthost: username and password go together")
    try:
        security = _word(named, "security", _SECURITIES)
    except BadMessage as error:
        raise BadMessage(f"smarthost.{error}") from error
    return Smarthost(
        hostname=hostname.lower().rstrip("."), port=port, username=username, password=password, security=security
    )


def _credential(named: Mapping[str, Any], name: str) -> str | None:
    value = named.get(name)
    if value is None:
        return None
    # RFC 4616 §2: no NUL; and nothing that could end a line of a log.
    if not isinstance(value, str) or not value.isprintable() or not 0 < len(value) <= MAX_CREDENTIAL:
        raise BadMessage(f"smarthost.{name}: a text without control characters is expected")
    return value


_is_host = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.:-]{0,253}[A-Za-z0-9_.])?").fullmatch


def _dsn(properties: Mapping[str, Any]) -> DsnRequest:
    asked = _typed(properties, "dsn", dict, None)
    if not asked:
        return NOTHING_ASKED
    try:
        return parse_dsn(asked)
    except ValueError as error:
        raise BadMessage(f"dsn.{error}") from error


def _idempotency_key(properties: Mapping[str, Any]) -> str | None:
    key: str | None = _typed(properties, "idempotency-key", str, None)
    if key is not None and not 0 < len(key) <= MAX_IDEMPOTENCY_KEY:
        raise BadMessage(f"idempotency-key: 1 to {MAX_IDEMPOTENCY_KEY} characters are expected")
    return key


def _queues(properties: Mapping[str, Any]) -> dict[str, str | None]:
    overrides = _typed(properties, "queues", dict, {})
    chosen: dict[str, str | None] = {}
    for name in ("results", "success", "failure", "retry", "dsn"):
        if name not in overrides:
            continue
        value = overrides[name]
        if value is not None and (not isinstance(value, str) or not value or value.startswith("amq.")):
            raise BadMessage(f"queues.{name}: the name of a queue is expected, or null")
        chosen[name] = value
    return chosen
