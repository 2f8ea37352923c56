"""A message between the last dot and the queues."""

from __future__ import annotations

from typing import Any

import pytest

from mtaq.model.address import Address
from mtaq.model.errors import BadMessage
from mtaq.receive.draft import Draft
from mtaq.smtp.dsn import RecipientDsn
from mtaq.smtp.server_events import Transaction
from tests.unit.receive.fakes import NOW, facts, policy

ONE, TWO, THREE, NEW = (Address(name, "example.com") for name in ("one", "two", "three", "new"))
CONTENT = b"Subject: hello\r\n\r\nhello\r\n"


def draft(content: bytes = CONTENT, **transaction: Any) -> Draft:
    """Return a draft for three recipients."""
    begun = Transaction(reverse_path=Address("ada", "example.org"), forward_paths=[ONE, TWO, THREE], **transaction)
    return Draft.of(begun, content, facts(policy()), identity="srv.id", now=NOW)


def ids(made: Draft) -> dict[str, str]:
    """Return the id of each recipient."""
    return {str(one.address): one.message_id for one in made.recipients}


def test_operators_code_sees_one_object() -> None:
    """All recipients stand in one list, the id is the part that they share, the content is text where it can be."""
    seen = draft().to_json()
    assert seen["recipients"] == ["one@example.com", "two@example.com", "three@example.com"]
    assert (seen["message-id"], seen["mime"], seen["size"]) == ("srv.id", CONTENT.decode(), len(CONTENT))
    assert "recipient" not in seen
    assert "mime-base64" in draft(b"Subject: \xff\r\n\r\n").to_json()


def test_what_the_session_was_stays() -> None:
    """Whatever an operator's code writes there, ids, connection and time are what they were."""
    made = draft()
    seen = made.to_json()
    made.change(seen | {"connection": {}, "received": "1970-01-01 00:00:00", "size": 1, "tags": ["a"]}, [ONE])
    now = made.to_json()
    assert now == seen | {"tags": ["a"], "recipients": ["one@example.com"]}


def test_recipients_keep_their_ids() -> None:
    """Who stays has the id that the client was told, in any order; who comes has one that nobody had."""
    made = draft()
    made.change(made.to_json(), [THREE, NEW, ONE])
    assert ids(made) == {
        "three@example.com": "srv.id.3", "new@example.com": "srv.id.4", "one@example.com": "srv.id.1",
    }  # fmt: skip


def test_an_id_that_was_told_never_means_another() -> None:
    """The id of a recipient whom a hook took away is not given to one whom a step adds."""
    made = draft()
    made.change(made.to_json(), [ONE])
    made.change(made.to_json(), [ONE, NEW])
    assert ids(made) == {"one@example.com": "srv.id.1", "new@example.com": "srv.id.4"}


def test_a_recipient_given_twice_has_two_ids() -> None:
    """Two messages with one id would be taken for one."""
    made = draft()
    made.change(made.to_json(), [ONE, ONE])
    assert [one.message_id for one in made.recipients] == ["srv.id.1", "srv.id.4"]


@pytest.mark.parametrize("message", [{}, {"mime": 1}, {"mime-base64": "?"}])
def test_content_of_the_wrong_form(message: dict[str, Any]) -> None:
    """A message whose content is missing or no text is none."""
    with pytest.raises(BadMessage):
        draft().change(message, [ONE])


def test_dsn_parameters_are_each_recipients_own() -> None:
    """RET and ENVID stand with everybody, NOTIFY and ORCPT with whom they were given for."""
    made = draft(ret="HDRS", envid="x", dsn={1: RecipientDsn(("SUCCESS", "DELAY"), "rfc822;two@example.com")})
    assert [one.properties for one in made.recipients] == [
        {"dsn": {"ret": "HDRS", "envid": "x"}},
        {"dsn": {"ret": "HDRS", "envid": "x", "notify": "SUCCESS,DELAY", "orcpt": "rfc822;two@example.com"}},
        {"dsn": {"ret": "HDRS", "envid": "x"}},
    ]


def test_content_is_not_in_the_representation() -> None:
    """What is logged of a draft by mistake holds no mail."""
    assert "hello" not in repr(draft())
