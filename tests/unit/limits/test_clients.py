"""Which addresses are one client."""

from __future__ import annotations

import pytest

from mtaq.limits.clients import client_key


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("fe80::1%eth0", "fe80::1", True),
        ("::1", "::", True),
        ("::ffff:0:192.0.2.1", "192.0.2.1", False),
        ("64:ff9b::192.0.2.1", "192.0.2.1", False),
    ],
)
def test_who_is_one_client(one: str, other: str, same: bool) -> None:
    """An IPv4 address however it is written, an IPv6 /64."""
    assert (client_key(one) == client_key(other)) is same
    assert len(client_key(one)) == 8


@pytest.mark.parametrize("text", ["", "localhost", "192.0.2", "1.2.3.4.5", "2001:db8::g", "%", ":"])
def test_what_is_no_address(text: str) -> None:
    """It is an error, and no key."""
    with pytest.raises(ValueError, match="does not appear to be an IPv4 or IPv6 address"):
        client_key(text)
