"""The header by which a proxy tells us who its client is: the PROXY protocol of HAProxy, versions 1 and 2.

Bytes in, a ``ProxyHeader`` out; whether a peer may send one at all is the listener's matter. A header that departs from
the protocol in any way raises ``MalformedHeader``: who trusts half of it trusts a stranger.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from mtaq.model.message import TlsFacts

#: Longest line of version 1, its CRLF included: the protocol's own figure.
V1_MAX_BYTES = 107

#: What stands before the addresses of version 2: signature, version and command, family, length.
V2_FIXED_BYTES = 16

#: Longest rest of version 2 taken. The addresses need 216 bytes at most and haproxy's TLVs some hundred more; nginx
#: reads no more than 4096 either, so nobody sends more.
V2_MAX_REST_BYTES = 4096

#: No header is longer.
MAX_BYTES = V2_FIXED_BYTES + V2_MAX_REST_BYTES

_V1_START = b"PROXY "
_V2_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_LOCAL, _PROXY = 0x20, 0x21
_UNSPEC, _TCP4, _TCP6, _UNIX = 0x00, 0x11, 0x21, 0x31
#: Family and transport → bytes of its addresses and ports.
_ADDRESS_BYTES = {_UNSPEC: 0, _TCP4: 12, _TCP6: 36, _UNIX: 216}

_TYPE_CRC32C, _TYPE_SSL = 0x03, 0x20
_SSL_VERSION, _SSL_CN, _SSL_CIPHER = 0x21, 0x22, 0x23
_CLIENT_SSL, _CLIENT_CERT = 0x01, 0x02 | 0x04

_parse_v1 = re.compile(
    rb"PROXY (?:(UNKNOWN)(?: [^\r\n]*)?|(TCP[46]) ([0-9A-Fa-f:.]+) ([0-9A-Fa-f:.]+)"
    rb" (0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4}))\r\n"
).fullmatch
_is_word = re.compile(r"[!-~]{1,100}").fullmatch


class MalformedHeader(ValueError):
    """These bytes are no PROXY header; says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyHeader:
    """What a proxy told of one connection.

    Attributes:
        is_local: The proxy speaks for itself, to see whether we are well: it has no client.
        source: The client's address and port; ``None`` when the proxy cannot tell, then its own count.
        destination: The address and port that the client connected to; ``None`` together with *source*.
        tls: The TLS between client and proxy; ``None`` when they spoke in clear, or nothing was told. Its cipher is
            empty when only the version was told.
        client_name: Common name of the client's certificate, if the proxy verified one.
    """

    is_local: bool = False
    source: tuple[str, int] | None = None
    destination: tuple[str, int] | None = None
    tls: TlsFacts | None = None
    client_name: str | None = None


class HeaderParser:
    """Takes a header in blocks of any size.

    Attributes:
        header: What it said; ``None`` until it is complete.
    """

    def __init__(self) -> None:
        self.header: ProxyHeader | None = None
        self._start = bytearray()

    @property
    def begun(self) -> bool:
        """Has anything come?"""
        return bool(self._start)

    def feed(self, data: bytes) -> int:
        """
        Look at the next *data*, and return how many bytes of it are the header's. What follows is the client's.

        Raises:
            MalformedHeader: This cannot become a header any more.
        """
        known = len(self._start)
        self._start += data
        end = _end(self._start)
        if end is None:
            return len(data)
        self.header = _parsed(bytes(self._start[:end]))
        return end - known


def _end(start: bytearray) -> int | None:
    """Return the length of the header that begins with *start*, or ``None`` when it is not there whole."""
    if _V2_SIGNATURE.startswith(start[: len(_V2_SIGNATURE)]):
        return _end_of_v2(start)
    if _V1_START.startswith(start[: len(_V1_START)]):
        return _end_of_v1(start)
    raise MalformedHeader("no PROXY header")


def _end_of_v1(start: bytearray) -> int | None:
    end = start.find(b"\n", 0, V1_MAX_BYTES) + 1
    if end:
        return end
    if len(start) >= V1_MAX_BYTES:
        raise MalformedHeader(f"no end of line within {V1_MAX_BYTES} bytes")
    return None


def _end_of_v2(start: bytearray) -> int | None:
    if len(start) > 12 and start[12] not in (_LOCAL, _PROXY):
        raise MalformedHeader(f"version and command {start[12]:#04x} are unknown")
    if len(start) < V2_FIXED_BYTES:
        return None
    rest_bytes = int.from_bytes(start[14:16], "big")
    if rest_bytes > V2_MAX_REST_BYTES:
        raise MalformedHeader(f"{rest_bytes} bytes are announced, more than {V2_MAX_REST_BYTES}")
    end = V2_FIXED_BYTES + rest_bytes
    return end if len(start) >= end else None


def _parsed(header: bytes) -> ProxyHeader:
    return _parsed_v1(header) if header.startswith(_V1_START) else _parsed_v2(header)


def _parsed_v1(line: bytes) -> ProxyHeader:
    match = _parse_v1(line)
    if match is None:
        raise MalformedHeader("the line is none of version 1")
    if match[1]:  # whatever follows is to be ignored
        return ProxyHeader()
    family = IPv4Address if match[2] == b"TCP4" else IPv6Address
    try:
        source, destination = (_ip_text(family(ip.decode("ascii"))) for ip in (match[3], match[4]))
    except ValueError:
        raise MalformedHeader("an address is none of its family") from None
    source_port, destination_port = int(match[5]), int(match[6])
    if max(source_port, destination_port) > 65535:
        raise MalformedHeader("a port is above 65535")
    return ProxyHeader(source=(source, source_port), destination=(destination, destination_port))


def _parsed_v2(header: bytes) -> ProxyHeader:
    if header[12] == _LOCAL:  # whatever else it says is to be ignored, the family as well
        return ProxyHeader(is_local=True)
    family = header[13]
    if family not in _ADDRESS_BYTES:
        raise MalformedHeader(f"family and transport {family:#04x} are none of a TCP connection")
    if family == _UNSPEC:  # nobody knows where its addresses end
        return ProxyHeader()
    tlvs_start = V2_FIXED_BYTES + _ADDRESS_BYTES[family]
    if len(header) < tlvs_start:
        raise MalformedHeader("too short for its addresses")
    source, destination = _endpoints(family, header[V2_FIXED_BYTES:tlvs_start])
    tls, client_name = None, None
    for kind, start, value in _tlvs(header, tlvs_start):
        if kind == _TYPE_CRC32C:
            _check_sum(header, start, value)
        elif kind == _TYPE_SSL:
            tls, client_name = _tls_facts(value)
    return ProxyHeader(source=source, destination=destination, tls=tls, client_name=client_name)


def _endpoints(family: int, block: bytes) -> tuple[tuple[str, int] | None, tuple[str, int] | None]:
    if family == _UNIX:
        return None, None
    ip = IPv4Address if family == _TCP4 else IPv6Address
    size = (len(block) - 4) // 2
    source_port, destination_port = struct.unpack("!HH", block[2 * size :])
    return (_ip_text(ip(block[:size])), source_port), (_ip_text(ip(block[size : 2 * size])), destination_port)


def _ip_text(address: IPv4Address | IPv6Address) -> str:
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)


def _tlvs(block: bytes, position: int) -> Iterator[tuple[int, int, bytes]]:
    """Yield type, place of the value and value of each TLV from *position* on; they must fill the block."""
    while position < len(block):
        if position + 3 > len(block):
            raise MalformedHeader("a TLV is cut off")
        kind, size = struct.unpack_from("!BH", block, position)
        position += 3
        if position + size > len(block):
            raise MalformedHeader("a TLV is longer than what holds it")
        yield kind, position, block[position : position + size]
        position += size


def _tls_facts(block: bytes) -> tuple[TlsFacts | None, str | None]:
    if len(block) < 5:
        raise MalformedHeader("too short for what it tells of TLS")
    client, verify = struct.unpack_from("!BI", block)
    told = {kind: _text(value) for kind, _, value in _tlvs(block, 5) if kind in (_SSL_VERSION, _SSL_CN, _SSL_CIPHER)}
    if not client & _CLIENT_SSL:
        return None, None
    version, cipher = told.get(_SSL_VERSION, ""), told.get(_SSL_CIPHER, "")
    if not _is_word(version) or (cipher and not _is_word(cipher)):
        raise MalformedHeader("the version or the cipher of TLS is no word")
    # "Verified" is also said of a client that has no certificate.
    verified = client & _CLIENT_CERT and verify == 0
    return TlsFacts(version=version, cipher=cipher), told.get(_SSL_CN) if verified else None


def _text(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        raise MalformedHeader("a text is not UTF-8") from None


def _check_sum(header: bytes, start: int, value: bytes) -> None:
    """The sum is made over the whole header, with zeros in its own place."""
    if len(value) != 4 or crc32c(header[:start] + bytes(4) + header[start + 4 :]) != int.from_bytes(value, "big"):
        raise MalformedHeader("the checksum is wrong")


def crc32c(data: bytes) -> int:
    """Return the CRC-32C (Castagnoli) of *data*: some 0.1 µs a byte, for the few headers that carry one."""
    crc = 0xFFFFFFFF
    for octet in data:
        crc = _CRC_TABLE[(crc ^ octet) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def _crc_row(octet: int) -> int:
    for _ in range(8):
        octet = (octet >> 1) ^ (0x82F63B78 if octet & 1 else 0)
    return octet


_CRC_TABLE = tuple(_crc_row(octet) for octet in range(256))
