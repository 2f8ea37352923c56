"""Abuse and failure reports in the Abuse Reporting Format (RFC 5965, RFC 6650; authentication failures RFC 6591)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

from mtaq.reports.fields import Group, groups, untyped
from mtaq.reports.original import original_of
from mtaq.reports.parts import Part
from mtaq.reports.report import NotAReport, Report

FEEDBACK = "message/feedback-report"
"""Media type of the part that says what it is about."""

#: Fields that may occur again (RFC 5965 §3.2, RFC 6590 §3); always arrays.
REPEATED = frozenset(
    ("authentication-results", "original-rcpt-to", "redacted-address", "reported-domain", "reported-uri")
)
#: Addresses and words, which stand in brackets or in capitals here and there.
_ADDRESSES = frozenset(("original-mail-from", "original-rcpt-to"))
_WORDS = frozenset(("feedback-type", "auth-failure", "delivery-result", "identity-alignment"))

#: Other fields than those of the standards are kept as well, so many of all.
_FIELDS_LIMIT = 100
_VALUES_LIMIT = 100

#: Names that have another form in the JSON of reports.
_TAKEN = frozenset(
    (
        "type", "original", "truncated", "recipients", "recognised-by", "modifiers", "failure", "error", "warning",
        "feedback", "tls-report",
    )
)  # fmt: skip


def read_arf(feedback: Part, parts: Sequence[Part]) -> Report:
    """
    Read the part *feedback* of a mail with these *parts*.

    Raises:
        NotAReport: It does not say what it is about.
    """
    found = groups(feedback.octets())
    group: Group = {}
    for one in found:  # some have a blank line among their fields
        for name, values in one.items():
            group.setdefault(name, values)
    if not {"feedback-type", "auth-failure", "source-ip", "original-mail-from"} & group.keys():
        raise NotAReport("a feedback report without fields of one")
    properties = {
        name: _value(name, values) for name, values in islice(group.items(), _FIELDS_LIMIT) if name not in _TAKEN
    }
    original = original_of(parts)
    if original is not None:
        properties["original"] = original
    return Report("arf", properties)


def _value(name: str, values: list[str]) -> Any:
    cleaned = [_cleaned(name, value) for value in values[:_VALUES_LIMIT]]
    return cleaned if name in REPEATED else cleaned[0]


def _cleaned(name: str, value: str) -> str:
    if name in _ADDRESSES:
        return value.removeprefix("<").removesuffix(">").strip()
    if name == "source-ip":
        return value.partition(" ")[0]  # some add the name in a comment
    if name == "reporting-mta":
        return untyped(value) or value
    return value.lower() if name in _WORDS else value
