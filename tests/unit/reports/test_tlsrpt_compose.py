"""Reports on TLS that we write."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtaq.reports import recognise
from mtaq.reports.tlsrpt import read_tlsrpt
from mtaq.reports.tlsrpt_compose import (
    MAX_DESTINATIONS,
    Failing,
    PolicyCount,
    Submitter,
    compose_mail,
    compose_report,
    destinations,
)

DAY = datetime(2026, 1, 2, tzinfo=UTC)
US = Submitter(name="out.test", contact="postmaster@out.test")
STS = PolicyCount(
    "sts",
    ("version: STSv1", "mode: enforce", "mx: *.a.test", "max_age: 86400"),
    ("*.a.test",),
    5_326,
    {
        Failing("certificate-expired", "192.0.2.1", "mx1.a.test", "mx1", "192.0.2.9", "has ended"): 100,
        Failing("starttls-not-supported", "2001:db8::1", "mx2.a.test"): 200,
    },
)
PLAIN = PolicyCount("no-policy-found", successes=1)


def report(*policies: PolicyCount) -> dict[str, Any]:
    """A report to the owner of a.test."""
    return compose_report("a.test", DAY, policies or (STS,), submitter=US, report_id="2026-01-02.abc")


def test_a_report_has_the_form_of_the_standard():
    """RFC 8460 §4.4 and Appendix B; what is not known is left out."""
    assert report(STS, PLAIN) == {
        "organization-name": "out.test",
        "date-range": {"start-datetime": "2026-01-02T00:00:00Z", "end-datetime": "2026-01-02T23:59:59Z"},
        "contact-info": "postmaster@out.test",
        "report-id": "2026-01-02.abc",
        "policies": [
            {
                "policy": {"policy-type": "no-policy-found", "policy-domain": "a.test"},
                "summary": {"total-successful-session-count": 1, "total-failure-session-count": 0},
            },
            {
                "policy": {
                    "policy-type": "sts",
                    "policy-string": ["version: STSv1", "mode: enforce", "mx: *.a.test", "max_age: 86400"],
                    "policy-domain": "a.test",
                    "mx-host": ["*.a.test"],
                },
                "summary": {"total-successful-session-count": 5_326, "total-failure-session-count": 300},
                "failure-details": [
                    {
                        "result-type": "certificate-expired",
                        "sending-mta-ip": "192.0.2.1",
                        "receiving-mx-hostname": "mx1.a.test",
                        "receiving-mx-helo": "mx1",
                        "receiving-ip": "192.0.2.9",
                        "failed-session-count": 100,
                        "failure-reason-code": "has ended",
                    },
                    {
                        "result-type": "starttls-not-supported",
                        "sending-mta-ip": "2001:db8::1",
                        "receiving-mx-hostname": "mx2.a.test",
                        "failed-session-count": 200,
                    },
                ],
            },
        ],
    }


def test_what_is_written_is_read():
    """By our own reader, out of the mail that carries it."""
    made = report()
    content = compose_mail(made, "a.test", "tls@a.test", day=DAY, now=DAY + timedelta(days=1), submitter=US)
    read = recognise(content, envelope="")
    assert read is not None
    assert (read.type, read.properties["tls-report"]) == ("tlsrpt", made)
    assert read_tlsrpt([orjson.dumps(made)]).properties["tls-report"] == made


def test_the_mail_has_its_fields():
    """RFC 8460 §5.3, and the file's name of §5.1; sent whatever is wrong with TLS (RFC 8689 §5)."""
    content = compose_mail(report(), "a.test", "tls@a.test", day=DAY, now=DAY + timedelta(days=1), submitter=US)
    assert all(len(line) <= 998 and line.isascii() for line in content.split(b"\r\n"))
    assert b"\n" not in content.replace(b"\r\n", b"")
    mail = message_from_bytes(content, policy=policy.SMTP)
    assert mail["From"] == "postmaster@out.test"
    assert mail["To"] == "tls@a.test"
    assert mail["Subject"] == "Report Domain: a.test Submitter: out.test Report-ID: <2026-01-02.abc@out.test>"
    assert (mail["TLS-Report-Domain"], mail["TLS-Report-Submitter"], mail["TLS-Required"]) == (
        "a.test",
        "out.test",
        "No",
    )
    assert mail.get_content_type() == "multipart/report"
    assert mail.get_param("report-type") == "tlsrpt"
    text, attached = mail.iter_parts()
    assert "a.test" in text.get_content()
    assert attached.get_content_type() == "application/tlsrpt+gzip"
    assert attached.get_filename() == "out.test!a.test!1767312000!1767398399!2026-01-02.abc.json.gz"
    assert orjson.loads(gzip.decompress(attached.get_content())) == report()


def test_what_strangers_wrote_is_cleaned():
    """A host may call itself anything."""
    count = PolicyCount("sts", failures={Failing("validation-failure", mx_helo="mx\x00\r\n" + "x" * 500): 1})
    [detail] = report(count)["policies"][0]["failure-details"]
    assert detail["receiving-mx-helo"] == "mx???" + "x" * 245


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (b"v=TLSRPTv1; rua=mailto:reports@a.test", ("reports@a.test",)),
        (b"v=TLSRPTv1;rua=MAILTO:a%2Bb@a.test,https://a.test/x;", ("a+b@a.test", "https://a.test/x")),
        (b"v=TLSRPTv1; rua=mailto:a@a.test?subject=x , mailto:a@a.test", ("a@a.test",)),
        (b"v=TLSRPTv1; x=y; rua=mailto:a@a.test; rua=mailto:b@a.test", ("a@a.test",)),
        (b"v=TLSRPTv1; rua=http://a.test/", ()),
        (b"v=TLSRPTv1; rua=mailto:a@a.test%0D%0ABcc: b@b.test", ()),
        (b"v=TLSRPTv1; rua=mailto:<a@a.test>", ()),
        (b"v=TLSRPTv1; rua=mailto:a@" + b"x" * 254, ()),
        (b"v=TLSRPTv1; rua=\xff", ()),
        (b"v=TLSRPTv1;", ()),
        (b"v=TLSRPTv2; rua=mailto:a@a.test", ()),
        (b"rua=mailto:a@a.test; v=TLSRPTv1;", ()),
    ],
)
def test_destinations(record, expected):
    """RFC 8460 §3: addresses and URLs, and nothing that could be more than that."""
    assert destinations([(b"other",), (record,)]) == expected
    assert destinations([(record[:5], record[5:])]) == expected


def test_two_records_are_none_and_destinations_are_bounded():
    """RFC 8460 §3."""
    record = b"v=TLSRPTv1; rua=" + b",".join(b"mailto:%d@a.test" % number for number in range(50))
    assert len(destinations([(record,)])) == MAX_DESTINATIONS
    assert destinations([(record,), (record,)]) == ()


@given(st.binary(max_size=200))
def test_nonsense_is_nowhere(data):
    """Any octets give addresses, URLs or nothing."""
    for each in destinations([(b"v=TLSRPTv1; rua=" + data,)]):
        assert each.isprintable()
        assert "@" in each or each.lower().startswith("https://")
