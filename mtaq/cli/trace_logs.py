"""Finding a message in log files: the named ones, and what rotation made of them (``.1``, ``.2.gz`` …).

Reads lines, never a whole file, the newest file first, and stops at its bounds. Only lines in JSON can be found; a file
that cannot be read is told and left out.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

#: Most that is read of all files together, uncompressed; longest line; most lines found.
MOST_BYTES = 4 * 1024**3
MOST_LINE_BYTES = 1024 * 1024
MOST_FOUND = 1000
MOST_ROTATED = 60


class Line(NamedTuple):
    """A line that is about the message."""

    file: str
    record: dict[str, Any]


class Searched(NamedTuple):
    """What a search came to.

    Attributes:
        lines: In the order of their times.
        problems: Files that could not be read, or not to the end; one sentence each.
    """

    lines: list[Line]
    problems: list[str]


def rotated(path: Path) -> list[Path]:
    """Return *path* and what rotation made of it, the newest first."""
    names = f"{path.name}.*"
    found = [each for each in path.parent.glob(names) if each.is_file()] if path.parent.is_dir() else []
    found.sort(key=lambda each: each.stat().st_mtime, reverse=True)
    return [each for each in (path, *found[:MOST_ROTATED]) if each.is_file()]


def search(paths: Sequence[Path], ids: Sequence[str]) -> Searched:
    """Find every line that is about one of *ids*, of messages or transactions."""
    needles = [_transaction(id).encode() for id in ids]
    lines: list[Line] = []
    problems: list[str] = []
    left = MOST_BYTES
    for path in paths:
        try:
            for raw in _lines(path):
                left -= len(raw)
                if any(needle in raw for needle in needles):
                    record = _record(raw)
                    if record is not None and is_about(record, ids):
                        lines.append(Line(str(path), record))
                if left < 0 or len(lines) >= MOST_FOUND:
                    break
        except (OSError, EOFError, zlib.error) as error:
            problems.append(f"{path}: {error}")
        if left < 0 or len(lines) >= MOST_FOUND:
            problems.append(f"{path}: not read to the end; older lines were not looked at")
            break
    lines.sort(key=lambda line: str(line.record.get("at", "")))
    return Searched(lines, problems)


def is_about(record: dict[str, Any], ids: Sequence[str]) -> bool:
    """Is a line about one of *ids*? Reception names the transaction, delivery each recipient's message."""
    named = record.get("message_id")
    if not isinstance(named, str) or not named:
        return False
    return any(named == id or named.startswith(f"{id}.") or _transaction(id) == named for id in ids)


def _transaction(id: str) -> str:
    """Return the id of the transaction that a message came with; *id* itself when it has no number."""
    before, _, number = id.rpartition(".")
    return before if before and number.isdecimal() else id


def _record(raw: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(raw)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _lines(path: Path) -> Iterator[bytes]:
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
        while raw := file.readline(MOST_LINE_BYTES):
            yield raw
