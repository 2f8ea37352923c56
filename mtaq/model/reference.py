"""``docs/reference/message-json.md``, from the tables of ``schema``; its examples are made by ``codec``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from mtaq.model.address import Address
from mtaq.model.codec import decode_outbox, encode_inbox, encode_result, inbox_properties, inbox_recipients
from mtaq.model.identity import transaction_id
from mtaq.model.message import ConnectionFacts, ReceivedMessage, TlsFacts
from mtaq.model.outcome import Result
from mtaq.model.schema import ATTEMPT, OUTBOX, RESULT
from mtaq.model.schema_forms import Property
from mtaq.model.schema_inbox import INBOX
from mtaq.model.schema_report import REPORTS

_NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)

_HEAD = """\
# Messages as JSON

Every message in a queue is one JSON object, in UTF-8, for one recipient.
These tables are there as JSON Schemas (2020-12) too: [inbox](../schema/inbox.json), [report](../schema/report.json),
[outbox](../schema/outbox.json) and [result](../schema/result.json).
Times that mtaq writes are UTC, `YYYY-MM-DD HH:MM:SS`.
Times that scripts write may also have the `T`, the fractions and the offsets of ISO 8601.
Properties marked ● are always there.
Readers ignore what they do not know: properties may be added, and those that are here stay.

## AMQP properties

| property | value |
|---|---|
| `content_type` | `application/json` |
| `content_encoding` | `gzip` when `rabbitmq-encoding` says so, else absent |
| `delivery_mode` | 2 (persistent), unless `rabbitmq-persistent` is off |
| `message_id` | a UUID of its own for every publish; one that is repeated after a crash keeps it |
| `correlation_id` | the `message-id` of the JSON |
| `timestamp` | when it was published |
| `type` | `mtaq.inbox.v1`, `mtaq.report.v1`, `mtaq.outbox.v1`, `mtaq.dsn.v1` or `mtaq.result.v1` |
| `app_id` | `mtaq` |
| `priority` | that of the message, of its result and of a retry |
| header `traceparent` | of a result and of a retry, that of the message, when it had one |
| header `reason` | on a message in `rabbitmq-dead`: why it is there |
| header `redelivered` | an earlier copy may have been acted on |

A script that republishes what it consumed must leave out `x-death`, `x-first-death-*` and `x-delivery-count`.
With these headers, a second trip through the delay queues would make the message vanish.
`mtaq.client` leaves them out.

## Content

`mime` holds the content when it is valid UTF-8, byte for byte: encoding the string gives what was received.
Content that is not, such as attachments sent without an encoding, stands in `mime-base64` instead.
The content of a received message begins with our `Received:` field; its line ends are CRLF.
A script may write either property, and LF line ends: they become CRLF before sending.
"""

_INBOX_HEAD = """
## Inbox

A message that was received.
It may be published to the outbox unchanged, and properties may be added or changed on the way.
Mail for local addresses, copies for the archive and refused messages have the same form.
Whoever sent it may have added properties of the outbox, and others, by [`x-mq-*` fields](../guide/mq-fields.md).
"""

_REPORT_HEAD = """
## Reports

Mail to a local address that is a report, with what it says in `report`; [the guide](../guide/reports.md) has examples.
In `rabbitmq-reports` its type is `mtaq.report.v1`.
Where there is no such queue it goes where other local mail goes, as `mtaq.inbox.v1`, and has `report` all the same.
"""

_OUTBOX_HEAD = """
## Outbox

A message to deliver.
`recipient` and one of `mime` and `mime-base64` are needed, everything else may be absent.
`null` counts as absent, except in `queues`, where it means nowhere.
Properties that are not listed here are kept and come back in the result.
A message that cannot be understood goes to `rabbitmq-dead`, with the reason in a header, and is not tried again.
"""

_RESULT_HEAD = """
## Results

The outbox message without its content, with what became of it in `results`.
It was delivered when the last item says `message` and `accepted`, and only then.
Final results go to the results queue, and to the success or the failure queue.
After a transient failure the message goes back to the outbox, to come out at `nextattempt.time`.
A copy of that result goes to the retry queue.
"""

_ATTEMPT_HEAD = """
### Items of `results`

"""

_STATES = """
| `state` | where an attempt ended |
|---|---|
| `process` | before anything was sent: expired (`timeout`), a bad address (`invalid`), a bug of ours (`error`) |
| `dns` | looking up the recipient's mail hosts |
| `bind` | no source address could be used |
| `connect` | opening the TCP connection |
| `intro` | the peer's greeting |
| `ehlo` | EHLO |
| `starttls` | STARTTLS and the handshake |
| `mailfrom` | MAIL |
| `rcptto` | RCPT |
| `data` | DATA, before the content |
| `message` | the content and its reply |

| `result` | how it ended there |
|---|---|
| `accepted` | the peer took responsibility |
| `timeout` | it took too long |
| `lost` | the connection broke |
| `invalid` | an answer, or an address, of the wrong form |
| `error` | refused |
"""


def render_message_json() -> str:
    """Return docs/reference/message-json.md."""
    return "".join(
        (
            _HEAD,
            _INBOX_HEAD,
            _table(INBOX),
            _example(_inbox_example()),
            _REPORT_HEAD,
            _table([row for row in REPORTS if row not in INBOX]),
            _OUTBOX_HEAD,
            _table(OUTBOX),
            _RESULT_HEAD,
            _table([row for row in RESULT if row not in OUTBOX]),
            _example(_result_example()),
            _ATTEMPT_HEAD,
            _table(ATTEMPT),
            _STATES,
        )
    )


def _table(rows: Sequence[Property]) -> str:
    head = "\n| property | form | meaning |\n|---|---|---|\n"
    return head + "".join(
        f"| `{name}`{' ●' if row.required else ''} | {_form(row.form)} | {row.meaning} |\n" for name, row in _flat(rows)
    )


def _flat(rows: Sequence[Property], prefix: str = "") -> Iterator[tuple[str, Property]]:
    for row in rows:
        yield prefix + row.name, row
        if row.properties is not ATTEMPT:
            yield from _flat(row.properties, f"{prefix}{row.name}.")


def _form(form: Any) -> str:
    if "enum" in form:
        return ", ".join(f"`{word}`" for word in form["enum"])
    if "const" in form:
        return "`true`"
    if "anyOf" in form:
        return " or ".join(map(_form, form["anyOf"]))
    kinds = form["type"] if isinstance(form["type"], list) else [form["type"]]
    return " or ".join(_kind(kind, form) for kind in kinds)


def _kind(kind: str, form: Any) -> str:
    if kind == "array":
        return f"array of {_form(form['items'])}s"
    if "pattern" in form and "[0-9]{2}:[0-9]{2}" in form["pattern"]:
        return "time"
    return {"integer": "number", "boolean": "true or false", "null": "`null`"}.get(kind, kind)


def _example(properties: dict[str, Any]) -> str:
    return "\n```json\n" + json.dumps(properties, indent=2, ensure_ascii=False) + "\n```\n"


_TEXT = "From: ada@example.org\r\nTo: grace@example.com\r\nSubject: hello\r\n\r\nit works\r\n"


def _inbox_example() -> dict[str, Any]:
    message = ReceivedMessage(
        transaction=transaction_id("relay1", now=_NOON, random=bytes(range(10))),
        envelope=Address("ada", "example.org"),
        recipients=(Address("grace", "example.com"),),
        received_at=_NOON,
        hostname="relay.example.org",
        connection=ConnectionFacts(
            local_ip="192.0.2.10",
            local_port=25,
            remote_ip="192.0.2.80",
            remote_port=52114,
            helo="laptop.example.org",
            tls=TlsFacts(version="TLSv1.3", cipher="TLS_AES_256_GCM_SHA384"),
        ),
        size_bytes=len(_TEXT),
        body="8bitmime",
        ips=("192.0.2.10",),
    )
    content = b"Received: from laptop.example.org \xe2\x80\xa6\r\n" + _TEXT.encode()
    ((_, body),) = encode_inbox(inbox_properties(message), inbox_recipients(message), content)
    example: dict[str, Any] = json.loads(body)
    return example


def _result_example() -> dict[str, Any]:
    sent = {"envelope": "ada@example.org", "recipient": "grace@example.com", "mime": _TEXT, "order": 4711}
    result = Result(
        attempt=1,
        time=_NOON,
        state="message",
        result="accepted",
        code=250,
        status="2.0.0",
        description="queued as 4XyZ",
        mta="mx.example.com",
        source="192.0.2.10",
        destination="203.0.113.25",
        cipher={"name": "TLS_AES_256_GCM_SHA384", "version": "TLSv1.3", "bits": 256},
        certificate={"verified": False, "subject": "CN=mx.example.com", "issuer": "CN=An Authority",
                     "notafter": "2026-12-31 23:59:59"},
        tls_policy="opportunistic",
        messages=1,
        sent_connection=512,
        sent_data=len(_TEXT),
        duration_ms=183,
        dsn=False,
    )  # fmt: skip
    example: dict[str, Any] = json.loads(
        encode_result(decode_outbox(json.dumps(sent).encode()), [result.to_json()], None)
    )
    return example
