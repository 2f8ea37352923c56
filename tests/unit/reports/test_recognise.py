"""Which mail is looked at, which is a report, and how long what is said of it may be."""

from __future__ import annotations

import gzip

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtaq.reports import Report, may_be_report, recognise
from tests.unit.reports.mails import (
    AGGREGATE,
    TLS_REPORT,
    aggregate_mail,
    attachment,
    dsn_mail,
    mixed,
    part,
    read,
    zipped,
)

NAME = "reporter.example!local.example!1700000000!1700086399"


@pytest.mark.parametrize(
    ("carrier", "kind"),
    [
        (attachment("application/gzip", gzip.compress(AGGREGATE)), "dmarc"),
        (attachment("application/octet-stream", gzip.compress(AGGREGATE), f"{NAME}.xml.gz"), "dmarc"),
        (attachment("application/octet-stream", zipped(("r.xml", AGGREGATE)), f"{NAME}.zip"), "dmarc"),
        (attachment("application/x-zip-compressed", zipped(("r.xml", AGGREGATE))), "dmarc"),
        (attachment("application/whatever", AGGREGATE, f"{NAME}.xml"), "dmarc"),
        (part("text/xml", AGGREGATE), "dmarc"),
        (attachment("text/xml", AGGREGATE.decode().encode("utf-16")), "dmarc"),
        (attachment("application/tlsrpt+gzip", gzip.compress(TLS_REPORT)), "tlsrpt"),
        (part("application/tlsrpt+json", TLS_REPORT), "tlsrpt"),
        (attachment("application/gzip", gzip.compress(TLS_REPORT), "r.json.gz"), "tlsrpt"),
    ],
)
@pytest.mark.parametrize("alone", [True, False])
def test_carriers(carrier: bytes, kind: str, alone: bool) -> None:
    """A report is found in whatever carries it, alone or beside a text."""
    content = b"From: a@reporter.example\r\n" + carrier if alone else mixed(part("text/plain", "see"), carrier)
    assert may_be_report(content, "a@reporter.example")
    report = read(content)
    assert report is not None
    assert report["type"] == kind


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"Subject: hello\r\n\r\nhello\r\n",
        b"Subject: Report Domain: x\r\n\r\nhello\r\n",
        mixed(part("text/plain", "hello"), part("text/html", "<p>hello"), top="multipart/alternative"),
        mixed(part("text/plain", "hello"), attachment("application/pdf", b"%PDF-1.7", "a.pdf")),
        mixed(part("text/plain", "hello"), attachment("application/octet-stream", zipped(("a", b"b")), "a.docx")),
        mixed(part("text/plain", "hello"), attachment("application/octet-stream", b"MZ", "a.zip")),
    ],
)
def test_ordinary_mail_is_not_even_read(content: bytes) -> None:
    """The quick look is enough for it."""
    assert not may_be_report(content, "ada@example.org")
    assert recognise(content, envelope="ada@example.org") is None


@pytest.mark.parametrize(
    "content",
    [
        mixed(part("text/plain", "x"), attachment("application/zip", zipped(("thesis.xml", b"<thesis/>")))),
        mixed(part("text/plain", "x"), attachment("application/gzip", gzip.compress(bytes(30_000_000)))),
        mixed(part("text/plain", "x"), attachment("application/json", b'{"a":1}')),
        aggregate_mail(AGGREGATE[:-20]),
        mixed(part("text/plain", "x"), top="multipart/report; report-type=delivery-status"),
    ],
    ids=["other XML", "bomb", "other JSON", "cut", "no machine-readable part"],
)
def test_what_turns_out_to_be_none(content: bytes) -> None:
    """Looked at, and ordinary mail."""
    assert may_be_report(content, "ada@example.org")
    assert recognise(content, envelope="ada@example.org") is None


def test_a_second_carrier_counts_when_the_first_is_none() -> None:
    """A picture in an archive does not hide the report."""
    carriers = [attachment("application/zip", zipped(("a.xml", b"<a/>"))), attachment("text/xml", AGGREGATE)]
    assert read(mixed(*carriers)) is not None


def nested(depth: int, inner: bytes) -> bytes:
    for level in range(depth):
        mark = f"b{level}".encode()
        head = b'Content-Type: multipart/mixed; boundary="' + mark + b'"\r\n\r\n--' + mark + b"\r\n"
        inner = head + inner + b"\r\n--" + mark + b"--\r\n"
    return inner


def test_nesting_is_bounded() -> None:
    """Thirty levels are looked into; a mail with more of them is no report."""
    carrier = attachment("text/xml", AGGREGATE)
    assert read(nested(30, carrier)) is not None
    assert read(nested(31, carrier)) is None
    assert not may_be_report(nested(31, carrier), "a@b.example")
    assert read(nested(5000, b"\r\nx"), "") is None


def test_the_number_of_parts_is_bounded() -> None:
    """A thousand parts are looked at; a mail with more of them is no report."""
    empty = [b"\r\n"] * 1100
    assert read(mixed(attachment("text/xml", AGGREGATE), *empty[:900])) is not None
    assert read(mixed(attachment("text/xml", AGGREGATE), *empty)) is None


def test_a_large_mail_of_parts_is_left_to_the_thread() -> None:
    """The quick look does not search megabytes for parts."""
    assert may_be_report(mixed(part("text/plain", "x" * 100_000)), "a@b.example")


@pytest.mark.parametrize("room", [30, 64, 200, 1000, 3000, 10**6])
def test_the_property_fits(room: int) -> None:
    """Items go until it fits; without room for one of the rest, only the type is told."""
    report = Report("dsn", {"reporting-mta": "x" * 100, "recipients": [{"a": "b" * 50}] * 40}, ("recipients",))
    told = report.to_json(room)
    assert told["type"] == "dsn"
    assert len(orjson.dumps(told)) <= max(room, 40)
    assert told.get("truncated") is (True if room < 3000 else None)
    assert len(report.properties["recipients"]) == 40
    assert Report("mdn", {"a": "b" * 5000}).to_json(100) == {"type": "mdn", "truncated": True}


WHOLE = [dsn_mail(), aggregate_mail(), mixed(part("application/tlsrpt+json", TLS_REPORT))]


@pytest.mark.parametrize("content", WHOLE, ids=["dsn", "dmarc", "tlsrpt"])
def test_cut_off_anywhere(content: bytes) -> None:
    """Each beginning of a report gives a report or none, in JSON."""
    for end in range(0, len(content), 3):
        orjson.dumps(read(content[:end], ""))
        orjson.dumps(read(content[end:], ""))


@given(st.sampled_from(WHOLE), st.data())
def test_changed_anywhere(content: bytes, data: st.DataObject) -> None:
    """So does each change of its octets."""
    at = data.draw(st.integers(0, len(content)))
    changed = content[:at] + data.draw(st.binary(max_size=8)) + content[at + data.draw(st.integers(0, 8)) :]
    may_be_report(changed, "")
    orjson.dumps(read(changed, ""))
