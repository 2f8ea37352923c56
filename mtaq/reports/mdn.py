"""Message disposition notifications (RFC 8098): what became of a message at its reader's."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from mtaq.reports.fields import address_of, first, groups, untyped
from mtaq.reports.original import original_of
from mtaq.reports.parts import Part
from mtaq.reports.report import NotAReport, Report

DISPOSITION = frozenset(("message/disposition-notification", "message/global-disposition-notification"))
"""Media types of the part that says what happened."""

_READERS: dict[str, Any] = {
    "reporting-ua": str.strip,
    "mdn-gateway": untyped,
    "original-recipient": address_of,
    "final-recipient": address_of,
    "original-message-id": str.strip,
}
_DISPOSITION = re.compile(r"([^;/]{1,60})/([^;]{1,60});([^;/]{1,60})(?:/(.{1,200}))?")
_ERRORS = ("failure", "error", "warning")


def read_mdn(disposition: Part, parts: Sequence[Part]) -> Report:
    """
    Read the part *disposition* of a mail with these *parts*.

    Raises:
        NotAReport: It says neither what happened nor to whom.
    """
    group = next(iter(groups(disposition.octets())), {})
    properties: dict[str, Any] = {}
    for name, read in _READERS.items():
        value = first(group, name)
        if value is not None and read(value):
            properties[name] = read(value)
    if "disposition" not in group and "final-recipient" not in properties:
        raise NotAReport("a disposition notification that says nothing")
    properties |= _disposition(first(group, "disposition") or "")
    properties |= {name: group[name] for name in _ERRORS if name in group}
    original = original_of(parts)
    if original is not None:
        properties["original"] = original
    return Report("mdn", properties)


def _disposition(value: str) -> dict[str, Any]:
    """Take the ``Disposition`` field apart (RFC 8098 §3.2.6)."""
    match = _DISPOSITION.fullmatch(value)
    if match is None:
        return {"disposition": value} if value else {}
    action, sending, kind, modifiers = match.groups()
    found: dict[str, Any] = {
        "disposition": kind.strip().lower(),
        "action-mode": action.strip().lower(),
        "sending-mode": sending.strip().lower(),
    }
    if modifiers:
        found["modifiers"] = [word.strip().lower() for word in modifiers.split(",") if word.strip()]
    return found
