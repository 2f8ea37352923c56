"""What a report says, bounded so that it always fits beside the content it was found in.

A reader of one kind of report returns a ``Report``, or raises ``NotAReport``: what cannot be read, or goes beyond a
bound that keeps readers safe, is ordinary mail. A report that is merely long is cut where its list of recipients,
records or policies goes on, and says ``truncated``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import orjson

ReportType = Literal["dsn", "mdn", "arf", "dmarc", "tlsrpt"]

#: Bytes of JSON.
REPORT_BYTES = 2**20

#: Characters of one value: what is longer is no address, status or diagnostic.
VALUE_LIMIT = 2_000


class NotAReport(Exception):
    """It is no report, or none that can be read safely; the text says why."""


@dataclass(frozen=True, slots=True)
class Report:
    """A recognised report.

    Attributes:
        type: What kind.
        properties: The others of the ``report`` object.
        long: Path to the list that may be cut short, as keys; empty when there is none.
    """

    type: ReportType
    properties: Mapping[str, Any]
    long: tuple[str, ...] = ()

    def to_json(self, max_bytes: int = REPORT_BYTES) -> dict[str, Any]:
        """Return the ``report`` property: at most *max_bytes* of JSON, or just that there was more than that."""
        whole = {"type": self.type, **self.properties}
        room = max_bytes - len(orjson.dumps(whole))
        if room >= 0:
            return whole
        whole["truncated"] = True
        room -= len(',"truncated":true')
        return self._cut(whole, self.long, room) if self.long else _least(self.type)

    def _cut(self, whole: dict[str, Any], path: tuple[str, ...], room: int) -> dict[str, Any]:
        """Take items off the end of the long list until there is *room* again."""
        *outer, last = path
        holder = whole
        for name in outer:
            holder[name] = holder = dict(holder[name])
        items = holder[last] = list(holder[last])
        while items and room < 0:
            room += len(orjson.dumps(items.pop())) + 1
        return whole if room >= 0 else _least(self.type)


def _least(kind: ReportType) -> dict[str, Any]:
    return {"type": kind, "truncated": True}
