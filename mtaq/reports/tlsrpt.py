"""SMTP TLS reports (RFC 8460), as the JSON that they are.

Faithful but for what is too long. Texts of more than ``DOCUMENT_BYTES`` are no report: what Python makes of JSON may
take thirty times the room.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson

from mtaq.reports.report import NotAReport, Report

DOCUMENT_BYTES = 2 * 1024 * 1024
DEPTH_LIMIT = 30
#: Failures told of one policy.
FAILURES_LIMIT = 1_000

_NEEDED = ("organization-name", "report-id", "date-range", "contact-info")


def read_tlsrpt(pieces: Iterable[bytes]) -> Report:
    """
    Read a JSON document that comes in *pieces*.

    Raises:
        NotAReport: It is too long, nested too deep, broken, or another document.
    """
    document = _parsed(_gathered(pieces))
    policies = document.get("policies")
    if not isinstance(policies, list) or not any(name in document for name in _NEEDED):
        raise NotAReport("not a TLS report")
    properties: dict[str, Any] = {"tls-report": document}
    for policy in policies:
        failures = policy.get("failure-details") if isinstance(policy, dict) else None
        if isinstance(failures, list) and len(failures) > FAILURES_LIMIT:
            del failures[FAILURES_LIMIT:]
            properties["truncated"] = True
    return Report("tlsrpt", properties, ("tls-report", "policies"))


def _gathered(pieces: Iterable[bytes]) -> bytes:
    octets = bytearray()
    for piece in pieces:
        octets += piece
        if len(octets) > DOCUMENT_BYTES:
            raise NotAReport("a long JSON document")
    return bytes(octets)


def _parsed(octets: bytes) -> dict[str, Any]:
    try:
        document = orjson.loads(octets.decode("utf-8-sig"))
    except ValueError as error:  # orjson's error and UnicodeDecodeError are some
        raise NotAReport(f"not JSON: {error}") from error
    if not isinstance(document, dict) or _is_deep(document):
        raise NotAReport("another document")
    return document


def _is_deep(document: Any) -> bool:
    level = [document]
    for _ in range(DEPTH_LIMIT):
        level = [
            inner
            for value in level
            for inner in (value.values() if isinstance(value, dict) else value)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True
