"""The bytes of publishes, deliveries and what settles them are those that pamqp writes and reads."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import frame
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from mtaq.broker.rabbitmq.frames import (
    Properties,
    ack_frame,
    content_header,
    publish_frames,
    publish_method,
    read_confirm,
    read_deliver,
    read_properties,
    read_routing_key,
    requeue_frame,
)
from mtaq.model.parcel import INBOX_TYPE, Parcel

TIME_S = 1_777_777_777
CHANNEL = 7
SHORT = st.text(st.characters(codec="utf-8"), max_size=60)
TAGS = st.integers(0, 2**63 - 1)
NAMES = st.text(st.characters(codec="utf-8"), max_size=30)  # of a table: pamqp cuts those off that have over 128 bytes
TABLES = st.dictionaries(NAMES, SHORT | st.booleans() | st.integers(-(2**31), 2**31 - 1), max_size=3)
PARCELS = st.builds(
    Parcel,
    body=st.binary(max_size=40),
    type=SHORT.filter(bool),
    correlation_id=SHORT,
    priority=st.integers(0, 255),
    headers=TABLES,
)


def payload(marshalled: Any) -> bytes:
    """Return what is between the head of a frame and its end."""
    return frame.marshal(marshalled, CHANNEL)[7:-1]


def marshal(*frames: Any) -> bytes:
    return b"".join(frame.marshal(each, CHANNEL) for each in frames)


def by_pamqp(parcel: Parcel, method: Basic.Publish, message_id: str, *, persistent: bool, encoding: str | None,
             piece_bytes: int) -> bytes:  # fmt: skip
    body = parcel.body
    properties = Basic.Properties(
        content_type="application/json",
        content_encoding=encoding,
        headers=dict(parcel.headers) or None,
        delivery_mode=2 if persistent else 1,
        priority=parcel.priority,
        correlation_id=parcel.correlation_id or None,
        message_id=message_id,
        timestamp=datetime.fromtimestamp(TIME_S, UTC),
        message_type=parcel.type,
        app_id="mtaq",
    )
    pieces = (body[start : start + piece_bytes] for start in range(0, len(body), piece_bytes))
    return marshal(method, ContentHeader(properties=properties, body_size=len(body)), *map(ContentBody, pieces))


@given(
    parcel=PARCELS,
    exchange=st.text("abc.-", max_size=10),
    key=st.text("abcé.", max_size=10),
    message_id=SHORT.filter(bool),
    persistent=st.booleans(),
    encoding=st.none() | st.just("gzip"),
    piece_bytes=st.integers(1, 50),
)
def test_publish(
    parcel: Parcel, exchange: str, key: str, message_id: str, persistent: bool, encoding: str | None, piece_bytes: int
) -> None:
    """Whatever is published, wherever to and however it is cut."""
    header = content_header(
        parcel, len(parcel.body), message_id=message_id, time_s=TIME_S, persistent=persistent, encoding=encoding
    )
    made = publish_frames(CHANNEL, publish_method(exchange, key), header, parcel.body, piece_bytes=piece_bytes)
    method = Basic.Publish(exchange=exchange, routing_key=key, mandatory=True)
    assert b"".join(made) == by_pamqp(
        parcel, method, message_id, persistent=persistent, encoding=encoding, piece_bytes=piece_bytes
    )


@pytest.mark.parametrize(
    "changes", [{"correlation_id": "é" * 128}, {"type": "t" * 256}, {"priority": 256}, {"headers": {"n" * 256: "v"}}]
)
def test_what_amqp_cannot_say(changes: dict[str, Any]) -> None:
    """Short strings end at 255 bytes, priorities at 255."""
    parcel = Parcel(**{"body": b"", "type": INBOX_TYPE, "correlation_id": "c", **changes})
    with pytest.raises(ValueError, match="256"):
        content_header(parcel, 0, message_id="m", time_s=TIME_S, persistent=True, encoding=None)


@given(tag=TAGS, multiple=st.booleans())
def test_settlements(tag: int, multiple: bool) -> None:
    """Acks and returns to the queue; and confirms, which are the same frames the other way."""
    ack = Basic.Ack(delivery_tag=tag, multiple=multiple)
    assert ack_frame(CHANNEL, tag, multiple=multiple) == frame.marshal(ack, CHANNEL)
    assert requeue_frame(CHANNEL, tag) == frame.marshal(Basic.Nack(delivery_tag=tag, requeue=True), CHANNEL)
    assert read_confirm(payload(ack)) == (tag, multiple)
    assert read_confirm(payload(Basic.Nack(delivery_tag=tag, multiple=multiple))) == (tag, multiple)


@given(consumer_tag=SHORT, tag=TAGS, redelivered=st.booleans())
def test_deliver(consumer_tag: str, tag: int, redelivered: bool) -> None:
    """Delivery tag and ``redelivered``, whatever the consumer is called."""
    method = Basic.Deliver(
        consumer_tag=consumer_tag, delivery_tag=tag, redelivered=redelivered, exchange="e", routing_key="k"
    )
    assert read_deliver(payload(method)) == (tag, redelivered)


@given(
    size_bytes=st.integers(0, 2**40),
    known=st.fixed_dictionaries(
        {},
        optional={
            "content_encoding": SHORT,
            "headers": TABLES,
            "priority": st.integers(0, 255),
            "correlation_id": SHORT,
            "message_id": SHORT,
            "message_type": SHORT,
        },
    ),
    others=st.fixed_dictionaries(
        {},
        optional={
            "content_type": SHORT,
            "delivery_mode": st.sampled_from([1, 2]),
            "reply_to": SHORT,
            "expiration": SHORT,
            "timestamp": st.just(datetime.fromtimestamp(TIME_S, UTC)),
            "user_id": SHORT,
            "app_id": SHORT,
        },
    ),
)
def test_properties(size_bytes: int, known: dict[str, Any], others: dict[str, Any]) -> None:
    """Whatever the publisher set, and whatever not."""
    header = ContentHeader(body_size=size_bytes, properties=Basic.Properties(**known, **others))
    found = read_properties(payload(header))
    assert found.headers == known.pop("headers", {})
    if "message_type" in known:
        known["type"] = known.pop("message_type")
    if "timestamp" in others:
        known["time_s"] = TIME_S
    assert found._replace(table=b"") == Properties(size_bytes=size_bytes, **known)


@given(consumer=SHORT, exchange=st.sampled_from(["", "outbox.delay.3"]), key=SHORT, tag=TAGS)
def test_routing_keys(consumer: str, exchange: str, key: str, tag: int) -> None:
    """The routing key stands behind whatever else a delivery says."""
    deliver = Basic.Deliver(consumer_tag=consumer, delivery_tag=tag, exchange=exchange, routing_key=key)
    assert read_routing_key(payload(deliver)) == key
