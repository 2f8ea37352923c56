"""Delivery status notifications, read."""

from __future__ import annotations

import base64
from datetime import UTC, datetime

import pytest

from mtaq.model.identity import transaction_id
from tests.unit.reports.mails import STATUS, dsn_mail, mixed, part, read

OUR_ID = transaction_id("relay1", now=datetime(2026, 3, 1, tzinfo=UTC), random=bytes(range(10)))
RETURNED = f"""Received: from relay1.example by mx.remote.example id 7\r
Received: from client by relay1.example with ESMTP\r
 id {OUR_ID}\r
 for <gone@remote.example>; x\r
Message-ID: <orig@local.example>\r
From: =?utf-8?q?Zo=C3=AB?= <me@local.example>\r
Subject: hi\r
"""


def test_what_happened_to_a_recipient() -> None:
    """Addresses and hosts come without their types, the diagnostic with its own and on one line."""
    assert read(dsn_mail()) == {
        "type": "dsn",
        "reporting-mta": "mx.remote.example",
        "arrival-date": "Fri, 20 Nov 2026 09:00:00 +0000",
        "recipients": [
            {
                "original-recipient": "Gone@remote.example",
                "final-recipient": "gone@remote.example",
                "action": "failed",
                "status": "5.1.1",
                "remote-mta": "mail.remote.example",
                "diagnostic-code": "smtp; 550 5.1.1 no such user",
            }
        ],
    }


@pytest.mark.parametrize("kind", ["message/rfc822", "text/rfc822-headers", "message/global", "message/global-headers"])
def test_the_original_message(kind: str) -> None:
    """Of what came back there are the fields that identify it, and the id under which we once relayed it."""
    report = read(dsn_mail(returned=part(kind, RETURNED + "\r\nbody\r\n")))
    assert report is not None
    assert report["original"] == {
        "message-id": "<orig@local.example>",
        "from": "Zoë <me@local.example>",
        "subject": "hi",
        "mtaq-id": OUR_ID,
    }


def test_several_recipients() -> None:
    """Each group of fields behind the first is one recipient, in order."""
    status = STATUS + "\r\nFinal-Recipient: rfc822;late@remote.example\r\nAction: Delayed\r\nStatus: 4.2.2\r\n"
    report = read(dsn_mail(status))
    assert report is not None
    assert [(one["final-recipient"], one["action"]) for one in report["recipients"]] == [
        ("gone@remote.example", "failed"),
        ("late@remote.example", "delayed"),
    ]


@pytest.mark.parametrize(
    ("field", "name", "value"),
    [
        ("Action: failed (bad destination)", "action", "failed"),
        ("Status: 5.0.0 (permanent)", "status", "5.0.0"),
        ("Final-Recipient: <gone@remote.example>", "final-recipient", "gone@remote.example"),
        ("Final-Recipient: RFC822;<gone@remote.example>", "final-recipient", "gone@remote.example"),
        ("Final-Recipient: utf-8; \\x{5E78}@remote.example", "final-recipient", "幸@remote.example"),
        ("Final-Recipient: utf-8; 幸@remote.example", "final-recipient", "幸@remote.example"),
        ("Final-Recipient: utf-8; \\x{D800}@remote.example", "final-recipient", "\\x{D800}@remote.example"),
        ("Final-Recipient: rfc822; \\x{5E78}@remote.example", "final-recipient", "\\x{5E78}@remote.example"),
        ("Diagnostic-Code: smtp;\t550\r\n   no", "diagnostic-code", "smtp; 550 no"),
    ],
)
def test_values_are_cleaned(field: str, name: str, value: str) -> None:
    """Comments, brackets, types and escapes are taken off (RFC 3464 §2.1, RFC 6533 §3)."""
    others = "Action: failed\r\nFinal-Recipient: rfc822;x@y.example\r\n"
    report = read(dsn_mail(f"{field}\r\n{others}", kind="message/global-delivery-status"))
    assert report is not None
    assert report["recipients"][0][name] == value


def test_a_status_in_base64() -> None:
    """The part may be encoded (RFC 6533 §6)."""
    encoded = base64.encodebytes(STATUS.encode())
    body = b"Content-Type: message/global-delivery-status\r\nContent-Transfer-Encoding: base64\r\n\r\n" + encoded
    report = read(mixed(body, top="multipart/report"))
    assert report is not None
    assert report["recipients"][0]["status"] == "5.1.1"


@pytest.mark.parametrize("line_end", ["\r\n", "\n"])
@pytest.mark.parametrize("between", ["", "  ", "\t"])
def test_groups_are_parted_by_blank_lines(line_end: str, between: str) -> None:
    """Whatever the line ends are, and blanks in the line."""
    status = STATUS.replace("\r\n\r\n", f"\r\n{between}\r\n{between}\r\n").replace("\r\n", line_end)
    report = read(dsn_mail(status))
    assert report is not None
    assert report["reporting-mta"] == "mx.remote.example"
    assert len(report["recipients"]) == 1


def test_without_recipients() -> None:
    """A notice that names nobody is one all the same, and a part that says nothing is none."""
    report = read(dsn_mail("Reporting-MTA: dns; mx.remote.example\r\n"))
    assert report == {"type": "dsn", "reporting-mta": "mx.remote.example", "recipients": []}
    assert read(dsn_mail("")) is None
    assert read(dsn_mail("It could not be delivered.\r\n")) is None


def test_the_second_part_that_says_something_counts() -> None:
    """Prose in a part of that type does not hide the one with the fields."""
    report = read(mixed(part("message/delivery-status", "sorry\r\n"), part("message/delivery-status", STATUS)))
    assert report is not None
    assert len(report["recipients"]) == 1


def test_a_forwarded_notice_is_none() -> None:
    """Who sends us somebody's bounce as an attachment does not send a bounce."""
    assert read(mixed(part("text/plain", "look"), part("message/rfc822", dsn_mail()), boundary="outer")) is None


def test_a_notice_inside_of_one() -> None:
    """A filter that sends a bounce on inside of a mail of its own, as a mail system does, is looked through."""
    wrapped = mixed(part("text/plain", "checked"), part("message/rfc822", dsn_mail()), boundary="outer")
    report = read(wrapped, "")
    assert report is not None
    assert report["recipients"][0]["status"] == "5.1.1"


def test_many_recipients_are_bounded() -> None:
    """A thousand are read, and of those as many told as there is room for."""
    group = "\r\nFinal-Recipient: rfc822;x@remote.example\r\nAction: failed\r\nDiagnostic-Code: smtp; {}\r\n"
    content = dsn_mail("Reporting-MTA: dns; mx\r\n" + group.format("x" * 3000) * 3000)
    report = read(content)
    assert report is not None
    assert report["truncated"] is True
    assert 100 < len(report["recipients"]) < 1000
    short = read(dsn_mail("Reporting-MTA: dns; mx\r\n" + group.format("550") * 3000))
    assert short is not None
    assert (short["truncated"], len(short["recipients"])) == (True, 1000)
    assert max(len(one["diagnostic-code"]) for one in report["recipients"]) == 2000
