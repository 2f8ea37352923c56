"""The copy for ``smtp-archive``: one more recipient, of whom the sender never hears."""

from __future__ import annotations

import json

from mtaq.model.address import Address
from mtaq.model.codec import encode_inbox
from mtaq.receive.draft import Draft
from mtaq.smtp.server_events import Transaction
from tests.unit.receive.fakes import NOW, facts, policy

JOURNAL = Address("journal", "archive.test")


def draft(**properties: object) -> Draft:
    """Return a draft for two recipients."""
    transaction = Transaction(
        reverse_path=Address("ada", "example.org"),
        forward_paths=[Address("grace", "example.com"), Address("bob", "example.net")],
    )
    made = Draft.of(transaction, b"Subject: hello\r\n\r\n", facts(policy()), identity="srv.id", now=NOW)
    made.properties |= properties
    return made


def published(made: Draft, address: Address | None) -> dict[str, dict[str, object]]:
    """Return the JSON of each recipient, by its address."""
    recipients = made.with_copy_to(address)
    objects = [json.loads(body) for _, body in encode_inbox(made.properties, recipients, made.content)]
    return {one["recipient"]: one for one in objects}


def test_the_archive_is_one_more_recipient() -> None:
    """It has an id of its own, and a failure to store it is nobody's business."""
    found = published(draft(), JOURNAL)
    assert list(found) == ["grace@example.com", "bob@example.net", "journal@archive.test"]
    assert found["journal@archive.test"]["message-id"] == "srv.id.3"
    assert found["journal@archive.test"]["dsn"] == {"notify": "NEVER"}
    assert "dsn" not in found["grace@example.com"]


def test_notices_that_the_sender_wants_are_about_his_recipients() -> None:
    """What was asked for all of them does not hold for the archive."""
    found = published(draft(dsn={"notify": "SUCCESS"}), JOURNAL)
    assert found["bob@example.net"]["dsn"] == {"notify": "SUCCESS"}
    assert found["journal@archive.test"]["dsn"] == {"notify": "NEVER"}


def test_whoever_is_the_archive_gets_the_message_once() -> None:
    """Mail to the archive itself is there already, with its sender's wishes."""
    found = draft().with_copy_to(Address("bob", "example.net"))
    assert [str(one.address) for one in found] == ["grace@example.com", "bob@example.net"]


def test_without_an_archive_nothing_changes() -> None:
    """The recipients are those of the transaction."""
    assert len(published(draft(dsn={"notify": "SUCCESS"}), None)) == 2
