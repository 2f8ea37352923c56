"""Attachments in `winmail.dat`; containers are made here, since those of the world hold other people's mail."""

from __future__ import annotations

import base64
import hashlib
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tnefparse import TNEF
from tnefparse import properties as mapi
from tnefparse.mapi import IMESSAGE_SIG

from mtaq.mime.describe import parse_full
from mtaq.mime.tnef import ATTACHMENTS_LIMIT, unpack

SIGNATURE = b"\x78\x9f\x3e\x22\x01\x00"


def number(value: int, size: int = 4) -> bytes:
    return value.to_bytes(size, "little")


def item(name: int, data: bytes, level: int = 2, kind: int = 6) -> bytes:
    """One object: level, name, type, length, data, checksum (MS-OXTNEF §2.1.3.1)."""
    head = number(level, 1) + number(name, 2) + number(kind, 2) + number(len(data))
    return head + data + number(sum(data) & 0xFFFF, 2)


def text_property(name: int, text: str) -> bytes:
    octets = text.encode("utf-16-le") + b"\0\0"
    return number(0x001F, 2) + number(name, 2) + number(1) + number(len(octets)) + octets + b"\0" * (-len(octets) % 4)


def data_property(name: int, octets: bytes) -> bytes:
    return number(0x0102, 2) + number(name, 2) + number(1) + number(len(octets)) + octets + b"\0" * (-len(octets) % 4)


def attachment(title: bytes, octets: bytes, *properties: bytes) -> bytes:
    found = item(TNEF.ATTATTACHRENDDATA, b"\0" * 14)
    found += item(TNEF.ATTATTACHTITLE, title + b"\0", kind=1) + item(TNEF.ATTATTACHDATA, octets)
    if properties:
        found += item(TNEF.ATTATTACHMENT, number(len(properties)) + b"".join(properties))
    return found


CODEPAGE = item(TNEF.ATTOEMCODEPAGE, number(1252) + number(0), level=1)
TWO = (
    SIGNATURE
    + CODEPAGE
    + attachment(b"gr\xfcn.txt", b"one\0\0")
    + attachment(
        b"LONGNA~1.PDF",
        b"two",
        text_property(mapi.MAPI_ATTACH_LONG_FILENAME, "long name €.pdf"),
        text_property(mapi.MAPI_ATTACH_MIME_TAG, "Application/PDF"),
    )
)


def test_attachments_are_unpacked() -> None:
    """Names, types and octets come out as they went in; the long name wins over the short one."""
    found, complete = unpack(TWO)
    assert complete
    assert [tuple(one) for one in found] == [
        ("grün.txt", "application/octet-stream", b"one\0\0"),
        ("long name €.pdf", "application/pdf", b"two"),
    ]


def test_they_are_described_behind_their_container() -> None:
    """In `extracted`, what a container holds follows it and names it."""
    message = (
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\ntext\r\n--b\r\n"
        b"Content-Type: application/ms-tnef; name=winmail.dat\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        + base64.encodebytes(TWO)
        + b"\r\n--b--\r\n"
    )
    container, first, second = parse_full(message)["attachments"]
    assert (container["filename"], container["type"], "container" in container) == (
        "winmail.dat", "application/ms-tnef", False,
    )  # fmt: skip
    assert first == {"filename": "grün.txt", "type": "application/octet-stream", "size": 5,
                     "sha256": hashlib.sha256(b"one\0\0").hexdigest(), "container": "winmail.dat"}  # fmt: skip
    assert second["container"] == "winmail.dat"


def embedded(inner: bytes) -> bytes:
    return attachment(b"message", b"", data_property(mapi.MAPI_ATTACH_DATA_OBJ, IMESSAGE_SIG + inner))


def test_embedded_messages_are_opened_to_a_depth() -> None:
    """A message in a container is itself one; without end is too deep."""
    found, complete = unpack(SIGNATURE + CODEPAGE + embedded(TWO))
    assert complete
    assert [one.name for one in found] == ["message", "grün.txt", "long name €.pdf"]
    inner = TWO
    for _ in range(6):
        inner = SIGNATURE + CODEPAGE + embedded(inner)
    found, complete = unpack(inner)
    assert not complete
    assert len(found) == 3


@pytest.mark.parametrize(
    "hostile",
    [
        item(TNEF.ATTATTACHMENT, number(0xFFFFFFFF)),
        item(TNEF.ATTATTACHMENT, number(1) + number(0x1002, 2) + number(0x3707, 2) + number(0xFFFFFFFF)),
        item(TNEF.ATTATTACHMENT, number(1) + number(0x001F, 2) + number(0x3707, 2) + number(0xFFFFFFFF)),
        item(TNEF.ATTATTACHMENT, number(1) + number(0x001F, 2) + number(0x3707, 2) + number(2**30) + b"\0" * 400_000),
        item(TNEF.ATTATTACHMENT, number(1000) + b"\0" * 100_000),
        item(TNEF.ATTATTACHMENT, b""),
        item(TNEF.ATTATTACHMENT, b"\xff" * 1000),
        item(TNEF.ATTATTACHTITLE, b"") * 100_000,
        b"\x02" + b"\xff" * 8,
        b"\x02\x05\x90\x06\x00" + number(0xFFFFFFFF) + b"\0" * 100,
    ],
    ids=["2^32 properties", "2^32 values", "2^32 strings", "zeros", "too short", "empty", "ones", "100,000 objects",
         "cut off", "length beyond the end"],
)  # fmt: skip
def test_counts_that_lie(hostile: bytes) -> None:
    """Counts of billions in a few octets, on which the library would loop for hours, are bounded here."""
    found, _ = unpack(SIGNATURE + CODEPAGE + attachment(b"a", b"one") + hostile)
    assert len(found) <= 1


def test_attachments_without_end() -> None:
    """More attachments than any message has are left out, and it says so."""
    found, complete = unpack(SIGNATURE + attachment(b"a", b"b") * (ATTACHMENTS_LIMIT + 1))
    assert len(found) <= ATTACHMENTS_LIMIT
    assert not complete


@given(st.binary(max_size=200), st.integers(0, len(TWO)))
def test_any_octets(octets: bytes, place: int) -> None:
    """Damaged containers never fail."""
    unpack(SIGNATURE + octets)
    unpack(TWO[:place] + octets + TWO[place:])
    unpack(TWO[:place])


def test_nothing_of_the_content_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The library tells of what it stumbles over; not here, where that is somebody's mail."""
    with caplog.at_level(logging.DEBUG):
        unpack(SIGNATURE + CODEPAGE + attachment(b"a", b"one") + item(TNEF.ATTATTACHMENT, b"\x01\0\0\0secret" * 9))
    assert caplog.records == []
