"""Reads the compose files: the little YAML that they use, and what compose makes of it.

Block maps and lists, flow lists, plain and quoted scalars, anchors with ``<<``. Anything else is a ``ValueError``, so a
file that grows beyond this is noticed, not misread.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_KEY = re.compile(r"(?P<key>[A-Za-z0-9_<.-]+):(?:\s+(?P<value>.+))?")
_COMMENT = re.compile(r"(^|\s)#.*$")
_FLOW_ITEM = re.compile(r'\s*("[^"]*"|[^",\[\]{}]+?)\s*(?:,|$)')
_VARIABLE = re.compile(r"\$\{(\w+):-([^}]*)\}")

_Line = tuple[int, str]


def load(path: Path) -> dict[str, Any]:
    """Return a compose file as Python objects, variables replaced by their defaults."""
    lines: list[_Line] = []
    for raw in path.read_text(encoding="utf-8").splitlines():
        text = _COMMENT.sub("", raw).rstrip()
        if text:
            lines.append((len(text) - len(text.lstrip()), text.strip()))
    found = _block(lines, 0, {})
    if lines or not isinstance(found, dict):
        raise ValueError(f"{path}: cannot be read from {lines[:1]} on")
    return found


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one file over another, as compose does with maps."""
    merged = dict(base)
    for key, value in over.items():
        both_maps = isinstance(value, dict) and isinstance(base.get(key), dict)
        merged[key] = merge(base[key], value) if both_maps else value
    return merged


def _block(lines: list[_Line], indent: int, anchors: dict[str, Any]) -> Any:
    if lines[0][1].startswith("- "):
        return _list(lines, indent, anchors)
    found: dict[str, Any] = {}
    while lines and lines[0][0] == indent:
        match = _KEY.fullmatch(lines.pop(0)[1])
        if match is None:
            raise ValueError(f"not a key and its value: {lines[:1]}")
        value = _value(match["value"], lines, indent, anchors)
        if match["key"] == "<<":
            found = value | found
        else:
            found[match["key"]] = value
    return found


def _list(lines: list[_Line], indent: int, anchors: dict[str, Any]) -> list[Any]:
    found = []
    while lines and lines[0][0] == indent and lines[0][1].startswith("- "):
        text = lines[0][1][2:]
        if _KEY.fullmatch(text):
            lines[0] = (indent + 2, text)
            found.append(_block(lines, indent + 2, anchors))
        else:
            lines.pop(0)
            found.append(_scalar(text))
    return found


def _value(text: str | None, lines: list[_Line], indent: int, anchors: dict[str, Any]) -> Any:
    if text is not None and text.startswith("*"):
        return anchors[text[1:]]
    if text is not None and not text.startswith("&"):
        return _scalar(text)
    below = lines[0][0] if lines else 0
    value = _block(lines, below, anchors) if below > indent else None
    if text is not None:
        anchors[text[1:]] = value
    return value


def _scalar(text: str) -> Any:
    if text.startswith("["):
        if not text.endswith("]"):
            raise ValueError(f"a list that does not end: {text}")
        return [_scalar(item) for item in _FLOW_ITEM.findall(text[1:-1])]
    if text.startswith('"'):
        return _interpolated(text[1:-1])
    if text[0] in "'{|>!&*%@`":
        raise ValueError(f"YAML that is not read here: {text}")
    if text in ("true", "false"):
        return text == "true"
    return int(text) if text.isdigit() else _interpolated(text)


def _interpolated(text: str) -> str:
    return _VARIABLE.sub(lambda match: match[2], text)
