"""Which entries hold from here to there."""

from __future__ import annotations

import pytest

from mtaq.model.control import Scope
from mtaq.state.control_entries import pause
from mtaq.state.scopes import ScopeTable
from tests.support.control import about

SITE = "mx1.example.net,mx2.example.net"


def found(*scopes: Scope, **asked: object) -> list[Scope]:
    table = ScopeTable(pause(scope, about=about()) for scope in scopes)
    where = {"source": "192.0.2.1", "pools": ("bulk",), "domain": "a.b.example.com", "site": SITE} | asked
    return [entry.scope for entry in table.find(**where)]


IN_ORDER = [
    Scope(source="192.0.2.1", domain="a.b.example.com"),
    Scope(pool="bulk", domain="a.b.example.com"),
    Scope(domain="a.b.example.com"),
    Scope(source="192.0.2.1", domain="*.b.example.com"),
    Scope(domain="*.example.com"),
    Scope(domain="*.com"),
    Scope(site=SITE),
    Scope(pool="bulk", site="mx1.example.net"),
    Scope(site="mx2.example.net"),
    Scope(source="192.0.2.1", site="*.example.net"),
    Scope(site="*.net"),
    Scope(source="192.0.2.1"),
    Scope(pool="bulk"),
    Scope(),
]


def test_the_most_specific_first():
    """The destination counts before the source; narrower before wider."""
    assert found(*reversed(IN_ORDER)) == IN_ORDER


@pytest.mark.parametrize(
    "scope",
    [
        Scope(source="192.0.2.2"),
        Scope(pool="other"),
        Scope(domain="b.example.com"),
        Scope(domain="*.a.b.example.com"),
        Scope(site="mx3.example.net"),
        Scope(site="a.b.example.com"),
        Scope(domain="mx1.example.net"),
        Scope(source="192.0.2.1", domain="example.org"),
    ],
)
def test_what_does_not_hold(scope):
    """Another source, pool, domain or site; a wildcard does not hold the domain that it stands below."""
    assert found(scope, Scope(source="192.0.2.9")) == []


def test_letters_of_a_site():
    """A smarthost may be written in any case."""
    assert found(Scope(site="relay.example.org"), site="Relay.Example.ORG") == [Scope(site="relay.example.org")]


def test_what_is_not_known():
    """Before there is a route or a source, entries about them do not hold."""
    assert found(*IN_ORDER, source=None, pools=(), site=None) == [
        Scope(domain="a.b.example.com"),
        Scope(domain="*.example.com"),
        Scope(domain="*.com"),
        Scope(),
    ]


def test_tags_and_senders():
    """An entry about a tag or a sender holds for messages with that tag, from that sender."""
    entries = [
        pause(Scope(), tag="spring", about=about()),
        pause(Scope(), sender_domain="shop.example", about=about()),
        pause(Scope(), sender_domain="", about=about()),
        pause(Scope(), tag="spring", sender_domain="shop.example", about=about()),
    ]
    table = ScopeTable(entries)

    def holds(tags: tuple[str, ...], sender: str) -> set[int]:
        return {entries.index(entry) for entry in table.find(None, (), "example.com", None, tags, sender)}

    assert holds((), "other.example") == set()
    assert holds(("autumn", "spring"), "other.example") == {0}
    assert holds((), "shop.example") == {1}
    assert holds(("spring",), "shop.example") == {0, 1, 3}
    assert holds((), "") == {2}


def test_the_same_again():
    """An entry takes the place of the one with its id, at once."""
    table = ScopeTable([pause(Scope(), about=about(reason="one"))])
    assert [entry.reason for entry in table.find(None, (), "example.com", None)] == ["one"]
    table.add(pause(Scope(), about=about(reason="two")))
    assert [entry.reason for entry in table.find(None, (), "example.com", None)] == ["two"]
