"""Suppressions and forced errors."""

from __future__ import annotations

from datetime import timedelta

import pytest

from mtaq.model.address import Address
from mtaq.state import recipients
from mtaq.state.control_entries import forced_error, suppression
from tests.support.control import START, Clock, about, control

ANN = Address("Ann", "example.com")


def suppressed(*entries, recipient: Address = ANN, sender: str = "shop.example", tags: tuple[str, ...] = ()) -> bool:
    live = control()
    live.suppressions.change(entries, ())
    return live.suppression_for(recipient, sender_domain=sender, tags=tags) is not None


@pytest.mark.parametrize(
    ("pattern", "fields", "expected"),
    [
        ("ann@example.com", {}, True),
        ("example.com", {}, True),
        ("a*@example.com", {}, True),
        ("*.com", {}, True),
        ("bob@example.com", {}, False),
        ("*.example.com", {}, False),
        ("ann@example.com", {"sender_domain": "shop.example"}, True),
        ("ann@example.com", {"sender_domain": "other.example"}, False),
        ("ann@example.com", {"sender_domain": ""}, False),
        ("example.com", {"tag": "spring"}, True),
        ("example.com", {"tag": "autumn"}, False),
        ("example.com", {"tag": "spring", "sender_domain": "shop.example"}, True),
        ("a*@example.com", {"tag": "autumn"}, False),
        ("a*@example.com", {"tag": "spring", "sender_domain": "shop.example"}, True),
        ("a*@example.com", {"sender_domain": "other.example"}, False),
    ],
)
def test_who_is_suppressed(pattern, fields, expected):
    """Addresses, domains and wildcards; where it says so only for a sender or a tag."""
    assert suppressed(suppression(pattern, about=about(), **fields), tags=("x", "spring")) is expected


def test_what_a_suppression_says():
    """Reason and end come back with the answer."""
    live = control()
    live.suppressions.change([suppression("example.com", about=about(reason="asked to", for_s=60))], ())
    found = live.suppression_for(ANN, sender_domain="", tags=())
    assert (found.pattern, found.reason, found.expires_at) == ("example.com", "asked to", START + timedelta(seconds=60))


@pytest.mark.parametrize("pattern", ["ann@example.com", "a*@example.com"])
def test_changes(pattern):
    """Entries are added, replaced, removed, and end by the clock."""
    clock = Clock()
    live = control(clock=clock)

    def reason() -> str | None:
        found = live.suppression_for(ANN, sender_domain="", tags=())
        return None if found is None else found.reason

    for text in ("one", "two"):
        live.suppressions.change([suppression(pattern, about=about(reason=text, for_s=60))], ())
        assert (reason(), len(live.suppressions)) == (text, 1)
    clock.now = START + timedelta(seconds=60)
    assert reason() is None
    live.suppressions.forget_ended(START + timedelta(seconds=59))
    assert len(live.suppressions) == 1
    live.suppressions.forget_ended(clock.now)
    assert len(live.suppressions) == 0
    live.suppressions.change([suppression(pattern, about=about())], ())
    live.suppressions.change((), [suppression(pattern, about=about())])
    assert (reason(), len(live.suppressions)) == (None, 0)


def test_too_many_reasons(monkeypatch):
    """Beyond so many different reasons an entry has none, and holds all the same."""
    monkeypatch.setattr(recipients, "MOST_REASONS", 2)
    live = control()
    live.suppressions.change([suppression(f"{n}@example.com", about=about(reason=str(n))) for n in range(4)], ())
    reasons = [live.suppression_for(Address(str(n), "example.com"), sender_domain="", tags=()).reason for n in range(4)]
    assert reasons == ["0", "1", "", ""]


def test_the_most_specific_forced_error():
    """An address goes before its domain, and that before wildcards; one that does not hold is passed over."""
    errors = [
        forced_error("*@*.com", code=450, text="wide", about=about()),
        forced_error("*.com", code=450, text="below", about=about()),
        forced_error("example.com", code=550, text="domain", about=about()),
        forced_error("ann@example.com", code=550, text="tag", tag="spring", about=about()),
        forced_error("ann@example.com", code=550, text="sender", sender_domain="shop.example", about=about()),
    ]

    def text(*, sender: str = "", tags: tuple[str, ...] = (), recipient: Address = ANN) -> str | None:
        found = control(*errors).forced_error_for(recipient, sender_domain=sender, tags=tags)
        return None if found is None else found.text

    assert text(tags=("spring",)) == "tag"
    assert text(sender="shop.example") == "sender"
    assert text() == "domain"
    assert text(recipient=Address("ann", "example.org")) is None
    assert text(recipient=Address("ann", "sub.example.com")) == "below"
