"""Addresses that the sink listens on, as its options and scripts spell them: one, or several in a row.

Pure. What has another form raises ``ValueError`` with what is expected.
"""

from __future__ import annotations

import ipaddress
from typing import NamedTuple

from mtaq.config.values import integer

FORM = "IP:PORT, or 127.0.0.2-9:PORT for several"

_port = integer(0, 65_535)


class Place(NamedTuple):
    """Where a sink listens."""

    ip: str
    port: int


def parse_places(text: str) -> list[Place]:
    """
    Read ``127.0.0.1:2526``, ``[::1]:2526`` or ``127.0.0.2-9:2526``.

    Raises:
        ValueError: It is none of them.
    """
    ips, _, port = text.rpartition(":")
    try:
        first, last = _range(ips)
        return [Place(str(first + number), _port(port)) for number in range(int(last) - int(first) + 1)]
    except ValueError as error:
        raise ValueError(f"{text!r}: {FORM} is expected") from error


class Places(NamedTuple):
    """Which of them are meant: from address to address, at a port or at any (``None``)."""

    first: ipaddress.IPv4Address | ipaddress.IPv6Address
    last: ipaddress.IPv4Address | ipaddress.IPv6Address
    port: int | None

    def __contains__(self, place: object) -> bool:
        if not isinstance(place, Place) or self.port not in (None, place.port):
            return False
        ip = ipaddress.ip_address(place.ip)
        return ip.version == self.first.version and int(self.first) <= int(ip) <= int(self.last)

    @classmethod
    def parse(cls, text: str) -> Places:
        """
        Read what ``parse_places`` reads, with or without a port.

        Raises:
            ValueError: It is neither.
        """
        try:
            if "-" not in text:
                ip = ipaddress.ip_address(text.strip("[]"))
                return cls(ip, ip, None)
        except ValueError:
            pass  # then there is a port
        ips, colon, port = text.rpartition(":")
        try:
            return cls(*_range(ips if colon else text), _port(port) if colon else None)
        except ValueError as error:
            raise ValueError(f"{text!r}: IP, IP:PORT or 127.0.0.2-9 is expected") from error


def _range(
    text: str,
) -> tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """The last octet of an IPv4 address may be two, the ends of a row."""
    front, dash, end = text.partition("-")
    first = ipaddress.ip_address(front.removeprefix("[").removesuffix("]"))
    if not dash:
        return first, first
    last = ipaddress.IPv4Address(f"{front.rpartition('.')[0]}.{end}")
    if last < ipaddress.IPv4Address(front):
        raise ValueError("the end is before the beginning")
    return first, last
