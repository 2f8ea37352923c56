"""Is a mail a report, and what does it say?

Two questions: ``may_be_report`` costs microseconds and is for every mail to a local address; ``recognise`` decodes,
unpacks and parses, and is a matter for a thread. Whatever the octets are, the answer is a report or ``None``: a broken
report, a bomb and a forwarded report are ordinary mail. Pure; where a report then goes is ``receive``'s work.
"""

from __future__ import annotations

from typing import Any

from mtaq.mime.entity import entity_at
from mtaq.model.address import Address
from mtaq.reports.aggregate import read_aggregate
from mtaq.reports.arf import FEEDBACK, read_arf
from mtaq.reports.dsn import STATUS, read_dsn
from mtaq.reports.mdn import DISPOSITION, read_mdn
from mtaq.reports.odd import lowered_header, may_be_bounce, read_odd
from mtaq.reports.parts import Part, parts
from mtaq.reports.report import NotAReport, Report
from mtaq.reports.tlsrpt import read_tlsrpt
from mtaq.reports.unpack import Budget, is_packed, unpacked
from mtaq.reports.verp import verp_recipient

#: Looking for the parts of more than this is a matter for a thread as well.
LARGE_BYTES = 64 * 1024

#: Carriers that are tried; a report comes in one.
CARRIERS_LIMIT = 10

_MACHINE_READABLE = frozenset((*STATUS, *DISPOSITION, FEEDBACK))
_CARRIERS = frozenset(
    (
        "application/gzip", "application/x-gzip", "application/gzip-compressed", "application/x-gunzip",
        "application/zip", "application/x-zip", "application/x-zip-compressed", "multipart/x-zip",
        "application/xml", "text/xml", "application/json", "application/octet-stream", "application/x-compressed",
        "application/tlsrpt", "application/tlsrpt+json", "application/tlsrpt+gzip",
    )
)  # fmt: skip
_NAMES = (".xml", ".gz", ".gzip", ".zip", ".json")
#: One of these stands in each type and each name above, or the name is written in another way (RFC 2231). Looking for
#: them costs less than reading the fields, and most mail has none.
_HINTS = (
    b"-status", b"-notification", b"feedback-report", b"zip", b"xml", b"json", b".gz", b"octet-stream",
    b"compressed", b"tlsrpt", b"name*",
)  # fmt: skip
_BEFORE_TEXT = b" \t\r\n\xef\xbb\xbf"
#: How XML begins in UTF-8 and its relatives, and in UTF-16.
_XML = (b"<", b"\xff\xfe<\0", b"\xfe\xff\0<", b"<\0", b"\0<")


def may_be_report(content: bytes, envelope: str) -> bool:
    """Is *content* worth ``recognise``? *envelope* is the reverse-path; empty for the null one."""
    header = lowered_header(content)
    if may_be_bounce(header, envelope):
        return True
    if b"multipart/" not in header and not any(hint in header for hint in _HINTS):
        return False
    top = entity_at(content, 0, len(content))
    media_type = top.media_type
    if media_type == "multipart/report":
        return True
    if not media_type.startswith("multipart/"):
        return _is_candidate(Part(content, top, media_type))
    if len(content) > LARGE_BYTES:
        return True
    try:
        return any(_is_candidate(part) for part in parts(content))
    except NotAReport:
        return False


def recognise(content: bytes, *, envelope: str, recipient: Address | None = None) -> Report | None:
    """
    Return the report that *content* is, or ``None``.

    Args:
        content: The whole mail.
        envelope: Its reverse-path; empty for the null one.
        recipient: The local address that it came to, when there is just one: it may name whom a bounce is about.
    """
    try:
        report = _read(content, list(parts(content)), envelope, recipient)
    except NotAReport:
        return None
    named = verp_recipient(recipient) if report.type == "dsn" else None
    return report if named is None else Report(report.type, {**report.properties, "verp": named}, report.long)


def _read(content: bytes, found: list[Part], envelope: str, recipient: Address | None) -> Report:
    for part in found:
        if part.media_type in _MACHINE_READABLE:
            try:
                return _read_fields(part, found)
            except NotAReport:
                continue
    budget = Budget()
    for part in [part for part in found if _is_candidate(part)][:CARRIERS_LIMIT]:
        try:
            return _read_document(part, budget)
        except NotAReport:
            continue
    if may_be_bounce(lowered_header(content), envelope):
        try:
            return _read_wrapped(found) or read_odd(content, found, recipient)
        except NotAReport:
            pass
    for part in found:
        if part.media_type in STATUS:
            return read_dsn(part, found, without_recipients=True)
    raise NotAReport("nothing of a report in it")


def _read_fields(part: Part, found: list[Part]) -> Report:
    if part.media_type in STATUS:
        return read_dsn(part, found)
    return read_arf(part, found) if part.media_type == FEEDBACK else read_mdn(part, found)


def _read_wrapped(found: list[Part]) -> Report | None:
    """Return the notice in an attached message, as filters that look into bounces send it on."""
    for part in [part for part in found if part.media_type == "message/rfc822"][:CARRIERS_LIMIT]:
        inner = list(parts(part.octets()))
        for status in [one for one in inner if one.media_type in STATUS]:
            return read_dsn(status, inner)
    return None


def _is_candidate(part: Part) -> bool:
    """Is it machine-readable, or may it carry a document that is?"""
    if part.media_type in _MACHINE_READABLE:
        return True
    if part.media_type not in _CARRIERS and not part.filename.endswith(_NAMES):
        return False
    begin = part.first_octets()
    if is_packed(begin):
        return part.media_type != "application/octet-stream" or not part.filename or part.filename.endswith(_NAMES)
    return begin.startswith(_XML) or begin.lstrip(_BEFORE_TEXT).startswith((b"<", b"{"))


def _read_document(part: Part, budget: Budget) -> Report:
    if part.media_type in _MACHINE_READABLE:
        raise NotAReport("it was tried")
    pieces: Any = unpacked(part.octets(), budget)
    begin = next(pieces, b"")
    return (read_tlsrpt if begin.lstrip(_BEFORE_TEXT).startswith(b"{") else read_aggregate)(_chained(begin, pieces))


def _chained(begin: bytes, pieces: Any) -> Any:
    yield begin
    yield from pieces
