"""Entries about delivery, and a process's view of them, for tests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from mtaq.model.control import Entry
from mtaq.state.control import LiveControl, prepare
from mtaq.state.control_entries import About
from mtaq.state.rows import kind_of_entry

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Clock:
    """A time of day that the test moves."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


def about(*, for_s: float | None = None, automatic: bool = False, reason: str = "") -> About:
    """What an entry says of itself that was made at ``START``."""
    expires_at = None if for_s is None else START + timedelta(seconds=for_s)
    return About(reason=reason, expires_at=expires_at, automatic=automatic, created_at=START)


def control(*entries: Entry, clock: Clock | None = None) -> LiveControl:
    """A process that knows *entries* and nothing else."""
    live = LiveControl(clock or Clock(), lambda: None)
    kinds: dict[str, list[Entry]] = {}
    for entry in entries:
        kinds.setdefault(kind_of_entry(entry), []).append(entry)
    for kind, found in kinds.items():
        live.replace(kind, prepare(kind, found))
    return live


def place(source: str | None = "192.0.2.1", domain: str = "example.com", **more: Any) -> dict[str, Any]:
    """Where a message goes from and to, as questions ask it."""
    return {"source": source, "pools": (), "domain": domain, "site": "mx.example.net"} | more
