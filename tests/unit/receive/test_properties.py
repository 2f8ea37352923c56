"""What `x-mq-*` fields say; tests of tricks are named after them."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtaq.config import ReceiveOptions
from mtaq.config.ranges import Ranges, plain_network
from mtaq.model.address import Address
from mtaq.model.codec import decode_outbox
from mtaq.model.message import InboxRecipient
from mtaq.receive.properties import (
    FIELDS,
    LONGEST_NAME,
    MOST_BYTES,
    MOST_FIELDS,
    RESERVED,
    BadField,
    laid_over,
    take_properties,
    treatment,
)

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
BODY = b"Subject: x\r\n\r\nbody\r\n"


def taken(*fields: bytes) -> dict[str, Any]:
    extraction = take_properties(b"".join(b"X-MQ-" + field + b"\r\n" for field in fields) + BODY, now=NOW)
    assert extraction.content == BODY
    return extraction.properties


def refused(*fields: bytes) -> BadField:
    with pytest.raises(BadField) as caught:
        taken(*fields)
    return caught.value


@pytest.mark.parametrize(
    ("field", "properties"),
    [
        (b"Envelope: ada@Example.org", {"envelope": "ada@example.org"}),
        (b"Envelope: <ada@example.org>", {"envelope": "ada@example.org"}),
        (b"Envelope: <>", {"envelope": ""}),
        (b"Envelope:", {"envelope": ""}),
        ("Envelope: jörg@bücher.example".encode(), {"envelope": "jörg@bücher.example"}),
        (b"IP: 192.0.2.1", {"ips": ["192.0.2.1"]}),
        (b"IP: 2001:DB8:0::1", {"ips": ["2001:db8::1"]}),
        (b"IP: ::ffff:192.0.2.1", {"ips": ["192.0.2.1"]}),
        (b"Pool: bulk a", {"pool": "bulk a"}),
        (b"Tag: spring", {"tags": ["spring"]}),
        (b"Delayed: 2026-05-02 06:00:00", {"nextattempt": {"time": "2026-05-02 06:00:00"}}),
        (b"Delayed: 2026-05-02T06:00:00.5+02:00", {"nextattempt": {"time": "2026-05-02 04:00:00"}}),
        (b"MaxDeliverTime: 2026-05-02 06:00:00", {"maxdelivertime": "2026-05-02 06:00:00"}),
        (b"MaxDeliverTime: 90", {"maxdelivertime": "2026-05-01 12:01:30"}),
        (b"MaxAttempts: 0", {"maxattempts": 0}),
        (b"Retries: 60, 600,3600", {"retries": [60, 600, 3600]}),
        (b"InlineCSS: 1", {"inlinecss": True}),
        (b"KeepMime: No", {"keepmime": False}),
        (b"Priority: 255", {"priority": 255}),
        (b"Security: REQUIRED", {"security": "required"}),
        (b"Results-Queue: mine", {"queues": {"results": "mine"}}),
        (b"Success-Queue: mine", {"queues": {"success": "mine"}}),
        (b"Failure-Queue: mine", {"queues": {"failure": "mine"}}),
        (b"Retry-Queue: mine", {"queues": {"retry": "mine"}}),
        (b"DSN-Queue: mine", {"queues": {"dsn": "mine"}}),
        (b"Smarthost-Hostname: relay.example.net", {"smarthost": {"hostname": "relay.example.net"}}),
        (b"DSN-Notify: delay, failure", {"dsn": {"notify": "DELAY,FAILURE"}}),
        (b"DSN-Notify: never", {"dsn": {"notify": "NEVER"}}),
        (b"DSN-Ret: hdrs", {"dsn": {"ret": "HDRS"}}),
        (b"DSN-Orcpt: rfc822;ada@example.org", {"dsn": {"orcpt": "rfc822;ada@example.org"}}),
        (b"DSN-Orcpt: ada@example.org", {"dsn": {"orcpt": "rfc822;ada@example.org"}}),
        (b"DSN-Envid: A-17", {"dsn": {"envid": "A-17"}}),
        (b"Order-ID: A 1001", {"order-id": "A 1001"}),
        (b"Idempotency-Key: 7f3a", {"idempotency-key": "7f3a"}),
        (b"Foo:", {"foo": ""}),
    ],
)
def test_each_field_becomes_its_property(field: bytes, properties: dict[str, Any]) -> None:
    """The table of the contract, with every spelling that is understood."""
    assert taken(field) == properties


def test_every_field_of_the_table_is_tried() -> None:
    """No field is missing in the test above, apart from those that need a smarthost."""
    parameters = test_each_field_becomes_its_property.pytestmark[0].args[1]  # type: ignore[attr-defined]  # set by pytest
    tried = {field.partition(b":")[0].decode().lower() for field, _ in parameters}
    assert set(FIELDS) - tried == {"smarthost-port", "smarthost-username", "smarthost-password"}


def test_parts_of_one_property() -> None:
    """Fields that are parts of one property meet in it, in any order."""
    assert taken(
        b"Smarthost-Port: 2525", b"Results-Queue: a", b"Smarthost-Hostname: h", b"Success-Queue: b",
        b"Smarthost-Username: u", b"DSN-Ret: full", b"Smarthost-Password: p w", b"DSN-Envid: 1",
    ) == {
        "smarthost": {"port": 2525, "hostname": "h", "username": "u", "password": "p w"},
        "queues": {"results": "a", "success": "b"},
        "dsn": {"ret": "FULL", "envid": "1"},
    }  # fmt: skip


def test_repeated_fields_are_a_list() -> None:
    """`ip` and `tag` may be repeated: in order, each value once."""
    assert taken(b"Tag: b", b"TAG: a", b"tag: b") == {"tags": ["b", "a"]}
    assert taken(b"IP: 192.0.2.2", b"IP: ::1", b"IP: 192.0.2.2") == {"ips": ["192.0.2.2", "::1"]}


@pytest.mark.parametrize("name", [*(name for name in FIELDS if name not in ("ip", "tag")), "anything"])
def test_duplicate_names(name: str) -> None:
    """A field that cannot be repeated and is given twice is refused: readers would differ in which one counts."""
    values = {"smarthost-port": b"25", "maxattempts": b"1", "priority": b"1", "retries": b"1", "dsn-ret": b"FULL",
              "dsn-notify": b"NEVER", "security": b"required", "inlinecss": b"1", "keepmime": b"1",
              "envelope": b"a@b.test", "delayed": b"2026-05-02 06:00:00", "maxdelivertime": b"60",
              "dsn-orcpt": b"a@b.test"}  # fmt: skip
    field = name.encode() + b": " + values.get(name, b"x")
    error = refused(field, field)
    assert error.name == f"x-mq-{name}"
    assert "once" in error.why


@pytest.mark.parametrize(
    "field",
    [
        b"Envelope: nobody", b"Envelope: a@b@c", b"Envelope: a b@example.org", b"Envelope: <a@b", b"Envelope: a@b>",
        b"Envelope: a@b.test\x00", b"Envelope: <a@b.test> x", b"IP: 192.0.2.256", b"IP: 192.0.2.0/24", b"IP:",
        b"IP: localhost", b"IP: 192.0.2.1, 192.0.2.2", b"Pool:", b"Tag:", b"Tag: " + b"x" * 256, b"Delayed: tomorrow",
        b"Delayed: 60", b"Delayed: 2026-05-02", b"Delayed: 2026-02-30 00:00:00", b"Delayed: 20260502T060000",
        b"Delayed: 0001-01-01 00:00:00+23:00", b"Delayed: 2026-05-02 06:00:00 UTC", b"MaxDeliverTime: 0",
        b"MaxDeliverTime: -1", b"MaxDeliverTime: 1e3", b"MaxDeliverTime: 99999999999", b"MaxDeliverTime: 1 day",
        "MaxDeliverTime: ٣٠".encode(), b"MaxAttempts: -1", b"MaxAttempts: many", b"MaxAttempts: 1.5", b"Retries:",
        b"Retries: 60;600", b"Retries: 60,,600", b"Retries: -1", b"Retries: " + b"1," * 200 + b"1", b"InlineCSS: maybe",
        b"KeepMime:", b"Priority: 256", b"Priority: high", b"Security: tls", b"Results-Queue:",
        b"Results-Queue: amq.direct", b"Results-Queue: " + b"q" * 256, b"DSN-Queue: a\tb\x01",
        b"Smarthost-Hostname: a b", b"Smarthost-Hostname: http://a", b"Smarthost-Hostname:", b"Smarthost-Port: 25",
        b"Smarthost-Username: u",
        b"Smarthost-Password: p", b"DSN-Notify: sometimes", b"DSN-Notify: NEVER,DELAY", b"DSN-Notify:",
        b"DSN-Notify: DELAY,DELAY", b"DSN-Ret: all", b"DSN-Orcpt: nobody", b"DSN-Orcpt: rfc822;", b"DSN-Envid: a b",
        b"DSN-Envid: " + b"x" * 101, b"Foo: a\x00b", b"Foo: a\rb", b"Foo: a\x7fb", b"Foo: \xff", b"Foo: \xc3",
        b"Foo: \xed\xa0\x80", b"Foo: \xe2\x80\xa8", b"Queues: results", b"IPs: 192.0.2.1", b"Tags: a", b"Smarthost: h",
        b"NextAttempt: 2026-05-02 06:00:00", b"DSN: never",
    ],
)  # fmt: skip
def test_wrong_values_are_refused(field: bytes) -> None:
    """A value of the wrong form is refused; the reply names the field and does not repeat the value."""
    name, _, value = field.partition(b":")
    error = refused(field)
    assert error.name == f"x-mq-{name.decode().lower()}"
    assert (error.reply.code, error.reply.status) == (550, "5.6.0")
    assert error.reply.text.startswith(error.name + ": ")
    assert error.reply.text.isascii()
    assert len(error.reply.encode()) < 512
    assert len(value) < 12 or value.strip().decode("latin-1") not in error.reply.text


def test_smarthost_port_is_bounded() -> None:
    """A port is one that exists."""
    assert refused(b"Smarthost-Hostname: h", b"Smarthost-Port: 65536").name == "x-mq-smarthost-port"
    assert refused(b"Smarthost-Hostname: h", b"Smarthost-Port: 0").name == "x-mq-smarthost-port"


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_x_mq_mime_and_other_reserved_names(name: str) -> None:
    """A reserved name sets nothing; it is taken out, whatever its value, and named for the log."""
    content = b"X-MQ-" + name.upper().encode() + b": \x00\xff evil\r\n" + BODY
    assert take_properties(content, now=NOW) == (BODY, {}, (name,))


@pytest.mark.parametrize(
    "name",
    [
        b"",
        b"-",
        b"--",
        b"a-",
        b"-a",
        b"a--b",
        b"a_b",
        b"a.b",
        b"__proto__",
        b"a/b",
        b"\xe9",
        b"a b",
        b"a" * 65,
        b"a\x00b",
    ],
)
def test_names_that_are_none(name: bytes) -> None:
    """Only letters, digits and single dashes make a name; the reply shows nothing else of it."""
    error = refused(name + b": b")
    assert set(error.name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-?")
    assert error.name.startswith("x-mq-")
    assert len(error.name) <= LONGEST_NAME + 5


def test_folded_name() -> None:
    """A name that is folded is no name, and is neither taken nor left behind."""
    assert refused(b"\r\n foo: bar").why == "not a header field"
    assert refused(b"Pool\r\n : bar").why == "not a header field"


def test_encoded_words() -> None:
    """Encoded-words are decoded, in every field, and what they hide is judged as if it stood there."""
    assert taken(b"Tag: =?utf-8?q?gr=C3=BCn?=") == {"tags": ["grün"]}
    assert taken(b"Foo: =?iso-8859-1?B?5A==?= =?iso-8859-1?B?9g==?=") == {"foo": "äö"}
    assert taken(b"Envelope: =?us-ascii?Q?ada=40example.org?=") == {"envelope": "ada@example.org"}
    assert refused(b"Foo: =?utf-8?q?a=0D=0AX-MQ-Pool:_b?=").name == "x-mq-foo"
    assert refused(b"Foo: =?utf-8?q?=00?=").name == "x-mq-foo"
    assert taken(b"Foo: =?no-charset?q?=00?=") == {"foo": "=?no-charset?q?=00?="}


def test_eight_bit_values() -> None:
    """Values are UTF-8."""
    assert taken("Foo: grün 😀".encode()) == {"foo": "grün 😀"}


def test_folded_values() -> None:
    """A folded value is one line; a tab counts as a blank."""
    assert taken(b"Retries: 60,\r\n\t600,\r\n 3600") == {"retries": [60, 600, 3600]}
    assert taken(b"Foo: a\r\n\tb") == {"foo": "a b"}


def test_ten_thousand_fields() -> None:
    """More fields than any program writes are refused, whatever they are."""
    assert taken(*[b"Tag: %d" % number for number in range(MOST_FIELDS)])["tags"][-1] == str(MOST_FIELDS - 1)
    assert refused(*[b"Tag: a"] * (MOST_FIELDS + 1)).name == "x-mq-tag"
    assert refused(*[b"Mime: a"] * 10_000).name == "x-mq-mime"


def test_one_field_of_a_megabyte() -> None:
    """More octets than any program writes are refused."""
    assert refused(b"Foo: " + b"x" * 1_000_000).name == "x-mq-foo"
    assert refused(b"Foo: " + b"x\r\n " * 300_000).name == "x-mq-foo"
    assert refused(b"A: " + b"x" * (MOST_BYTES // 2), b"B: " + b"x" * (MOST_BYTES // 2)).name == "x-mq-b"


def test_line_feeds_alone() -> None:
    """Content with bare LF has the same fields."""
    assert take_properties(b"X-MQ-Tag: a\n b\nSubject: x\n\nbody", now=NOW) == (
        b"Subject: x\n\nbody",
        {"tags": ["a b"]},
        (),
    )


def test_content_without_fields_is_the_same_object() -> None:
    """Most mail has none, and is not copied."""
    assert take_properties(BODY, now=NOW).content is BODY


@given(
    st.lists(
        st.tuples(
            st.sampled_from([*FIELDS, *RESERVED, "foo", "a-b", "", "-", "queues"]).map(str.encode),
            st.binary(max_size=30) | st.text(max_size=20).map(str.encode) | st.sampled_from([b"1", b"a@b.test"]),
        ),
        max_size=5,
    )
)
def test_whatever_is_taken_is_a_message_that_delivery_understands(fields: list[tuple[bytes, bytes]]) -> None:
    """Any fields are refused, or make properties that go into JSON and are understood in the outbox."""
    content = b"".join(b"X-MQ-" + name + b": " + value.replace(b"\n", b"") + b"\r\n" for name, value in fields) + BODY
    try:
        extraction = take_properties(content, now=NOW)
    except BadField:
        return
    assert extraction.content == BODY
    assert not RESERVED & extraction.properties.keys()
    extraction.properties.get("smarthost", {}).pop("username", None)  # a login is not supported yet
    extraction.properties.get("smarthost", {}).pop("password", None)
    message = {**extraction.properties, "recipient": "a@b.test", "mime": "x"}
    decode_outbox(orjson.dumps(message))


# Laid over what reception wrote.


RECIPIENTS = [
    InboxRecipient("id.1", Address("a", "x.test"), {"dsn": {"notify": "NEVER", "orcpt": "rfc822;a@x.test"}}),
    InboxRecipient("id.2", Address("b", "x.test")),
]


def test_properties_are_laid_over() -> None:
    """What fields say wins; tags are added, and the rest stays."""
    shared = {"envelope": "a@b.test", "tags": ["port", "b"], "ips": ["192.0.2.1"], "size": 1}
    merged, recipients = laid_over(shared, RECIPIENTS, {"envelope": "", "tags": ["a", "port"], "foo": "bar"})
    assert merged == {"envelope": "", "tags": ["port", "b", "a"], "ips": ["192.0.2.1"], "size": 1, "foo": "bar"}
    assert recipients == RECIPIENTS
    assert shared["tags"] == ["port", "b"]


@pytest.mark.parametrize(
    ("properties", "ips"),
    [({"pool": "p"}, None), ({"ips": ["192.0.2.9"]}, ["192.0.2.9"]), ({"pool": "p", "ips": ["::1"]}, ["::1"])],
)
def test_mapped_address_gives_way(properties: dict[str, Any], ips: list[str] | None) -> None:
    """With addresses or a pool asked for, the mapped address is not written."""
    assert laid_over({"ips": ["192.0.2.1"]}, [], properties)[0].get("ips") == ips


def test_dsn_is_merged_per_recipient() -> None:
    """`dsn` wins item by item over the parameters of MAIL and RCPT, and no JSON has it twice."""
    merged, recipients = laid_over({}, RECIPIENTS, {"dsn": {"notify": "DELAY", "envid": "1"}})
    assert "dsn" not in merged
    assert [recipient.properties for recipient in recipients] == [
        {"dsn": {"notify": "DELAY", "orcpt": "rfc822;a@x.test", "envid": "1"}},
        {"dsn": {"notify": "DELAY", "envid": "1"}},
    ]


# Who is believed.


@pytest.mark.parametrize(
    ("option", "remote_ip", "user", "way"),
    [
        ("true", "203.0.113.1", None, "take"),
        ("false", "192.168.1.1", "ada", "leave"),
        ("trusted", "203.0.113.1", None, "strip"),
        ("trusted", "203.0.113.1", "ada", "take"),
        ("trusted", "192.168.1.1", None, "take"),
        ("trusted", "", None, "strip"),
    ],
)
def test_who_is_believed(option: Any, remote_ip: str, user: str | None, way: str) -> None:
    """`trusted` believes logins and its range only, and takes the fields of all others out."""
    trusted = Ranges([plain_network("192.168.0.0/16")])
    options = replace(ReceiveOptions(), smtp_extract=option, smtp_extract_range=trusted)
    assert treatment(options, remote_ip=remote_ip, user=user) == way


def test_properties_are_json() -> None:
    """Everything together is plain JSON."""
    everything = taken(b"Tag: a", b"Retries: 1", b"Delayed: 2026-05-02 06:00:00", b"Foo: bar", b"KeepMime: yes")
    assert json.loads(orjson.dumps(everything)) == everything
