"""A record as one line: JSON for machines, or a readable form for terminals.

What peers sent stands in these lines, so neither form lets a value end the line or steer a terminal. Any record gives a
line; nothing raises.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import orjson

Format = Callable[[dict[str, Any]], bytes]
"""Turns a record into one line, its end included."""

_OPTIONS = orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z | orjson.OPT_NON_STR_KEYS
_HEAD = ("at", "level", "event", "node")


def json_line(record: dict[str, Any]) -> bytes:
    """One JSON object; control characters are escaped (RFC 8259 §7). Times are RFC 3339, in UTC as the clock's are."""
    try:
        return orjson.dumps(record, default=str, option=_OPTIONS)
    except (TypeError, ValueError):
        # Not UTF-8 after all, or an integer beyond 64 bits.
        return orjson.dumps({key: _harmless(value) for key, value in record.items()}, option=_OPTIONS)


def _harmless(value: object) -> str:
    return str(value).encode("utf-8", "backslashreplace").decode("utf-8")


def console_line(record: dict[str, Any]) -> bytes:
    """``time level event key=value …``; whatever is not printable is escaped, so a terminal only ever shows it."""
    at = record.get("at")
    time = f"{at:%H:%M:%S}" if isinstance(at, datetime) else str(at)
    values = " ".join(f"{key}={_visible(value)}" for key, value in record.items() if key not in _HEAD)
    line = f"{time} {record.get('level', ''):<7} {record.get('event', ''):<18} {values}"
    return line.rstrip().encode("utf-8", "backslashreplace") + b"\n"


def _visible(value: object) -> str:
    text = value.isoformat(sep=" ", timespec="seconds") if isinstance(value, datetime) else str(value)
    if text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"' if " " in text or not text else text
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if character.isprintable():
        return character
    return character.encode("unicode_escape").decode("ascii")
