"""What goes past the library, and what does not: frames whole, in pieces and byte by byte."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, cast

import pytest
from aiormq.channel import Channel
from aiormq.exceptions import ChannelPreconditionFailed
from pamqp import commands, frame
from pamqp.base import Frame
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.header import ContentHeader
from pamqp.heartbeat import Heartbeat

from mtaq.broker.rabbitmq.confirms import ConfirmChannel
from mtaq.broker.rabbitmq.deliveries import Deliveries
from mtaq.broker.rabbitmq.frames import HEARTBEAT_FRAME, Properties, content_header, publish_method
from mtaq.broker.rabbitmq.wire import Wire
from mtaq.model.parcel import INBOX_TYPE, Parcel

CHANNEL = 3


class Library(asyncio.Protocol):
    """Keeps what comes."""

    def __init__(self) -> None:
        self.data = b""

    def data_received(self, data: bytes) -> None:
        """Keep it."""
        self.data += data


class Transport(asyncio.Transport):
    """Keeps what is sent, and which protocol it has."""

    def __init__(self) -> None:
        super().__init__()
        self.protocol: asyncio.BaseProtocol = Library()
        self.sent: list[bytes] = []
        self.closing = False

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return it."""
        return self.protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Replace it."""
        self.protocol = protocol

    def is_closing(self) -> bool:
        """As the test says."""
        return self.closing

    def writelines(self, list_of_data: Iterable[Any]) -> None:
        """Keep it; one entry for each call."""
        self.sent.append(b"".join(list_of_data))


class Wired:
    """A wire, and what is at both of its ends."""

    def __init__(self) -> None:
        self.transport = Transport()
        self.library = cast(Library, self.transport.protocol)
        self.wire = Wire(self.transport)

    def hear(self, *marshalled: Any, cut: int = 0) -> None:
        """Have frames of the channel come in, in pieces of *cut* bytes."""
        self.hear_bytes(b"".join(frame.marshal(each, CHANNEL) for each in marshalled), cut=cut)

    def hear_bytes(self, data: bytes, cut: int = 0) -> None:
        """Have bytes come in, in pieces of *cut* bytes."""
        for start in range(0, len(data), cut or len(data)):
            self.wire.data_received(data[start : start + (cut or len(data))])


def delivery(tag: int, *pieces: bytes, redelivered: bool = False) -> list[Any]:
    """Return the frames of a delivery."""
    size = sum(map(len, pieces))
    return [
        Basic.Deliver(consumer_tag="c", delivery_tag=tag, redelivered=redelivered, exchange="", routing_key="queue"),
        ContentHeader(body_size=size, properties=Basic.Properties(message_id=f"m{tag}")),
        *map(ContentBody, pieces),
    ]


@pytest.mark.parametrize("cut", [0, 1, 2, 7, 8, 11])
async def test_deliveries(cut: int) -> None:
    """Deliveries come out in order, without a body, with one and with a body in pieces; the library sees none."""
    wired = Wired()
    found: list[tuple[int, bool, Properties, bytes]] = []
    wired.wire.tap(CHANNEL, Deliveries(lambda *delivered: found.append(delivered)).hear)
    others = [Basic.ConsumeOk(consumer_tag="c"), Basic.Cancel(consumer_tag="c")]
    frames = [others[0], *delivery(1, b"one"), *delivery(2), *delivery(3, b"th", b"re", b"e", redelivered=True)]
    wired.hear(*frames, others[1], cut=cut)
    assert [(tag, again, properties.message_id, body) for tag, again, properties, body in found] == [
        (1, False, "m1", b"one"), (2, False, "m2", b""), (3, True, "m3", b"three"),
    ]  # fmt: skip
    assert wired.library.data == b"".join(frame.marshal(each, CHANNEL) for each in others)


@pytest.mark.parametrize("cut", [0, 1])
async def test_other_channels(cut: int) -> None:
    """Without a tap on its channel, everything is the library's."""
    wired = Wired()
    wired.wire.tap(CHANNEL + 1, lambda kind, payload: pytest.fail("another channel"))
    frames: list[Frame | Heartbeat] = [*delivery(1, b"one"), Heartbeat()]
    wired.hear(*frames, cut=cut)
    assert wired.library.data == b"".join(frame.marshal(each, CHANNEL) for each in frames)


@pytest.mark.parametrize("cut", [0, 1])
@pytest.mark.parametrize("noise", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"AMQP\x00\x00\x09\x01", b"\x01" + bytes(40)])
async def test_no_amqp(noise: bytes, cut: int) -> None:
    """What does not look like frames goes on as it is, with everything behind it."""
    wired = Wired()
    wired.wire.tap(CHANNEL, lambda kind, payload: kind == 8)
    wired.hear_bytes(frame.marshal(Basic.ConsumeOk("c"), CHANNEL) + noise + HEARTBEAT_FRAME, cut=cut)
    expected = frame.marshal(Basic.ConsumeOk("c"), CHANNEL) + noise + HEARTBEAT_FRAME
    assert wired.library.data == expected


async def test_the_library_hears_that_a_busy_connection_is_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would end one on which nothing but tapped frames comes."""
    wired = Wired()
    wired.wire.tap(CHANNEL, lambda kind, payload: True)
    wired.hear(*delivery(1, b"one"))
    assert wired.library.data == b""
    loop = asyncio.get_running_loop()
    later = loop.time() + 2.0
    monkeypatch.setattr(loop, "time", lambda: later)
    wired.hear(*delivery(2, b"two"))
    assert wired.library.data == HEARTBEAT_FRAME
    wired.hear(*delivery(3, b"three"))
    assert wired.library.data == HEARTBEAT_FRAME


async def test_blocked() -> None:
    """What RabbitMQ says of the whole connection is noted, and the library hears it too."""
    wired = Wired()
    said: list[Frame] = [commands.Connection.Blocked("memory"), commands.Connection.Unblocked()]
    for each, blocked in zip(said, (True, False), strict=True):
        wired.hear_bytes(frame.marshal(each, 0))
        assert wired.wire.is_blocked is blocked
    assert wired.library.data == b"".join(frame.marshal(each, 0) for each in said)
    wired.hear_bytes(frame.marshal(said[0], 0))
    wired.wire.connection_lost(None)
    assert not wired.wire.is_blocked


async def test_writes_go_out_together() -> None:
    """What is written in one turn of the loop is sent at once, in order; on a closing connection nothing is."""
    wired = Wired()
    wired.wire.write(b"a", b"b")
    wired.wire.write(b"c")
    assert wired.transport.sent == []
    await asyncio.sleep(0)
    assert wired.transport.sent == [b"abc"]
    wired.wire.write(b"d")
    wired.wire.flush()
    await asyncio.sleep(0)
    assert wired.transport.sent == [b"abc", b"d"]
    wired.transport.closing = True
    wired.wire.write(b"e")
    await asyncio.sleep(0)
    assert wired.transport.sent == [b"abc", b"d"]


class LibraryChannel:
    """What a confirm channel asks of the library's."""

    def __init__(self) -> None:
        self.number = CHANNEL
        self.max_content_size = 100
        self.is_closed = False
        self.closing: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Publishing:
    """A confirm channel, and what is at its ends."""

    def __init__(self) -> None:
        self.wired = Wired()
        self.library = LibraryChannel()
        self.channel = ConfirmChannel(cast(Channel, self.library), self.wired.wire)

    def publish(self, *ids: str) -> list[asyncio.Future[Any]]:
        """Publish a message under each of *ids*."""
        return [self.channel.publish(publish_method("", "q"), self._header(each), b"body", each) for each in ids]

    @staticmethod
    def _header(message_id: str) -> bytes:
        parcel = Parcel(body=b"body", type=INBOX_TYPE, correlation_id="c")
        return content_header(parcel, 4, message_id=message_id, time_s=0, persistent=True, encoding=None)


def returned(message_id: str, *pieces: bytes) -> list[Any]:
    """Return the frames of a message that comes back."""
    size = sum(map(len, pieces))
    method = Basic.Return(reply_code=312, reply_text="NO_ROUTE", exchange="", routing_key="q")
    header = ContentHeader(body_size=size, properties=Basic.Properties(message_id=message_id))
    return [method, header, *map(ContentBody, pieces)]


def outcomes(confirms: Iterable[asyncio.Future[Any]]) -> list[Any]:
    """Return what is known."""
    return [confirm.result() if confirm.done() else None for confirm in confirms]


@pytest.mark.parametrize("cut", [0, 1])
async def test_confirms(cut: int) -> None:
    """Publishes are confirmed or refused one by one, or many at once."""
    publishing = Publishing()
    confirms = publishing.publish("a", "b", "c", "d", "e")
    publishing.wired.hear(Basic.Ack(delivery_tag=2), cut=cut)
    assert outcomes(confirms) == [None, "stored", None, None, None]
    publishing.wired.hear(Basic.Ack(delivery_tag=3, multiple=True), Basic.Nack(delivery_tag=4), cut=cut)
    assert outcomes(confirms) == ["stored", "stored", "stored", "refused", None]
    publishing.wired.hear(Basic.Ack(delivery_tag=1), Basic.Ack(delivery_tag=99), Basic.Ack(delivery_tag=5), cut=cut)
    assert outcomes(confirms)[4] == "stored"
    assert publishing.wired.library.data == b""


@pytest.mark.parametrize("cut", [0, 1])
@pytest.mark.parametrize("pieces", [(), (b"body",), (b"bo", b"dy")])
async def test_returned(pieces: tuple[bytes, ...], cut: int) -> None:
    """A message that no queue took comes back, and is confirmed after that; its neighbours are not touched."""
    publishing = Publishing()
    confirms = publishing.publish("a", "b", "c")
    publishing.wired.hear(*returned("b", *pieces), Basic.Ack(delivery_tag=3, multiple=True), cut=cut)
    assert outcomes(confirms) == ["stored", "returned", "stored"]


async def test_nobody_waits_any_more() -> None:
    """The confirm, or the return, of a publish that was given up changes nothing for the others."""
    publishing = Publishing()
    first, second, third = publishing.publish("a", "b", "c")
    first.cancel()
    second.cancel()
    publishing.wired.hear(*returned("a", b"body"), *returned("unknown", b"body"))
    publishing.wired.hear(Basic.Ack(delivery_tag=3, multiple=True))
    assert third.result() == "stored"


async def test_published_again_under_its_id() -> None:
    """After a time-out a message may be published again while the first confirm is still under way."""
    publishing = Publishing()
    (first,) = publishing.publish("a")
    first.cancel()
    (second,) = publishing.publish("a")
    publishing.wired.hear(Basic.Ack(delivery_tag=1), *returned("a", b"body"), Basic.Ack(delivery_tag=2))
    assert second.result() == "returned"


def lost(closing: asyncio.Future[None]) -> None:
    """End as the library does when a connection is lost."""
    closing.cancel()


def closed(closing: asyncio.Future[None]) -> None:
    """End as the library does when the broker closes a channel."""
    closing.set_exception(ChannelPreconditionFailed("too large"))


@pytest.mark.parametrize(("how", "error"), [(lost, ConnectionError), (closed, ChannelPreconditionFailed)])
async def test_end(how: Callable[[asyncio.Future[None]], None], error: type[Exception]) -> None:
    """What is not confirmed when the channel ends fails with the reason."""
    publishing = Publishing()
    first, second, third = publishing.publish("a", "b", "c")
    publishing.wired.hear(Basic.Ack(delivery_tag=1))
    second.cancel()
    how(publishing.library.closing)
    await asyncio.sleep(0)
    assert first.result() == "stored"
    with pytest.raises(error):
        await third


async def test_closed_by_the_broker() -> None:
    """From the broker's word on nothing is published there, though the library hears it as well, and a little later."""
    publishing = Publishing()
    close = commands.Channel.Close(reply_code=406, reply_text="PRECONDITION_FAILED", class_id=60, method_id=40)
    publishing.wired.hear(close)
    assert publishing.channel.is_closed
    assert publishing.wired.library.data == frame.marshal(close, CHANNEL)
