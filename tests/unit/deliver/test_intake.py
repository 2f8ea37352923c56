"""What came out of the outbox."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from mtaq.deliver.intake import key_of, must_ask_journal


def consumed(body: bytes = b"{}", message_id: str = "m1", **properties):
    return SimpleNamespace(body=body, message_id=message_id, **{"redelivered": False, "headers": {}, **properties})


def test_the_key_names_one_publish():
    """The same for every redelivery; another body or another message_id is another message."""
    assert key_of(consumed()) == key_of(consumed(redelivered=True, headers={"x-delivery-count": 1}))
    keys = [key_of(consumed(body, name)) for body, name in [(b"{}", "m1"), (b"{}", "m2"), (b"{ }", "m1"), (b"{}", "")]]
    assert len(set(keys)) == 4
    assert key_of(consumed(b"b", "a")) != key_of(consumed(b"", "a\0b"))


@pytest.mark.parametrize(
    ("properties", "attempts", "contested", "expected"),
    [
        ({}, 0, False, False),
        ({"redelivered": True}, 0, False, True),
        ({"headers": {"redelivered": True}}, 0, False, True),
        ({"headers": {"redelivered": False}}, 0, False, False),
        ({}, 1, False, True),
        ({}, 0, True, True),
        ({"message_id": ""}, 1, True, False),
        ({"message_id": "", "redelivered": True}, 0, False, True),
    ],
)
def test_the_journal_is_asked_when_there_may_be_an_entry(properties, attempts, contested, expected):
    """Not for fresh messages: that would cost, and equal JSON without a message_id must not be mistaken."""
    assert must_ask_journal(consumed(**properties), attempts=attempts, contested=contested) is expected
