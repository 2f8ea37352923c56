"""Delivery status notifications (RFC 3464; with addresses beyond ASCII RFC 6533).

Lenient where senders are: recipients' fields may stand in the first group, actions may carry comments.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mtaq.reports.fields import GROUPS_BYTES, GROUPS_LIMIT, Group, address_of, first, groups, untyped, word_of
from mtaq.reports.original import original_of
from mtaq.reports.parts import Part
from mtaq.reports.report import NotAReport, Report

STATUS = frozenset(("message/delivery-status", "message/global-delivery-status"))
"""Media types of the part that says what happened."""

_OF_MESSAGE = {
    "original-envelope-id": str.strip,
    "reporting-mta": untyped,
    "dsn-gateway": untyped,
    "received-from-mta": untyped,
    "arrival-date": str.strip,
}
_OF_RECIPIENT = {
    "original-recipient": address_of,
    "final-recipient": address_of,
    "action": word_of,
    "status": word_of,
    "remote-mta": untyped,
    "diagnostic-code": str.strip,
    "last-attempt-date": str.strip,
    "will-retry-until": str.strip,
    "final-log-id": str.strip,
}
_MARKS = ("final-recipient", "original-recipient", "action")


def read_dsn(status: Part, parts: Sequence[Part], *, without_recipients: bool = False) -> Report:
    """
    Read the part *status* of a mail with these *parts*.

    Raises:
        NotAReport: It names no recipient; or, when it may be *without_recipients*, says nothing at all.
    """
    octets = status.octets()
    found = groups(octets)
    recipients = [_chosen(group, _OF_RECIPIENT) for group in found if any(name in group for name in _MARKS)]
    properties: dict[str, Any] = _chosen(found[0], _OF_MESSAGE) if found else {}
    if not recipients and not (without_recipients and properties):
        raise NotAReport("a delivery status without recipients")
    properties["recipients"] = recipients
    if len(octets) > GROUPS_BYTES or len(found) == GROUPS_LIMIT:
        properties["truncated"] = True
    original = original_of(parts)
    if original is not None:
        properties["original"] = original
    return Report("dsn", properties, ("recipients",))


def _chosen(group: Group, readers: dict[str, Any]) -> dict[str, str]:
    values = ((name, first(group, name), read) for name, read in readers.items())
    read_values = ((name, read(value)) for name, value, read in values if value is not None)
    return {name: value for name, value in read_values if value}
