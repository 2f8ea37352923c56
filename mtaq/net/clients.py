"""Who counts as one client: an IPv4 address, or an IPv6 /64, which is what one customer is given (RFC 6177 §2)."""

from __future__ import annotations

import socket

_MAPPED = bytes(10) + b"\xff\xff"
#: Where an IPv6 network would begin with it there is only multicast, so no two keys meet.
_IPV4 = b"\xff\xff\xff\xff"


def client_key(ip: str) -> bytes:
    """Return 8 bytes that are the same for all addresses of one client; IPv4-mapped counts as IPv4.

    Raises:
        OSError: *ip* is no IP address.
    """
    if ":" not in ip:
        return _IPV4 + socket.inet_pton(socket.AF_INET, ip)
    packed = socket.inet_pton(socket.AF_INET6, ip.partition("%")[0])
    if packed.startswith(_MAPPED):
        return _IPV4 + packed[12:]
    return packed[:8]
