"""Sets of IP addresses as operators write them: ``192.168.0.0/16;2001:db8::/32``.

Answers "is this peer in it?" for every connection, so answers are remembered. An IPv4-mapped IPv6 address counts as the
IPv4 address it carries (RFC 4291 §2.5.5.2), in the list and in the question.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    collapse_addresses,
    ip_address,
    ip_network,
)

Network = IPv4Network | IPv6Network

LOOPBACK: tuple[Network, ...] = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
EVERYTHING: tuple[Network, ...] = (ip_network("0.0.0.0/0"), ip_network("::/0"))

_REMEMBERED = 4096
_GLOBAL_UNICAST = IPv6Network("2000::/3")


def plain_address(text: str) -> IPv4Address | IPv6Address:
    """Parse an IP address; an IPv4-mapped one comes back as IPv4.

    Raises:
        ValueError: Not an IP address.
    """
    address = ip_address(text)
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def plain_network(text: str) -> Network:
    """Parse a network or a single address; ``::ffff:192.0.2.0/120`` comes back as ``192.0.2.0/24``.

    Raises:
        ValueError: Not a network, or one with bits set behind its prefix.
    """
    network = ip_network(text)
    mapped = network.network_address.ipv4_mapped if isinstance(network, IPv6Network) else None
    if mapped is not None and network.prefixlen >= 96:
        return IPv4Network((mapped, network.prefixlen - 96))
    return network


class Ranges:
    """An immutable set of IP addresses.

    Attributes:
        networks: What is in it.
        excluding: What is taken out again.
    """

    __slots__ = ("_answers", "excluding", "networks")

    def __init__(self, networks: Iterable[Network] = (), excluding: Iterable[Network] = ()) -> None:
        self.networks = tuple(networks)
        self.excluding = tuple(excluding)
        self._answers: dict[str, bool] = {}

    def contains(self, ip_text: str) -> bool:
        """Is this address in the set? What is no IP address (a Unix socket's peer) is in no set."""
        answer = self._answers.get(ip_text)
        if answer is None:
            if len(self._answers) >= _REMEMBERED:
                self._answers.clear()
            answer = self._answers[ip_text] = self._look_up(ip_text)
        return answer

    def _look_up(self, ip_text: str) -> bool:
        try:
            address = plain_address(ip_text)
        except ValueError:
            return False
        return _any_holds(self.networks, address) and not _any_holds(self.excluding, address)

    @property
    def covers_internet(self) -> bool:
        """Does it hold at least half of IPv4, or half of IPv6's global unicast addresses (RFC 4291 §2.4)?

        Half, because ``0.0.0.0/1`` opens the door to strangers just as ``0.0.0.0/0`` does.
        """
        v4 = collapse_addresses(network for network in self.networks if isinstance(network, IPv4Network))
        v6 = collapse_addresses(network for network in self.networks if isinstance(network, IPv6Network))
        return (
            sum(network.num_addresses for network in v4) >= 2**31
            or sum(_global_unicast_size(network) for network in v6) >= _GLOBAL_UNICAST.num_addresses // 2
        )

    def __bool__(self) -> bool:
        return bool(self.networks)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Ranges):
            return NotImplemented
        return (self.networks, self.excluding) == (other.networks, other.excluding)

    def __hash__(self) -> int:
        return hash((self.networks, self.excluding))

    def __repr__(self) -> str:
        without = f" without {';'.join(map(str, self.excluding))}" if self.excluding else ""
        return f"Ranges({';'.join(map(str, self.networks))}{without})"


def _any_holds(networks: tuple[Network, ...], address: IPv4Address | IPv6Address) -> bool:
    return any(address in network for network in networks)


def _global_unicast_size(network: IPv6Network) -> int:
    if _GLOBAL_UNICAST.subnet_of(network):
        return _GLOBAL_UNICAST.num_addresses
    return network.num_addresses if network.subnet_of(_GLOBAL_UNICAST) else 0
