"""The bytes of what mtaq says and hears most: publishes, deliveries, and what settles them (AMQP 0-9-1 §2.3, §4.2).

``pamqp`` writes and reads the same, but makes an object of each frame and asks it for every field by its name, which
takes longer than everything else in a publish. Only what messages need is here. Writing raises ``ValueError`` for a
name or id of more than 255 bytes; reading what is no such frame raises ``struct.error`` or ``IndexError``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from pamqp.decode import field_table as read_table
from pamqp.encode import field_table as write_table

from mtaq.model.parcel import Parcel

METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
FRAME_TYPES = frozenset((METHOD, HEADER, BODY, HEARTBEAT))

#: Type, channel and size of a frame; behind its payload stands ``END``.
FRAME = struct.Struct(">BHI")
END = b"\xce"
HEARTBEAT_FRAME = FRAME.pack(HEARTBEAT, 0, 0) + END

#: Class and method, with which the payload of a method frame begins.
BLOCKED = struct.pack(">HH", 10, 60)
UNBLOCKED = struct.pack(">HH", 10, 61)
CHANNEL_CLOSE = struct.pack(">HH", 20, 40)
RETURN = struct.pack(">HH", 60, 50)
DELIVER = struct.pack(">HH", 60, 60)
ACK = struct.pack(">HH", 60, 80)
NACK = struct.pack(">HH", 60, 120)

_PUBLISH = struct.pack(">HHH", 60, 40, 0)  # the last field is reserved
_MANDATORY = b"\x01"
_SETTLEMENT = struct.Struct(">BHI4sQBB")  # a whole frame: its 13 bytes are method, delivery tag and flags
_MULTIPLE, _REQUEUE = 0b01, 0b10
_LONGLONG, _LONG = struct.Struct(">Q"), struct.Struct(">I")
_CONTENT = struct.Struct(">HHQH")  # class, weight, size of the body, flags

# Flags of a content header, in the order in which the properties follow it.
_CONTENT_TYPE, _CONTENT_ENCODING, _HEADERS, _DELIVERY_MODE = 1 << 15, 1 << 14, 1 << 13, 1 << 12
_PRIORITY, _CORRELATION_ID, _REPLY_TO, _EXPIRATION = 1 << 11, 1 << 10, 1 << 9, 1 << 8
_MESSAGE_ID, _TIMESTAMP, _TYPE, _APP_ID = 1 << 7, 1 << 6, 1 << 5, 1 << 3
_ALWAYS = _CONTENT_TYPE | _DELIVERY_MODE | _PRIORITY | _MESSAGE_ID | _TIMESTAMP | _TYPE | _APP_ID


class Properties(NamedTuple):
    """What a content header says, as far as anybody here asks for it.

    Attributes:
        size_bytes: Of the body.
        table: The headers, not yet read; empty when there are none.
        time_s: When it was published, in seconds since 1970; 0 when that is not said.
    """

    size_bytes: int
    content_encoding: str = ""
    table: bytes = b""
    priority: int = 0
    correlation_id: str = ""
    message_id: str = ""
    type: str = ""
    time_s: int = 0

    @property
    def headers(self) -> Mapping[str, Any]:
        """The headers, the broker's own among them."""
        return read_table(self.table)[1] if self.table else {}


def publish_method(exchange: str, key: str) -> bytes:
    """Return the payload of ``basic.publish``, mandatory."""
    return b"".join((_PUBLISH, _short(exchange), _short(key), _MANDATORY))


def content_header(
    parcel: Parcel, size_bytes: int, *, message_id: str, time_s: int, persistent: bool, encoding: str | None
) -> bytes:
    """
    Return the payload of the content header of *parcel*; nothing of an earlier trip through the broker is in it.

    Args:
        size_bytes: Of the body as it is sent.
        time_s: Seconds since 1970.
        encoding: ``content_encoding``.
    """
    flags = _ALWAYS
    parts = [_known("application/json")]
    if encoding is not None:
        flags |= _CONTENT_ENCODING
        parts.append(_known(encoding))
    if parcel.headers:
        flags |= _HEADERS
        parts.append(_table(parcel.headers))
    parts += (b"\x02" if persistent else b"\x01", bytes((parcel.priority,)))
    if parcel.correlation_id:
        flags |= _CORRELATION_ID
        parts.append(_short(parcel.correlation_id))
    parts += (_short(message_id), _LONGLONG.pack(time_s), _known(parcel.type), _known("mtaq"))
    return b"".join((_CONTENT.pack(60, 0, size_bytes, flags), *parts))


def publish_frames(
    channel: int, method: bytes, header: bytes, body: bytes, *, piece_bytes: int
) -> Iterator[bytes | memoryview]:
    """Yield the frames of one publish, in parts; no body frame carries more than *piece_bytes*."""
    before = FRAME.pack(METHOD, channel, len(method)), method, END, FRAME.pack(HEADER, channel, len(header)), header
    begin = b"".join(before)
    for at in range(0, len(body), piece_bytes):
        piece = body if len(body) <= piece_bytes else memoryview(body)[at : at + piece_bytes]
        yield begin + END + FRAME.pack(BODY, channel, len(piece))
        yield piece
        begin = b""
    yield begin + END


def ack_frame(channel: int, delivery_tag: int, *, multiple: bool) -> bytes:
    """Return ``basic.ack``."""
    return _SETTLEMENT.pack(METHOD, channel, 13, ACK, delivery_tag, _MULTIPLE if multiple else 0, END[0])


def requeue_frame(channel: int, delivery_tag: int) -> bytes:
    """Return ``basic.nack`` of one delivery, which goes back to its queue."""
    return _SETTLEMENT.pack(METHOD, channel, 13, NACK, delivery_tag, _REQUEUE, END[0])


def read_confirm(payload: bytes) -> tuple[int, bool]:
    """Return tag and ``multiple`` of a ``basic.ack`` or ``basic.nack``."""
    return _LONGLONG.unpack_from(payload, 4)[0], bool(payload[12] & _MULTIPLE)


def read_deliver(payload: bytes) -> tuple[int, bool]:
    """Return delivery tag and ``redelivered`` of a ``basic.deliver``."""
    at = 5 + payload[4]  # behind the consumer's tag
    return _LONGLONG.unpack_from(payload, at)[0], bool(payload[at + 8] & 1)


def read_routing_key(payload: bytes) -> str:
    """Return the routing key of a ``basic.deliver``."""
    at = 5 + payload[4] + 9  # behind consumer's tag, delivery tag and flags
    at += 1 + payload[at]  # and behind the exchange
    return payload[at + 1 : at + 1 + payload[at]].decode(errors="replace")


def read_properties(payload: bytes) -> Properties:
    """Return what a content header says."""
    _, _, size_bytes, flags = _CONTENT.unpack_from(payload)
    at = _CONTENT.size
    texts: dict[int, str] = {}
    table, priority, time_s = b"", 0, 0
    for flag in _READ:
        if not flags & flag:
            continue
        if flag == _HEADERS:
            end = at + _LONG.size + _LONG.unpack_from(payload, at)[0]
            table = payload[at:end]
        elif flag == _DELIVERY_MODE:
            end = at + 1
        elif flag == _PRIORITY:
            end = at + 1
            priority = payload[at]
        elif flag == _TIMESTAMP:
            end = at + _LONGLONG.size
            time_s = _LONGLONG.unpack_from(payload, at)[0]
        else:
            end = at + 1 + payload[at]
            texts[flag] = payload[at + 1 : end].decode(errors="replace")
        at = end
    text = texts.get
    return Properties(
        size_bytes=size_bytes,
        content_encoding=text(_CONTENT_ENCODING, ""),
        table=table,
        priority=priority,
        correlation_id=text(_CORRELATION_ID, ""),
        message_id=text(_MESSAGE_ID, ""),
        type=text(_TYPE, ""),
        time_s=time_s,
    )


#: The properties that are asked for, and those before them that must be passed over.
_READ = (
    _CONTENT_TYPE, _CONTENT_ENCODING, _HEADERS, _DELIVERY_MODE, _PRIORITY, _CORRELATION_ID, _REPLY_TO, _EXPIRATION,
    _MESSAGE_ID, _TIMESTAMP, _TYPE,
)  # fmt: skip


def _table(headers: Mapping[str, str | int | bool]) -> bytes:
    fields = b"".join(
        _known(name) + b"S" + _long(value) if isinstance(value, str) else write_table({name: value})[_LONG.size :]
        for name, value in sorted(headers.items())
    )
    return _LONG.pack(len(fields)) + fields


def _long(text: str) -> bytes:
    encoded = text.encode()
    return _LONG.pack(len(encoded)) + encoded


def _short(text: str) -> bytes:
    encoded = text.encode()
    return bytes((len(encoded),)) + encoded


_known = lru_cache(maxsize=64)(_short)
