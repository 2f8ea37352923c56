"""Which addresses are this host's own, and which belong to nobody out there?

Reads Linux's ``/proc/net``; where that is missing, an address is own when it can be bound.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Sequence
from pathlib import Path

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_Ip = ipaddress.IPv4Address | ipaddress.IPv6Address

_FIB_LOCAL = re.compile(r"\|-- ([\d.]+)((?:\n +/\d+ .*)+)")
_FIB_LOCAL_PREFIX = re.compile(r"/(\d+) host LOCAL")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
#: All that was ever given to anybody (RFC 4291 §2.4); outside of it are more ways to write an IPv4 address (RFC 4291
#: §2.5.5.1, RFC 8215).
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")


def own_addresses(proc_net: Path = Path("/proc/net")) -> tuple[Network, ...]:
    """
    Return every address of this host: single ones (/32, /128), and networks of which each address is local.

    Read from ``fib_trie``, the kernel's table of IPv4 routes, where own addresses are of type LOCAL, and ``if_inet6``,
    its list of IPv6 addresses. Empty when there is no such file.
    """
    return tuple(sorted(_own_v4(proc_net), key=str)) + tuple(sorted(_own_v6(proc_net), key=str))


def is_own(ip: str, networks: Sequence[Network] | None = None) -> bool:
    """
    Would a connection to *ip* end on this host?

    Args:
        networks: From ``own_addresses``; asked for anew when ``None``.
    """
    address = _plain(ip)
    if address.is_loopback or address.is_unspecified:
        return True
    if networks is None:
        networks = own_addresses()
    return any(address in network for network in networks) if networks else can_bind(str(address))


def is_loopback(ip: str) -> bool:
    """Is *ip* in 127.0.0.0/8 or ::1?"""
    return _plain(ip).is_loopback


def is_private(ip: str) -> bool:
    """Is *ip* one that cannot be reached on the Internet: loopback, private, link-local, shared, reserved, multicast?

    Addresses that carry an IPv4 address (mapped, 6to4, NAT64) are judged by that.
    """
    address = _plain(ip)
    if isinstance(address, ipaddress.IPv6Address) and address not in _GLOBAL_UNICAST:
        return True
    return not address.is_global or address.is_multicast


def can_bind(ip: str) -> bool:
    """Could a connection leave from *ip* now?"""
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            sock.bind((ip, 0))
    except OSError:
        return False
    return True


def _own_v4(proc_net: Path) -> set[Network]:
    found: set[Network] = set()
    for address, lines in _FIB_LOCAL.findall(_read(proc_net / "fib_trie")):
        for prefix in _FIB_LOCAL_PREFIX.findall(lines):
            found.add(ipaddress.IPv4Network(f"{address}/{prefix}"))
    return found


def _own_v6(proc_net: Path) -> set[Network]:
    words = (line.split() for line in _read(proc_net / "if_inet6").splitlines())
    return {ipaddress.IPv6Network((bytes.fromhex(line[0]), 128)) for line in words if line}


def _read(path: Path) -> str:
    try:
        return path.read_text("ascii")
    except OSError:
        return ""


def _plain(ip: str) -> _Ip:
    address = ipaddress.ip_address(ip)
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(address.packed[12:])
    return address.ipv4_mapped or address.sixtofour or address
