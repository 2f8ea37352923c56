"""Sets of IP addresses."""

from __future__ import annotations

import pytest

from mtaq.config.addresses import mappable_ranges, ranges
from mtaq.config.ranges import Ranges


@pytest.mark.parametrize(
    ("written", "inside", "outside"),
    [
        ("192.0.2.0/24", "192.0.2.255", "192.0.3.0"),
        ("192.0.2.1", "192.0.2.1", "192.0.2.2"),
        ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
        ("10.0.0.0/8;2001:db8::1", "2001:db8::1", "::1"),
        ("192.0.2.0/24", "::ffff:192.0.2.9", "::ffff:192.0.3.9"),
        ("::ffff:192.0.2.0/120", "192.0.2.9", "192.0.3.9"),
        ("0.0.0.0/0", "203.0.113.1", "2001:db8::1"),
        ("fe80::/10", "fe80::1%eth0", "fec0::1"),
    ],
)
def test_contains(written, inside, outside):
    """An address is in the set exactly when a network holds it; an IPv4-mapped one counts as IPv4."""
    found = ranges(written)
    assert found.contains(inside)
    assert not found.contains(outside)


def test_answers_stay_the_same_however_many_are_asked():
    """Remembered answers never replace right ones, also when more are asked than are remembered."""
    found = ranges("10.0.0.0/17")
    addresses = [f"10.0.{high}.{low}" for high in range(100, 150) for low in range(0, 256, 2)]
    for _ in range(2):
        assert [found.contains(text) for text in addresses] == [int(text.split(".")[2]) < 128 for text in addresses]


@pytest.mark.parametrize("text", ["", "unix", "192.0.2", "192.0.2.1:25"])
def test_what_is_no_address_is_in_no_set(text):
    """A peer without an IP address is in no set, not even in one of everything."""
    assert not ranges("0.0.0.0/0;::/0").contains(text)


def test_empty_holds_nobody():
    """An empty value is a set that holds nobody."""
    assert not ranges("")
    assert not ranges("").contains("127.0.0.1")


def test_non_loopback_is_every_address_but_loopback():
    """``non-loopback`` holds every address that leaves this host."""
    found = mappable_ranges("non-loopback")
    assert found.contains("192.0.2.1")
    assert found.contains("2001:db8::1")
    assert not found.contains("127.0.0.2")
    assert not found.contains("::1")
    assert not found.contains("::ffff:127.0.0.1")


@pytest.mark.parametrize(
    "written",
    ["0.0.0.0/0", "::/0", "0.0.0.0/1", "0.0.0.0/2;64.0.0.0/2", "2000::/3", "2000::/4", "10.0.0.0/8;0.0.0.0/0"],
)
def test_covers_internet(written):
    """Half of IPv4 or of IPv6's global addresses is taken for the Internet, however it is cut up."""
    assert ranges(written).covers_internet


@pytest.mark.parametrize("written", ["", "10.0.0.0/8;192.168.0.0/16", "0.0.0.0/2", "2001:db8::/32", "fc00::/7"])
def test_does_not_cover_internet(written):
    """A network of one's own is not the Internet."""
    assert not ranges(written).covers_internet


def test_equal_sets_are_equal_whatever_was_asked_before():
    """Two sets are equal when they hold the same networks, and remembered answers do not count."""
    first, second = ranges("10.0.0.0/8"), ranges("10.0.0.0/8")
    first.contains("10.0.0.1")
    assert first == second
    assert hash(first) == hash(second)
    assert first != ranges("10.0.0.0/9")
    assert first != Ranges()
