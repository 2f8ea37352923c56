"""Who counts as one client: an IPv4 address, or an IPv6 /64, which is what one customer is given (RFC 6177 §2)."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv6Address, ip_address

#: Where an IPv6 network would begin with it there is only multicast, so no two keys meet.
_IPV4 = b"\xff\xff\xff\xff"


@lru_cache(maxsize=16384)
def client_key(ip: str) -> bytes:
    """Return 8 bytes that are the same for all addresses of one client; IPv4-mapped counts as IPv4.

    Raises:
        ValueError: *ip* is no IP address.
    """
    address = ip_address(ip)
    if not isinstance(address, IPv6Address):
        return _IPV4 + address.packed
    mapped = address.ipv4_mapped
    return address.packed[:8] if mapped is None else _IPV4 + mapped.packed
