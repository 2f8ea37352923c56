from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtaq.model.address import Address
from mtaq.state.entries import (
    KINDS,
    LocalAddress,
    client_network,
    end_after,
    parse_ip,
    parse_name,
    parse_network,
    parse_note,
    parse_pattern,
)
from mtaq.state.local_addresses import LocalAddresses
from mtaq.state.patterns import compiled

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ANN = Address("ann", "example.com")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Ann@Example.COM", ("ann@example.com", "exact")),
        ("*@Example.COM", ("*@example.com", "wildcard")),
        ("a?@example.com", ("a?@example.com", "wildcard")),
        ("*@*.xn--bcher-kva.example", ("*@*.bücher.example", "wildcard")),
        ("*@[192.0.2.1]", ("*@[192.0.2.1]", "wildcard")),
        ("POSTMASTER", ("postmaster", "exact")),
    ],
)
def test_the_kind_is_seen(text, expected):
    """A star or a question mark makes a wildcard; both kinds have one spelling."""
    assert parse_pattern(text) == expected


def test_the_kind_is_said():
    """A star can be meant as it stands, and a regular expression stays as it was written."""
    assert parse_pattern("a*b@example.com", "exact") == ("a*b@example.com", "exact")
    assert parse_pattern(r"A.+@example\.com", "regex") == (r"A.+@example\.com", "regex")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("", None),
        ("ann", None),
        ("@example.com", None),
        ("ann@", None),
        ("ann@exa mple.com", None),
        ("*", None),
        ("*@", None),
        ("@*", None),
        ("*@exa..mple", None),
        ("*@[x]", None),
        ("", "regex"),
        ("a\nb", "regex"),
        ("a\x00@example.com", None),
        ("*\x1b@example.com", None),
        ("\ud800*@example.com", None),
        ("a" * 501, "regex"),
    ],
)
def test_bad_patterns(text, kind):
    """What is no pattern is refused with what is expected."""
    with pytest.raises(ValueError, match=r"expected|valid"):
        parse_pattern(text, kind)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("192.0.2.1", "192.0.2.1/32"),
        ("192.0.2.0/24", "192.0.2.0/24"),
        ("2001:DB8::1", "2001:db8::1/128"),
        ("::ffff:192.0.2.1", "192.0.2.1/32"),
    ],
)
def test_networks(text, expected):
    """A network has one spelling; an address is a network of its own."""
    assert str(parse_network(text)) == expected


@pytest.mark.parametrize("text", ["192.0.2.1/24", "192.0.2", "x", "", "192.0.2.0/33", "1" * 10_000])
def test_bad_networks(text):
    """What is no network is refused; bits behind the prefix are told with the network meant."""
    with pytest.raises(ValueError, match="expected"):
        parse_network(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("192.0.2.1", "192.0.2.1/32"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8::/48", "2001:db8::/48"),
        ("::ffff:192.0.2.1", "192.0.2.1/32"),
    ],
)
def test_a_client_is_a_network(text, expected):
    """An IPv6 client changes its address within its /64 as it likes, so all of that is one client."""
    assert str(client_network(text)) == expected


def test_ends_are_whole_seconds():
    """An entry never ends too early, although its end is kept to the second."""
    now = datetime(2026, 3, 1, 12, 0, 0, 1, tzinfo=UTC)
    assert end_after(now, 10) == datetime(2026, 3, 1, 12, 0, 11, tzinfo=UTC)
    assert end_after(now.replace(microsecond=0), 10) - now.replace(microsecond=0) == timedelta(seconds=10)


def test_addresses_and_names():
    """An address has one spelling, a name is a domain or an address literal."""
    assert parse_ip("2001:DB8:0::1") == "2001:db8::1"
    assert parse_name("Mail.Example.COM") == "mail.example.com"
    for parse, text in ((parse_ip, "192.0.2.1/24"), (parse_name, "no name"), (parse_name, "a\r\nb")):
        with pytest.raises(ValueError, match="expected"):
            parse(text)


@pytest.mark.parametrize("text", ["a\nb", "\x1b[31mred", "x" * 501])
def test_bad_notes(text):
    """A note cannot break the line of a log or a terminal."""
    with pytest.raises(ValueError, match="expected"):
        parse_note(text, "the reason")


@given(st.text(max_size=60), st.sampled_from([None, *KINDS]))
def test_any_pattern(text, kind):
    """Any text is a pattern or a mistake, and a pattern read again is itself."""
    try:
        pattern, found = parse_pattern(text, kind)
        if found != "exact":
            compiled(pattern, found)
    except ValueError:
        return
    LocalAddresses([LocalAddress(pattern=pattern, kind=found, created_at=NOW)]).find(ANN)
    if found == "wildcard":
        assert parse_pattern(pattern, found) == (pattern, found)


@given(st.text(max_size=60))
def test_any_text(text):
    """Any text is a value or a mistake, never another failure."""
    for parse in (parse_network, client_network, parse_ip, parse_name, lambda note: parse_note(note, "the note")):
        with contextlib.suppress(ValueError):
            parse(text)
