"""SMTP TLS reports, read."""

from __future__ import annotations

import orjson
import pytest

from mtaq.reports.report import NotAReport
from mtaq.reports.tlsrpt import DOCUMENT_BYTES, FAILURES_LIMIT, read_tlsrpt
from tests.unit.reports.mails import TLS_REPORT


@pytest.mark.parametrize("size", [1, 7, 10**6])
def test_the_document_is_the_report(size: int) -> None:
    """It is told as it was sent, whatever the pieces are."""
    document = b"\xef\xbb\xbf" + TLS_REPORT
    report = read_tlsrpt(document[at : at + size] for at in range(0, len(document), size))
    assert report.to_json() == {"type": "tlsrpt", "tls-report": orjson.loads(TLS_REPORT)}


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"policies":[]}',
        b'{"policies":{},"report-id":"1"}',
        b'{"report-id":"\xff","policies":[]}',
        b'{"report-id":"\\ud800","policies":[]}',
        b'{"report-id":"1","policies":[' + b"[" * 50 + b"]" * 50 + b"]}",
        b'{"report-id":"1","policies":' + b"[" * 100_000,
        b'{"report-id":"1","policies":[' + b"0," * (DOCUMENT_BYTES // 2) + b"0]}",
    ],
)
def test_other_documents_are_none(document: bytes) -> None:
    """Broken, strange, too deep or too long: no report, and never another error."""
    with pytest.raises(NotAReport):
        read_tlsrpt([document])


def test_policies_may_be_anything() -> None:
    """Only that there is an array of them is asked for."""
    assert read_tlsrpt([b'{"report-id":"1","policies":[1,null,{"failure-details":3}]}']).type == "tlsrpt"


def test_failures_are_bounded() -> None:
    """Of one policy a thousand are told, of many policies as many as there is room for."""
    policy = {"failure-details": [{"result-type": "x"}] * (FAILURES_LIMIT + 1)}
    report = read_tlsrpt([orjson.dumps({"report-id": "1", "policies": [policy] * 30})])
    told = report.to_json(100_000)
    assert told["truncated"] is True
    assert 1 <= len(told["tls-report"]["policies"]) < 30
    assert len(told["tls-report"]["policies"][0]["failure-details"]) == FAILURES_LIMIT
