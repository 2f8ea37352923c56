"""Disposition notifications and feedback reports, read."""

from __future__ import annotations

from tests.unit.reports.mails import mixed, part, read


def mdn(fields: str) -> dict[str, object] | None:
    return read(mixed(part("text/plain", "read"), part("message/disposition-notification", fields)))


def arf(fields: str) -> dict[str, object] | None:
    original = part("message/rfc822", "Message-ID: <o@local.example>\r\n\r\nbody\r\n")
    return read(mixed(part("text/plain", "spam"), part("message/feedback-report", fields), original))


def test_a_disposition() -> None:
    """What was done, how, and how it was told stand apart (RFC 8098 §3.2.6)."""
    report = mdn(
        "Reporting-UA: pc.example; Reader 1.1\r\nFinal-Recipient: rfc822;joe@example.com\r\n"
        "Original-Message-ID: <17@local.example>\r\n"
        "Disposition: manual-action/MDN-sent-automatically; Displayed/error,Expired\r\nError: odd\r\n"
    )
    assert report == {
        "type": "mdn",
        "reporting-ua": "pc.example; Reader 1.1",
        "final-recipient": "joe@example.com",
        "original-message-id": "<17@local.example>",
        "disposition": "displayed",
        "action-mode": "manual-action",
        "sending-mode": "mdn-sent-automatically",
        "modifiers": ["error", "expired"],
        "error": ["odd"],
    }


def test_a_disposition_of_another_form_stays_as_it_stands() -> None:
    """What cannot be taken apart is told whole."""
    assert mdn("Disposition: seen\r\n") == {"type": "mdn", "disposition": "seen"}


def test_a_disposition_notification_that_says_nothing_is_none() -> None:
    """There must be a recipient or a disposition."""
    assert mdn("Reporting-UA: x\r\n") is None


def test_a_complaint() -> None:
    """Words are in lower case, addresses without brackets, what may be repeated is an array, unknown fields stay."""
    report = arf(
        "Feedback-Type: Abuse\r\nUser-Agent: X/1\r\nVersion: 1\r\nOriginal-Mail-From: <a@local.example>\r\n"
        "Original-Rcpt-To: <b@isp.example>\r\nOriginal-Rcpt-To: <c@isp.example>\r\nSource-IP: 192.0.2.1 (name)\r\n"
        "Reporting-MTA: dns; mx.isp.example\r\nX-Own: yes\r\nRecipients: all\r\n"
    )
    assert report == {
        "type": "arf",
        "feedback-type": "abuse",
        "user-agent": "X/1",
        "version": "1",
        "original-mail-from": "a@local.example",
        "original-rcpt-to": ["b@isp.example", "c@isp.example"],
        "source-ip": "192.0.2.1",
        "reporting-mta": "mx.isp.example",
        "x-own": "yes",
        "original": {"message-id": "<o@local.example>"},
    }


def test_an_authentication_failure() -> None:
    """RFC 6591's fields stand beside the others, also behind a blank line."""
    report = arf("Feedback-Type: auth-failure\r\nReported-Domain: local.example\r\n\r\nAuth-Failure: DMARC\r\n")
    assert report is not None
    assert (report["auth-failure"], report["reported-domain"]) == ("dmarc", ["local.example"])


def test_a_feedback_report_that_says_nothing_is_none() -> None:
    """A part with other fields is not one."""
    assert arf("X: y\r\n") is None
    assert arf("") is None


def test_many_fields_are_bounded() -> None:
    """A hundred are kept, and of each a hundred values."""
    report = arf(
        "Feedback-Type: abuse\r\n" + "Reported-URI: x\r\n" * 300 + "".join(f"X-{n}: y\r\n" for n in range(300))
    )
    assert report is not None
    assert len(report["reported-uri"]) == 100  # type: ignore[arg-type]  # a list, by the docs
    assert len(report) <= 102
