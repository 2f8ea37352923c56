"""Mails that carry reports, written part by part."""

from __future__ import annotations

import base64
import gzip
import io
import zipfile
from typing import Any

from mtaq.reports import recognise

BOUNDARY = "=_limit"


def mixed(*parts: bytes, top: str = "multipart/mixed", boundary: str = BOUNDARY) -> bytes:
    """Return a mail of several *parts*, each with its own header section."""
    header = "From: a@reporter.example\r\nMIME-Version: 1.0\r\n"
    head = f'{header}Content-Type: {top}; boundary="{boundary}"\r\n\r\n'.encode()
    inner = b"".join(f"--{boundary}\r\n".encode() + part + b"\r\n" for part in parts)
    return head + inner + f"--{boundary}--\r\n".encode()


def part(media_type: str, body: bytes | str) -> bytes:
    """Return a part with its body as it is."""
    octets = body.encode() if isinstance(body, str) else body
    return f"Content-Type: {media_type}\r\n\r\n".encode() + octets


def attachment(media_type: str, octets: bytes, name: str = "") -> bytes:
    """Return a part in base64, with the *name* of a file."""
    disposition = f'Content-Disposition: attachment; filename="{name}"\r\n' if name else ""
    head = f"Content-Type: {media_type}\r\n{disposition}Content-Transfer-Encoding: base64\r\n\r\n"
    return head.encode() + base64.encodebytes(octets).replace(b"\n", b"\r\n")


def zipped(*files: tuple[str, bytes]) -> bytes:
    """Return an archive of *files*, name and content each."""
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, octets in files:
            archive.writestr(name, octets)
    return held.getvalue()


AGGREGATE = b"""<?xml version="1.0"?>
<feedback><version>1.0</version>
<report_metadata><org_name>reporter.example</org_name><report_id>17</report_id>
<date_range><begin>1700000000</begin><end>1700086399</end></date_range></report_metadata>
<policy_published><domain>local.example</domain><p>reject</p><pct>100</pct></policy_published>
<record><row><source_ip>192.0.2.1</source_ip><count>3</count>
<policy_evaluated><disposition>none</disposition><dkim>pass</dkim><spf>fail</spf></policy_evaluated></row>
<identifiers><header_from>local.example</header_from></identifiers>
<auth_results><dkim><domain>local.example</domain><result>pass</result></dkim></auth_results></record>
</feedback>"""

TLS_REPORT = (
    b'{"organization-name":"Reporter","date-range":{"start-datetime":"2026-03-01T00:00:00Z",'
    b'"end-datetime":"2026-03-01T23:59:59Z"},"contact-info":"tls@reporter.example","report-id":"17",'
    b'"policies":[{"policy":{"policy-type":"sts","policy-domain":"local.example"},'
    b'"summary":{"total-successful-session-count":5,"total-failure-session-count":0}}]}'
)


def aggregate_mail(octets: bytes = AGGREGATE) -> bytes:
    """Return a mail with an aggregate report, compressed by gzip."""
    return mixed(part("text/plain", "see below"), attachment("application/gzip", gzip.compress(octets)))


STATUS = """Reporting-MTA: dns; mx.remote.example\r
Arrival-Date: Fri, 20 Nov 2026 09:00:00 +0000\r
\r
Original-Recipient: rfc822; Gone@remote.example\r
Final-Recipient: rfc822; gone@remote.example\r
Action: failed\r
Status: 5.1.1\r
Remote-MTA: dns; mail.remote.example\r
Diagnostic-Code: smtp; 550 5.1.1\r
 no such user\r
"""


def dsn_mail(status: str = STATUS, returned: bytes = b"", kind: str = "message/delivery-status") -> bytes:
    """Return a delivery status notification, with the part that came back."""
    parts = [part("text/plain", "sorry"), part(kind, status)] + ([returned] if returned else [])
    return mixed(*parts, top="multipart/report; report-type=delivery-status")


def read(content: bytes, envelope: str = "a@reporter.example", **options: Any) -> dict[str, Any] | None:
    """Return the ``report`` property of a mail."""
    report = recognise(content, envelope=envelope, **options)
    return None if report is None else report.to_json()
