"""Finding a message in log files."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest

from mtaq.cli import trace_logs
from mtaq.cli.trace_logs import is_about, rotated, search


def write(path: Path, *records: object, age_s: int = 0) -> None:
    data = "".join(f"{record if isinstance(record, str) else json.dumps(record)}\n" for record in records).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    os.utime(path, (1_000_000 - age_s, 1_000_000 - age_s))


@pytest.mark.parametrize(
    ("named", "asked", "is_found"),
    [
        ("t.1", "t.1", True),
        ("t.1", "t", True),
        ("t", "t.1", True),
        ("t.10", "t.1", False),
        ("t.2", "t.1", False),
        ("tt", "t", False),
        ("", "t", False),
        (None, "t", False),
        (5, "5", False),
    ],
)
def test_ids(named: object, asked: str, is_found: bool) -> None:
    """A line about a transaction is about each of its messages, and the other way round."""
    assert is_about({"message_id": named}, [asked]) is is_found


def test_rotated_files(tmp_path: Path) -> None:
    """Lines are found in the file and in what rotation made of it, in the order of their times."""
    log = tmp_path / "mtaq.log"
    write(log, {"at": "3", "message_id": "t.1"}, "no json t.1", '["t.1"]', {"at": "9", "message_id": "other"})
    write(tmp_path / "mtaq.log.1", {"at": "2", "message_id": "t"}, age_s=10)
    write(tmp_path / "mtaq.log.2.gz", {"at": "1", "message_id": "t.1"}, age_s=20)
    write(tmp_path / "mtaq.logs", {"at": "0", "message_id": "t.1"})
    found = search(rotated(log), ["t.1"])
    assert [line.record["at"] for line in found.lines] == ["1", "2", "3"]
    assert not found.problems


def test_broken_files(tmp_path: Path) -> None:
    """A file that cannot be read is told, and the others are read all the same."""
    write(tmp_path / "a.log", {"at": "1", "message_id": "t"})
    (tmp_path / "a.log.1.gz").write_bytes(b"no gzip")
    (tmp_path / "a.log.2.gz").write_bytes(gzip.compress(bytes(range(256)) * 4)[:40])
    found = search(rotated(tmp_path / "a.log"), ["t"])
    assert len(found.lines) == 1
    assert len(found.problems) == 2
    assert rotated(tmp_path / "missing" / "a.log") == []


def test_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more is read than the bounds allow, and that is told."""
    monkeypatch.setattr(trace_logs, "MOST_FOUND", 3)
    write(tmp_path / "a.log", *({"at": str(number), "message_id": "t"} for number in range(10)))
    found = search(rotated(tmp_path / "a.log"), ["t"])
    assert len(found.lines) == 3
    assert "not read to the end" in found.problems[0]
    monkeypatch.setattr(trace_logs, "MOST_LINE_BYTES", 10)
    assert search(rotated(tmp_path / "a.log"), ["t"]).lines == []
