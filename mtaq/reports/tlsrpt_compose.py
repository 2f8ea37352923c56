"""Writes reports on TLS to the owners of domains (RFC 8460): the JSON, and the mail that carries it.

Pure: the same arguments give the same octets. Who wants a report and what was counted is the caller's to know. What
hosts call themselves, and what their owners ask for, was written by strangers and is cleaned here.
"""

from __future__ import annotations

import base64
import gzip
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, NamedTuple
from urllib.parse import unquote

import orjson

#: Destinations of one domain's reports that are looked at.
MAX_DESTINATIONS = 5
#: What a host calls itself, and why a handshake failed, is cut at so many characters.
MAX_TEXT = 250

_RECORD = re.compile(rb"v=TLSRPTv1[ \t]*;", re.ASCII)
_RUA = re.compile(rb"[ \t]*rua[ \t]*=[ \t]*(.*?)[ \t]*", re.ASCII)
_MAILBOX = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,64}@(?=.{1,253}$)[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*", re.ASCII)
_HTTPS = re.compile(r"https://[!-~]{1,500}", re.ASCII | re.IGNORECASE)


class Failing(NamedTuple):
    """One way in which sessions failed (RFC 8460 §4.3); what is not known is empty."""

    result_type: str
    sending_ip: str = ""
    mx_host: str = ""
    mx_helo: str = ""
    receiving_ip: str = ""
    reason: str = ""

    def to_json(self, count: int) -> dict[str, Any]:
        """Return an item of ``failure-details``."""
        item = {
            "result-type": self.result_type,
            "sending-mta-ip": self.sending_ip,
            "receiving-mx-hostname": self.mx_host,
            "receiving-mx-helo": _clean(self.mx_helo),
            "receiving-ip": self.receiving_ip,
            "failed-session-count": count,
            "failure-reason-code": _clean(self.reason),
        }
        return {name: value for name, value in item.items() if value != ""}


@dataclass(slots=True)
class PolicyCount:
    """What came of the sessions that were judged by one policy.

    Attributes:
        type: ``tlsa``, ``sts`` or ``no-policy-found``.
        strings: The policy.
        patterns: Of MX hosts.
        successes: Sessions.
        failures: Sessions, by how they failed.
    """

    type: str
    strings: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    successes: int = 0
    failures: dict[Failing, int] = field(default_factory=dict)

    def to_json(self, domain: str) -> dict[str, Any]:
        """Return an item of ``policies``."""
        policy: dict[str, Any] = {"policy-type": self.type, "policy-domain": domain}
        if self.strings:
            policy["policy-string"] = list(self.strings)
        if self.patterns:
            policy["mx-host"] = list(self.patterns)
        failed = sum(self.failures.values())
        item: dict[str, Any] = {
            "policy": policy,
            "summary": {"total-successful-session-count": self.successes, "total-failure-session-count": failed},
        }
        if self.failures:
            item["failure-details"] = [each.to_json(count) for each, count in sorted(self.failures.items())]
        return item


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitter:
    """Who reports.

    Attributes:
        name: Of the organisation: our host name.
        contact: An address; ``From:`` of the mail.
    """

    name: str
    contact: str


def destinations(records: Iterable[Sequence[bytes]]) -> tuple[str, ...]:
    """
    Return where a domain wants its reports, by the TXT records of ``_smtp._tls.<domain>`` (RFC 8460 §3).

    ``mailto:`` is left off; what begins with ``https://`` is a URL. Empty when it wants none, or nothing that is known.
    """
    texts = [text for strings in records if _RECORD.match(text := b"".join(strings))]
    if len(texts) != 1:
        return ()
    values = [match[1] for part in texts[0].split(b";")[1:] if (match := _RUA.fullmatch(part))]
    uris = values[0].decode("ascii", "replace").split(",") if values else []
    found = [_destination(uri.strip(" \t")) for uri in uris[:MAX_DESTINATIONS]]
    return tuple(dict.fromkeys(each for each in found if each))


def _destination(uri: str) -> str:
    if uri[:7].lower() == "mailto:":
        address = unquote(uri[7:].partition("?")[0])
        return address if _MAILBOX.fullmatch(address) else ""
    return uri if _HTTPS.fullmatch(uri) else ""


def compose_report(
    domain: str, day: datetime, policies: Iterable[PolicyCount], *, submitter: Submitter, report_id: str
) -> dict[str, Any]:
    """
    Return the report for the owner of *domain* (RFC 8460 §4.4).

    Args:
        day: Its first moment, UTC.
    """
    begin, end = _range(day)
    return {
        "organization-name": submitter.name,
        "date-range": {"start-datetime": f"{begin:%Y-%m-%dT%H:%M:%SZ}", "end-datetime": f"{end:%Y-%m-%dT%H:%M:%SZ}"},
        "contact-info": submitter.contact,
        "report-id": report_id,
        "policies": [each.to_json(domain) for each in sorted(policies, key=lambda each: (each.type, each.strings))],
    }


def compose_mail(
    report: Mapping[str, Any], domain: str, recipient: str, *, day: datetime, now: datetime, submitter: Submitter
) -> bytes:
    """
    Return the mail that carries *report* to *recipient* (RFC 8460 §5.3).

    It says ``TLS-Required: No``: a report on TLS that is broken must not wait until it is mended (RFC 8689 §5).
    """
    identity, host = report["report-id"], submitter.name
    boundary = f"=_tlsrpt.{identity}"
    header = [
        f"From: <{submitter.contact}>",
        f"To: <{recipient}>",
        f"Subject: Report Domain: {domain}\r\n Submitter: {host}\r\n Report-ID: <{identity}@{host}>",
        f"Date: {format_datetime(now.replace(microsecond=0))}",
        f"Message-ID: <{identity}@{host}>",
        f"TLS-Report-Domain: {domain}",
        f"TLS-Report-Submitter: {host}",
        "TLS-Required: No",
        "Auto-Submitted: auto-generated",
        "MIME-Version: 1.0",
        f'Content-Type: multipart/report; report-type="tlsrpt";\r\n boundary="{boundary}"',
        "",
        f"--{boundary}",
        "Content-Type: text/plain; charset=us-ascii",
        "",
        f"This is a report on TLS of mail from {host}",
        f"to {domain}, of {day:%Y-%m-%d} UTC (RFC 8460).",
        "",
        f"--{boundary}",
        *_attachment(report, f"{host}!{domain}!{_seconds(day, 0)}!{_seconds(day, 86_399)}!{identity}.json.gz"),
        f"--{boundary}--",
        "",
    ]
    return "\r\n".join(header).encode("ascii")


def _attachment(report: Mapping[str, Any], name: str) -> list[str]:
    packed = gzip.compress(orjson.dumps(report), mtime=0)
    return [
        "Content-Type: application/tlsrpt+gzip",
        "Content-Transfer-Encoding: base64",
        f'Content-Disposition: attachment;\r\n filename="{name}"',
        "",
        base64.encodebytes(packed).decode().rstrip("\n").replace("\n", "\r\n"),
    ]


def _range(day: datetime) -> tuple[datetime, datetime]:
    begin = day.astimezone(UTC)
    return begin, begin + timedelta(seconds=86_399)


def _seconds(day: datetime, more: int) -> int:
    return int(day.timestamp()) + more


def _clean(text: str) -> str:
    return "".join(each if each.isprintable() else "?" for each in text[:MAX_TEXT])
