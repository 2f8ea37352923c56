"""DMARC aggregate reports, from XML to JSON."""

from __future__ import annotations

from typing import Any

import pytest

from mtaq.reports import aggregate
from mtaq.reports.aggregate import read_aggregate
from mtaq.reports.report import NotAReport
from tests.unit.reports.mails import AGGREGATE

RECORD = b"<record><row><source_ip>192.0.2.1</source_ip><count>1</count></row></record>"


def feedback(document: bytes) -> dict[str, Any]:
    return dict(read_aggregate([document]).properties["feedback"])


def with_records(records: bytes) -> bytes:
    return AGGREGATE.replace(b"</feedback>", records + b"</feedback>")


def test_elements_keep_their_names() -> None:
    """Numbers are numbers, what may be repeated is an array, everything else is text."""
    assert feedback(AGGREGATE) == {
        "version": "1.0",
        "report_metadata": {
            "org_name": "reporter.example",
            "report_id": "17",
            "date_range": {"begin": 1700000000, "end": 1700086399},
        },
        "policy_published": {"domain": "local.example", "p": "reject", "pct": 100},
        "record": [
            {
                "row": {
                    "source_ip": "192.0.2.1",
                    "count": 3,
                    "policy_evaluated": {"disposition": "none", "dkim": "pass", "spf": "fail"},
                },
                "identifiers": {"header_from": "local.example"},
                "auth_results": {"dkim": [{"domain": "local.example", "result": "pass"}]},
            }
        ],
    }


@pytest.mark.parametrize(
    "document",
    [
        b"\xef\xbb\xbf\r\n " + AGGREGATE,
        AGGREGATE.replace(b"<feedback>", b'<feedback xmlns="urn:ietf:params:xml:ns:dmarc-2.0">'),
        AGGREGATE.replace(b"<feedback>", b'<d:feedback xmlns:d="x">').replace(b"</feedback>", b"</d:feedback>"),
        AGGREGATE.replace(b"<feedback>", b'<x:schema xmlns:x="y"><feedback>'),
        AGGREGATE.decode().replace('"1.0"?', '"1.0" encoding="utf-16"?').encode("utf-16"),
        AGGREGATE.replace(b'"1.0"?', b'"1.0" encoding="windows-1252"?'),
        AGGREGATE.replace(b"<feedback>", b"<!-- x --><?y z?><feedback>"),
        AGGREGATE + b"<",
    ],
    ids=["mark", "namespace", "prefix", "in a schema", "utf-16", "windows-1252", "comment", "garbage behind"],
)
def test_forms_of_the_same_document(document: bytes) -> None:
    """Marks, namespaces, wrappers and encodings make no difference."""
    assert feedback(document) == feedback(AGGREGATE)


def test_byte_by_byte() -> None:
    """A document that comes in single octets is the same."""
    pieces = (AGGREGATE[at : at + 1] for at in range(len(AGGREGATE)))
    assert read_aggregate(pieces) == read_aggregate([AGGREGATE])


def test_empty_elements_are_left_out() -> None:
    """An element without anything in it says nothing."""
    assert "record" not in feedback(AGGREGATE.partition(b"<record>")[0] + b"<record/></feedback>")


DOCTYPES = [
    b'<!DOCTYPE feedback [<!ENTITY a "b">]>',
    b'<!DOCTYPE feedback [<!ENTITY a SYSTEM "file:///etc/hostname">]>',
    b'<!DOCTYPE feedback [<!ENTITY % p SYSTEM "http://127.0.0.1:1/x"> %p;]>',
    b'<!DOCTYPE feedback [<!ENTITY l "ha"><!ENTITY m "&l;&l;&l;&l;"><!ENTITY n "&m;&m;&m;&m;">]>',
]


@pytest.mark.parametrize("doctype", DOCTYPES, ids=["entity", "external", "parameter", "laughs"])
def test_declared_entities_are_refused(doctype: bytes) -> None:
    """Whatever they stand for, nothing is expanded, opened or asked for."""
    document = AGGREGATE.replace(b"<feedback>", doctype + b"<feedback>")
    with pytest.raises(NotAReport, match="entities"):
        read_aggregate([document])


def test_an_entity_of_an_external_type_definition_is_not_looked_up() -> None:
    """The definition is not read, so the entity is unknown."""
    document = AGGREGATE.replace(b"<feedback>", b'<!DOCTYPE feedback SYSTEM "http://127.0.0.1:1/x"><feedback>')
    assert feedback(document) == feedback(AGGREGATE)
    with pytest.raises(NotAReport):
        read_aggregate([document.replace(b"17", b"&x;")])


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"text",
        b"<html><feedback/></html>",
        b"<feedback/>",
        AGGREGATE[:-30],
        AGGREGATE.replace(b"policy_published", b"policy"),
        b"<feedback>" * 10_000,
        AGGREGATE.replace(b'"1.0"?', b'"1.0" encoding="no-such"?'),
        AGGREGATE.replace(b"<feedback>", b"<feedback a='" + b"x" * 400_000 + b"'>"),
        AGGREGATE.replace(b"<version>", b"<" + b"v" * 200 + b"/><version>"),
        AGGREGATE.replace(b"17", b"\xff\xfe"),
    ],
    ids=["empty", "text", "html", "bare", "cut", "no policy", "deep", "encoding", "long tag", "long name", "octets"],
)
def test_other_documents_are_none(document: bytes) -> None:
    """Broken, strange or too deep: no report, and never another error."""
    with pytest.raises(NotAReport):
        read_aggregate(document[at : at + 65536] for at in range(0, len(document), 65536))


def test_records_are_bounded() -> None:
    """A report of any length is read so far, and says so."""
    report = read_aggregate([with_records(RECORD * (aggregate.RECORDS_LIMIT + 100))])
    assert report.properties["truncated"] is True
    assert len(report.properties["feedback"]["record"]) == aggregate.RECORDS_LIMIT
    told = report.to_json(100_000)
    assert 500 < len(told["feedback"]["record"]) < aggregate.RECORDS_LIMIT
    assert told["feedback"]["report_metadata"]["report_id"] == "17"


def test_elements_are_bounded() -> None:
    """So is a report whose records have no end."""
    document = with_records(b"<record>" + b"<a/>" * (aggregate.ELEMENTS_LIMIT + 10))
    report = read_aggregate([document])
    assert report.properties["truncated"] is True
    assert len(report.properties["feedback"]["record"]) == 1


def test_texts_are_bounded() -> None:
    """A long text is cut."""
    assert len(feedback(AGGREGATE.replace(b"17", b"x" * 100_000))["report_metadata"]["report_id"]) == 2000
