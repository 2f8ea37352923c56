"""Notices of ours: what they hold, that nobody can write into them, and that we and others can read them."""

from __future__ import annotations

import email
import email.policy
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage, Message
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtaq.mime.headers import fields
from mtaq.model.identity import transaction_id
from mtaq.reports import recognise
from mtaq.reports.dsn_compose import RETURN_BYTES, RETURN_HEADER_BYTES, compose_notice, is_internationalised
from mtaq.reports.notice import Kind, Original, RecipientStatus

NOW = datetime(2026, 3, 1, 12, 0, 30, 999, tzinfo=UTC)
OUR_ID = transaction_id("relay1", now=NOW, random=bytes(range(10)))
CONTENT = (
    f"Received: from laptop by relay1.example.org with ESMTP\r\n\tid {OUR_ID}; x\r\n"
    "From: ada@example.org\r\nTo: gone@remote.example\r\nSubject: =?utf-8?q?caf=C3=A9?=\r\n"
    "Message-ID: <orig@example.org>\r\n\r\nhello\r\n.\r\n"
).encode()
ORIGINAL = Original(
    envelope="ada@example.org",
    content=CONTENT,
    envelope_id="QQ314159",
    arrived_at=datetime(2026, 3, 1, 9, tzinfo=UTC),
    received_from="laptop.example.org",
)
FAILED = RecipientStatus(
    recipient="gone@remote.example",
    action="failed",
    status="5.1.1",
    original_recipient="rfc822;Gone@remote.example",
    diagnostic="550 5.1.1 no such user",
    remote_mta="mail.remote.example",
    last_attempt_at=NOW,
)
DELAYED = replace(FAILED, action="delayed", status="4.2.2", diagnostic=None, will_retry_until=NOW + timedelta(days=1))


def compose(
    kind: Kind = "failure", original: Original = ORIGINAL, *recipients: RecipientStatus, **options: Any
) -> bytes:
    """Compose a notice about one failed recipient, unless others are given; every line of it is one."""
    content = compose_notice(
        kind, original, recipients or (FAILED,), hostname="relay1.example.org",
        sender="MAILER-DAEMON@relay1.example.org", identity="relay1.7", now=NOW, **options,
    )  # fmt: skip
    for line in content.split(b"\r\n"):
        assert len(line) <= 998
        assert b"\r" not in line
        assert b"\n" not in line
        assert b"\0" not in line
    return content


def parsed(content: bytes) -> tuple[Message, list[Message]]:
    """Read a notice with Python's package; return it and its three parts."""
    message = email.message_from_bytes(content)
    assert message.get_content_type() == "multipart/report"
    assert message.get_param("report-type") == "delivery-status"
    parts = message.get_payload()
    assert isinstance(parts, list)
    assert len(parts) == 3
    assert not message.defects
    return message, parts  # type: ignore[return-value]  # messages, as the type says


def told(content: bytes) -> dict[str, Any]:
    """Read a notice with our own parser."""
    report = recognise(content, envelope="")
    assert report is not None
    return report.to_json()


def text_of(content: bytes) -> str:
    """Return the part for people, on one line."""
    message = email.message_from_bytes(content, policy=email.policy.default)
    part = next(iter(message.iter_parts()))
    assert isinstance(part, EmailMessage)
    return " ".join(str(part.get_content()).split())


def test_we_read_what_we_write() -> None:
    """Every value comes back, the original with our own id as well."""
    assert told(compose()) == {
        "type": "dsn",
        "original-envelope-id": "QQ314159",
        "reporting-mta": "relay1.example.org",
        "received-from-mta": "laptop.example.org",
        "arrival-date": "Sun, 01 Mar 2026 09:00:00 +0000",
        "recipients": [
            {
                "original-recipient": "Gone@remote.example",
                "final-recipient": "gone@remote.example",
                "action": "failed",
                "status": "5.1.1",
                "remote-mta": "mail.remote.example",
                "diagnostic-code": "smtp; 550 5.1.1 no such user",
                "last-attempt-date": "Sun, 01 Mar 2026 12:00:30 +0000",
            }
        ],
        "original": {
            "message-id": "<orig@example.org>",
            "from": "ada@example.org",
            "to": "gone@remote.example",
            "subject": "café",
            "mtaq-id": OUR_ID,
        },
    }


def test_others_read_it_too() -> None:
    """Python's package finds the fields of RFC 3464 and RFC 3834, and three parts."""
    message, (text, status, returned) = parsed(compose())
    assert message["From"] == "Mail Delivery System <MAILER-DAEMON@relay1.example.org>"
    assert message["To"] == "<ada@example.org>"
    assert message["Auto-Submitted"] == "auto-replied"
    assert message["Message-ID"] == "<relay1.7@relay1.example.org>"
    assert message["References"] == message["In-Reply-To"] == "<orig@example.org>"
    assert text.get_content_type() == "text/plain"
    groups = status.get_payload()
    assert groups[0]["Reporting-MTA"] == "dns; relay1.example.org"  # type: ignore[index]  # messages
    assert groups[1]["Final-Recipient"] == "rfc822; gone@remote.example"  # type: ignore[index]  # messages
    assert returned.get_content_type() == "text/rfc822-headers"


def test_the_same_arguments_give_the_same_octets() -> None:
    """There is neither a clock nor chance in it."""
    assert compose() == compose()


def test_the_text_says_what_happened() -> None:
    """Whom it is about, what our words for it are, what the peer said, which message."""
    text = text_of(compose())
    for said in (
        "could not be delivered",
        "will not be tried again",
        "gone@remote.example",
        "there is no such mailbox (5.1.1)",
        "mail.remote.example said: 550 5.1.1 no such user",
        "Subject: café",
        "2026-03-01 09:00 UTC",
    ):
        assert said in text


def test_a_delay() -> None:
    """Until when it is tried stands in both parts, and nothing needs to be done."""
    content = compose("delay", ORIGINAL, DELAYED)
    assert told(content)["recipients"][0]["will-retry-until"] == "Mon, 02 Mar 2026 12:00:30 +0000"
    assert "need not" in text_of(content)
    assert "2026-03-02 12:00 UTC" in text_of(content)
    assert "the mailbox is full (4.2.2)" in text_of(content)


@pytest.mark.parametrize(
    ("action", "said"),
    [
        ("delivered", "delivered to the mailbox"),
        ("relayed", "handed on to mail.remote.example"),
        ("expanded", "sent on"),
    ],
)
def test_a_success(action: Any, said: str) -> None:
    """Delivered, or handed to somebody who tells nothing further; the subject knows which."""
    content = compose("success", ORIGINAL, replace(FAILED, action=action, status="2.0.0"))
    assert told(content)["recipients"][0]["action"] == action
    assert said in text_of(content)
    assert (b"Subject: Your message was delivered\r\n" in content) is (action == "delivered")


def test_our_own_reason() -> None:
    """Where no peer replied, there is no diagnostic, and the text has our words."""
    reason = "no host took it before 2026-03-01 12:00 UTC"
    own = replace(FAILED, diagnostic=None, remote_mta=None, status="5.4.7", explanation=reason)
    content = compose("failure", ORIGINAL, own)
    assert "diagnostic-code" not in told(content)["recipients"][0]
    assert f"{reason} (5.4.7)" in text_of(content)


def test_several_recipients() -> None:
    """Each has its group of fields, and its place in the text."""
    others = [replace(FAILED, recipient=f"r{number}@remote.example") for number in range(50)]
    content = compose("failure", ORIGINAL, *others)
    assert [one["final-recipient"] for one in told(content)["recipients"]] == [one.recipient for one in others]
    assert "the recipients below" in text_of(content)


def returned(content: bytes) -> tuple[str, bytes]:
    """Return type and octets of the part that came back."""
    part = parsed(content)[1][2]
    start = content.index(part.as_bytes().partition(b"\n\n")[2][:20].replace(b"\n", b"\r\n"), content.index(b"rfc822"))
    return part.get_content_type(), content[start : content.rindex(b"\r\n--=_")]


def test_what_comes_back() -> None:
    """RET=FULL: all of it, byte for byte. RET=HDRS, or nothing failed: the header section (RFC 3461 §4.3)."""
    full = replace(ORIGINAL, ret="FULL")
    header = CONTENT.partition(b"\r\n\r\n")[0] + b"\r\n"
    assert returned(compose("failure", full)) == ("message/rfc822", CONTENT)
    assert returned(compose("failure", ORIGINAL)) == ("text/rfc822-headers", header)
    assert returned(compose("delay", full, DELAYED)) == ("text/rfc822-headers", header)
    success = replace(FAILED, action="delivered", status="2.1.5")
    assert returned(compose("success", full, success)) == ("text/rfc822-headers", header)


@pytest.mark.parametrize(
    "body",
    [b"x" * 80 + b"\r\n", b"bare \r here\r\n", b"nul \0 here\r\n", b"x" * 999 + b"\r\n"],
    ids=["too large", "bare CR", "NUL", "long line"],
)
def test_what_cannot_come_back_whole(body: bytes) -> None:
    """A large or binary original comes back as its header section, whatever RET says."""
    limit = RETURN_BYTES if len(body) != 82 else len(CONTENT) + 81
    full = replace(ORIGINAL, ret="FULL", content=CONTENT + body)
    assert returned(compose("failure", full, max_return_bytes=limit))[0] == "text/rfc822-headers"


def test_a_header_section_is_bounded() -> None:
    """What is beyond the bound is cut before a field, not inside of one."""
    fields_ = b"".join(b"X-Field-%d: %s\r\n\t%s\r\n" % (number, b"x" * 50, b"y" * 50) for number in range(2000))
    kind, octets = returned(compose("failure", replace(ORIGINAL, content=CONTENT[:80] + b"\r\n" + fields_ + b"\r\n")))
    assert kind == "text/rfc822-headers"
    assert RETURN_HEADER_BYTES - 500 < len(octets) <= RETURN_HEADER_BYTES
    assert octets.endswith(b"y" * 50 + b"\r\n")


def test_lines_of_scripts() -> None:
    """Content with LF alone comes back with CRLF."""
    full = replace(ORIGINAL, ret="FULL", content=CONTENT.replace(b"\r\n", b"\n"))
    assert returned(compose("failure", full)) == ("message/rfc822", CONTENT)


def test_eight_bit_content() -> None:
    """The part, and so the whole, says that it is 8bit; its text does not need it."""
    full = replace(ORIGINAL, ret="FULL", content=CONTENT + b"\xff\xfe\r\n")
    message, parts = parsed(compose("failure", full))
    assert message["Content-Transfer-Encoding"] == parts[2]["Content-Transfer-Encoding"] == "8bit"
    assert parts[0]["Content-Transfer-Encoding"] == "quoted-printable"
    assert not is_internationalised(full, [FAILED])


UTF8 = replace(FAILED, recipient="幸@remote.example", original_recipient="utf-8;幸\\+@remote.example", status="5.6.7")


def test_beyond_ascii_for_who_can_read_it() -> None:
    """A sender that asked for SMTPUTF8 gets the types of RFC 6533, with addresses as they are."""
    original = replace(ORIGINAL, smtputf8=True, envelope="ädä@example.org", ret="FULL")
    assert is_internationalised(original, [UTF8])
    content = compose("failure", original, UTF8)
    kinds = [part.get_content_type() for part in parsed(content)[1]]
    assert kinds == ["text/plain", "message/global-delivery-status", "message/global"]
    assert "Final-Recipient: utf-8; 幸@remote.example\r\n".encode() in content
    assert "To: <ädä@example.org>\r\n".encode() in content
    assert told(content)["recipients"][0]["final-recipient"] == "幸@remote.example"
    assert compose("delay", original, replace(UTF8, action="delayed")).count(b"message/global-headers") == 1


def test_beyond_ascii_for_everybody_else() -> None:
    """Without it the fields for machines are ASCII, and the same addresses can be read from them."""
    assert not is_internationalised(ORIGINAL, [UTF8])
    content = compose("failure", ORIGINAL, UTF8)
    assert content.isascii()
    assert b"Original-Recipient: utf-8; \\x{5E78}\\x{5C}\\x{2B}@remote.example\r\n" in content
    recipient = told(content)["recipients"][0]
    assert recipient["final-recipient"] == "幸@remote.example"
    assert recipient["original-recipient"] == "幸\\+@remote.example"
    assert "幸@remote.example" in text_of(content)


def test_plain_addresses_need_no_smtputf8() -> None:
    """That a sender asked for it is not enough to need it."""
    assert not is_internationalised(replace(ORIGINAL, smtputf8=True), [FAILED])


def test_no_notice_about_a_notice() -> None:
    """The null reverse-path gets none (RFC 3464 §2), and a kind is about its own actions."""
    with pytest.raises(ValueError, match="null reverse-path"):
        compose("failure", replace(ORIGINAL, envelope=""))
    for kind, recipient in (("failure", DELAYED), ("delay", FAILED), ("success", FAILED)):
        with pytest.raises(ValueError, match="recipients that are"):
            compose(kind, ORIGINAL, recipient)  # type: ignore[arg-type]  # one of the kinds
    with pytest.raises(ValueError, match="recipients that are"):
        compose_notice("failure", ORIGINAL, [], hostname="x", sender="x@y", identity="1", now=NOW)


HOSTILE = "x\r\nBcc: eve@example.net\r\n\r\n--=_0.relay1.7\r\n\u2028\u202e\0" + "y" * 5000


def test_nobody_writes_into_it() -> None:
    """Line ends, delimiters, invisible signs and endless words in any value change nothing but that value."""
    original = replace(
        ORIGINAL, envelope_id=HOSTILE, received_from=HOSTILE, content=f"Subject: {HOSTILE[:20]}\r\n".encode() + CONTENT
    )
    hostile = replace(FAILED, diagnostic=HOSTILE, remote_mta=HOSTILE, original_recipient=f"rfc822;{HOSTILE}",
                      explanation=HOSTILE, status=HOSTILE)  # fmt: skip
    content = compose("failure", original, hostile)
    message, _ = parsed(content)
    assert message["Bcc"] is None
    assert [field.name for field in fields(content)].count(b"To") == 1
    assert len(told(content)["recipients"]) == 1
    assert len(text_of(content)) < 8000
    assert "\u202e" not in text_of(content)


def test_a_boundary_never_occurs_in_the_original() -> None:
    """Also when somebody guessed it."""
    guessed = b"".join(b"--=_%d.relay1.7\r\n" % number for number in range(5))
    content = compose("failure", replace(ORIGINAL, ret="FULL", content=CONTENT + guessed))
    assert returned(content) == ("message/rfc822", CONTENT + guessed)


@given(st.binary(max_size=300), st.text(max_size=50), st.text(max_size=50), st.booleans())
def test_whatever_is_in_it(content: bytes, diagnostic: str, address: str, smtputf8: bool) -> None:
    """Any content and any values give a notice that we can read, with one recipient."""
    original = replace(ORIGINAL, content=content, ret="FULL", smtputf8=smtputf8)
    one = replace(
        FAILED, diagnostic=diagnostic, recipient=f"{address}@x.example", original_recipient=f"utf-8;{address}"
    )
    assert len(told(compose("failure", original, one))["recipients"]) == 1
