"""Headers of the PROXY protocol as bytes, and taken off a socket."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mtaq.model.message import TlsFacts
from mtaq.receive.proxy import MAX_BYTES, V2_MAX_REST_BYTES, HeaderParser, MalformedHeader, ProxyHeader, crc32c
from mtaq.receive.proxy_reader import read_header

SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")
TCP4 = bytes([192, 0, 2, 1, 198, 51, 100, 2]) + struct.pack("!HH", 40112, 25)
HERE = ProxyHeader(source=("192.0.2.1", 40112), destination=("198.51.100.2", 25))


def v2(block: bytes = TCP4, *, command: int = 0x21, family: int = 0x11) -> bytes:
    """Return a header of version 2."""
    return SIGNATURE + bytes([command, family]) + struct.pack("!H", len(block)) + block


def tlv(kind: int, value: bytes) -> bytes:
    """Return one type, length and value."""
    return struct.pack("!BH", kind, len(value)) + value


def tls(*told: bytes, client: int = 0x01, verify: int = 0) -> bytes:
    """Return the TLV that tells of TLS."""
    return tlv(0x20, struct.pack("!BI", client, verify) + b"".join(told))


def with_sum(header: bytes, wrong_by: int = 0) -> bytes:
    """Return *header*, of version 2, with its checksum."""
    whole = v2(header[16:] + tlv(0x03, bytes(4)), family=header[13])
    return whole[:-4] + struct.pack("!I", crc32c(whole) ^ wrong_by)


def parse(data: bytes, block_bytes: int = 0) -> tuple[ProxyHeader | None, int]:
    """Feed *data* in blocks; return the header and how many bytes were its own."""
    parser, taken = HeaderParser(), 0
    size = block_bytes or len(data) or 1
    for start in range(0, len(data), size):
        taken += parser.feed(data[start : start + size])
        if parser.header is not None:
            break
    return parser.header, taken


VERSION = tlv(0x21, b"TLSv1.3")
CIPHER = tlv(0x23, b"TLS_AES_256_GCM_SHA384")
NAME = tlv(0x22, "Ada Löve".encode())

GOOD = {
    "v1 tcp4": (b"PROXY TCP4 192.0.2.1 198.51.100.2 40112 25\r\n", HERE),
    "v1 mapped": (b"PROXY TCP6 ::ffff:192.0.2.1 ::FFFF:198.51.100.2 40112 25\r\n", HERE),
    "v1 tcp6 in its shortest text": (
        b"PROXY TCP6 2001:DB8:0:0:0:0:0:1 2001:db8::2 0 65535\r\n",
        ProxyHeader(source=("2001:db8::1", 0), destination=("2001:db8::2", 65535)),
    ),
    "v1 longest": (b"PROXY UNKNOWN " + b"f" * 91 + b"\r\n", ProxyHeader()),
    "v1 unknown": (b"PROXY UNKNOWN\r\n", ProxyHeader()),
    "v2 tcp4": (v2(), HERE),
    "v2 mapped": (
        v2(
            bytes(10) + b"\xff\xff" + TCP4[:4] + bytes(10) + b"\xff\xff" + TCP4[4:8] + TCP4[8:],
            family=0x21,
        ),
        HERE,
    ),
    "v2 local": (v2(b"", command=0x20, family=0), ProxyHeader(is_local=True)),
    "v2 local, whatever else": (v2(b"\xff" * 7, command=0x20, family=0x77), ProxyHeader(is_local=True)),
    "v2 unspecified": (v2(b"\xff" * 7, family=0), ProxyHeader()),
    "v2 unix": (v2(bytes(216), family=0x31), ProxyHeader()),
    "v2 ignored TLVs": (v2(TCP4 + tlv(0x01, b"smtp") + tlv(0x02, b"\xff") + tlv(0x04, b"") + tlv(0xEA, b"x")), HERE),
    "v2 longest": (v2(TCP4 + tlv(0x04, bytes(V2_MAX_REST_BYTES - 15))), HERE),
    "v2 checksum": (with_sum(v2()), HERE),
    "v2 in clear": (v2(TCP4 + tls(client=0, verify=0xFFFFFFFF)), HERE),
    "v2 version alone": (
        v2(TCP4 + tls(VERSION)),
        ProxyHeader(source=HERE.source, destination=HERE.destination, tls=TlsFacts(version="TLSv1.3", cipher="")),
    ),
    "v2 name that was not verified": (
        v2(TCP4 + tls(VERSION, CIPHER, NAME, client=0x03, verify=20)),
        ProxyHeader(
            source=HERE.source,
            destination=HERE.destination,
            tls=TlsFacts(version="TLSv1.3", cipher="TLS_AES_256_GCM_SHA384"),
        ),
    ),
    "v2 verified name": (
        with_sum(v2(TCP4 + tls(VERSION, CIPHER, NAME, client=0x05))),
        ProxyHeader(
            source=HERE.source,
            destination=HERE.destination,
            tls=TlsFacts(version="TLSv1.3", cipher="TLS_AES_256_GCM_SHA384"),
            client_name="Ada Löve",
        ),
    ),
}

BAD = {
    "nothing of it": b"EHLO client.test\r\n",
    "small letters": b"proxy TCP4 192.0.2.1 198.51.100.2 40112 25\r\n",
    "bare LF": b"PROXY TCP4 192.0.2.1 198.51.100.2 40112 25\n",
    "bare CR": b"PROXY TCP4 192.0.2.1 198.51.100.2 40112 25\rEHLO\r\n",
    "two blanks": b"PROXY TCP4  192.0.2.1 198.51.100.2 40112 25\r\n",
    "blank at the end": b"PROXY TCP4 192.0.2.1 198.51.100.2 40112 25 \r\n",
    "leading zero in an address": b"PROXY TCP4 192.0.2.01 198.51.100.2 40112 25\r\n",
    "leading zero in a port": b"PROXY TCP4 192.0.2.1 198.51.100.2 040112 25\r\n",
    "port above": b"PROXY TCP4 192.0.2.1 198.51.100.2 65536 25\r\n",
    "signed port": b"PROXY TCP4 192.0.2.1 198.51.100.2 +1 25\r\n",
    "other family": b"PROXY TCP6 192.0.2.1 198.51.100.2 40112 25\r\n",
    "zone": b"PROXY TCP6 fe80::1%eth0 ::1 40112 25\r\n",
    "unknown family": b"PROXY TCP5 192.0.2.1 198.51.100.2 40112 25\r\n",
    "UNKNOWN and more": b"PROXY UNKNOWNS\r\n",
    "not ASCII": "PROXY TCP4 192.0.2.1 198.51.100.2 ٣٣ 25\r\n".encode(),
    "a byte too long": b"PROXY UNKNOWN " + b"f" * 92 + b"\r\n",
    "version 1 of version 2": v2(command=0x11),
    "unknown command": v2(command=0x22),
    "datagrams": v2(family=0x12),
    "unknown transport": v2(family=0x10),
    "unknown address family": v2(family=0x41),
    "half the addresses": v2(TCP4[:11]),
    "unix too short": v2(bytes(215), family=0x31),
    "too much": SIGNATURE + b"\x21\x11" + struct.pack("!H", V2_MAX_REST_BYTES + 1),
    "TLV cut off in its head": v2(TCP4 + b"\x04\x00"),
    "TLV longer than the header": v2(TCP4 + struct.pack("!BH", 4, 2) + b"x"),
    "wrong checksum": with_sum(v2(), wrong_by=1),
    "checksum of three bytes": v2(TCP4 + tlv(0x03, bytes(3))),
    "TLS too short": v2(TCP4 + tlv(0x20, bytes(4))),
    "TLS with a TLV beyond it": v2(TCP4 + tlv(0x20, b"\x01" + bytes(4) + struct.pack("!BH", 0x21, 9) + b"TLSv1")),
    "TLS without version": v2(TCP4 + tls(CIPHER)),
    "version that is no word": v2(TCP4 + tls(tlv(0x21, b"TLSv1.3\r\nX: y"))),
    "cipher that is no word": v2(TCP4 + tls(VERSION, tlv(0x23, b"a b"))),
    "name not in UTF-8": v2(TCP4 + tls(VERSION, tlv(0x22, b"\xff"))),
}


@pytest.mark.parametrize("block_bytes", [0, 1, 5])
@pytest.mark.parametrize("name", GOOD)
def test_a_header_ends_where_it_ends(name: str, block_bytes: int) -> None:
    """A right header gives what it says, however it is cut, and nothing behind it is taken."""
    data, header = GOOD[name]
    assert parse(data + b"EHLO client.test\r\n", block_bytes) == (header, len(data))


@pytest.mark.parametrize("block_bytes", [0, 1, 5])
@pytest.mark.parametrize("name", BAD)
def test_a_wrong_header_is_refused(name: str, block_bytes: int) -> None:
    """What departs from the protocol is refused, however it is cut."""
    with pytest.raises(MalformedHeader):
        parse(BAD[name], block_bytes)


@pytest.mark.parametrize("name", GOOD)
def test_a_part_of_a_header_is_none(name: str) -> None:
    """No part of a header is taken for a whole one, and all of it is the header's."""
    data, _ = GOOD[name]
    for size in (1, 7, 14, len(data) - 1):
        assert parse(data[:size]) == (None, size)


@given(st.binary(max_size=300), st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE, SIGNATURE + b"\x21\x11"]))
@example(data=b"\x00\x00", start=SIGNATURE + b"\x20\x00")
def test_any_bytes_give_a_header_or_a_refusal(data: bytes, start: bytes) -> None:
    """Whatever comes, whole or byte by byte: the same header, the same end, or refused both times."""
    outcomes = []
    for block_bytes in (0, 1):
        try:
            outcomes.append(parse(start + data, block_bytes))
        except MalformedHeader:
            outcomes.append((None, -1))
    assert outcomes[0] == outcomes[1]


def test_crc32c_is_the_one_of_castagnoli() -> None:
    """The check value that every implementation states."""
    assert crc32c(b"123456789") == 0xE3069283


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A client and the non-blocking socket that it was accepted on."""
    client, accepted = socket.socketpair()
    accepted.setblocking(False)
    with client, accepted:
        yield client, accepted


async def test_what_follows_in_the_segment_stays_in_the_socket(pair: tuple[socket.socket, socket.socket]) -> None:
    """The header's bytes are taken, and whoever reads next finds the first byte behind them."""
    client, accepted = pair
    client.sendall(v2() + b"\x16\x03\x01 and so on")
    assert await read_header(accepted, timeout_s=10) == HERE
    assert accepted.recv(100) == b"\x16\x03\x01 and so on"


async def test_a_header_may_come_byte_by_byte(pair: tuple[socket.socket, socket.socket]) -> None:
    """A part of a header is taken and the rest is waited for; the socket is not readable meanwhile."""
    client, accepted = pair
    reading = asyncio.create_task(read_header(accepted, timeout_s=30))
    for octet in v2():
        assert not reading.done()
        client.sendall(bytes([octet]))
        while not reading.done():
            await asyncio.sleep(0.001)
            try:
                accepted.recv(1, socket.MSG_PEEK)
            except BlockingIOError:
                break
    assert await reading == HERE


@pytest.mark.parametrize("sent", [b"", b"PROXY ", SIGNATURE])
async def test_a_header_that_does_not_come_is_not_waited_for_long(
    pair: tuple[socket.socket, socket.socket], sent: bytes
) -> None:
    """Silence and half a header end with the time given."""
    client, accepted = pair
    client.sendall(sent)
    with pytest.raises(TimeoutError):
        await read_header(accepted, timeout_s=0.01)


@pytest.mark.parametrize("sent", [b"", b"PROXY ", SIGNATURE, v2()[:-1]])
async def test_a_peer_that_leaves_is_noticed(pair: tuple[socket.socket, socket.socket], sent: bytes) -> None:
    """Closed before the end of the header is no header."""
    client, accepted = pair
    client.sendall(sent)
    client.shutdown(socket.SHUT_WR)
    with pytest.raises(MalformedHeader):
        await read_header(accepted, timeout_s=10)


def test_no_header_is_longer_than_its_bound() -> None:
    """The longest header that is taken has exactly ``MAX_BYTES``."""
    data, _ = GOOD["v2 longest"]
    assert len(data) == MAX_BYTES
