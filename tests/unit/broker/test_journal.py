"""The delivery journal: what was recorded is known to everybody, also after a crash, for seven days."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mtaq.broker import journal as journal_module
from mtaq.broker.journal import Entry, Journal
from mtaq.model.errors import BrokerUnavailable, ConfigError
from mtaq.model.parcel import BrokerState

PROJECT = Path(__file__).parents[3]
KEY, OTHER = b"k" * 32, b"o" * 32
ENTRY = {"reply": {"code": 250, "text": "größer"}, "at": "2026-01-02 03:04:05"}


@asynccontextmanager
async def opened(folder: Path, now: float = 1e9) -> AsyncIterator[Journal]:
    journal = Journal(folder, clock=lambda: now)
    await journal.start()
    yield journal
    await journal.close()


async def test_an_entry_is_found_until_it_is_settled_and_after(tmp_path: Path) -> None:
    """Nothing, then recorded, then settled; each survives a restart."""
    async with opened(tmp_path) as journal:
        assert await journal.look_up(KEY) is None
        await journal.record(KEY, ENTRY)
        assert await journal.look_up(KEY) == Entry(ENTRY, settled=False)
        assert await journal.look_up(OTHER) is None
    async with opened(tmp_path) as journal:
        assert await journal.look_up(KEY) == Entry(ENTRY, settled=False)
        journal.settle(KEY)
    async with opened(tmp_path) as journal:
        assert await journal.look_up(KEY) == Entry(ENTRY, settled=True)


async def test_an_entry_that_nothing_follows_from(tmp_path: Path) -> None:
    """Is settled as soon as it is recorded."""
    async with opened(tmp_path) as journal:
        await journal.record(KEY, ENTRY, settled=True)
        assert await journal.look_up(KEY) == Entry(ENTRY, settled=True)


async def test_a_second_record_replaces_the_first(tmp_path: Path) -> None:
    """And is not settled."""
    async with opened(tmp_path) as journal:
        await journal.record(KEY, ENTRY)
        journal.settle(KEY)
        await journal.record(KEY, {})
        assert await journal.look_up(KEY) == Entry({}, settled=False)


async def test_processes_see_each_others_records_at_once(tmp_path: Path) -> None:
    """What one has recorded the other finds."""
    async with opened(tmp_path) as one, opened(tmp_path) as two:
        for number in range(20):
            key = bytes([number]) * 32
            await one.record(key, {"number": number})
            assert await two.look_up(key) == Entry({"number": number}, settled=False)


async def test_many_at_once_are_all_recorded(tmp_path: Path) -> None:
    """Two processes, two hundred records."""
    keys = [bytes([number]) * 32 for number in range(200)]
    async with opened(tmp_path) as one, opened(tmp_path) as two:
        await asyncio.gather(*((one if key[0] % 2 else two).record(key, {}) for key in keys))
        assert None not in await asyncio.gather(*(one.look_up(key) for key in keys))


async def test_what_was_recorded_survives_a_kill(tmp_path: Path) -> None:
    """``record`` returned, the process died: the entry is there."""
    code = f"""
import asyncio, os
from pathlib import Path
from mtaq.broker.journal import Journal
async def main():
    journal = Journal(Path({str(tmp_path)!r}))
    await journal.start()
    await journal.record({KEY!r}, {{"done": True}})
    os.kill(os.getpid(), 9)
asyncio.run(main())
"""
    assert (await asyncio.to_thread(subprocess.run, [sys.executable, "-c", code], cwd=PROJECT)).returncode == -9
    async with opened(tmp_path) as journal:
        assert await journal.look_up(KEY) == Entry({"done": True}, settled=False)


DAY_S = 86400


@pytest.mark.parametrize(("settled", "days"), [(True, 7), (False, 60)])
async def test_entries_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settled: bool, days: int) -> None:
    """After seven days; what is not settled, after sixty. A later record sweeps them out."""
    monkeypatch.setattr(journal_module, "_PRUNE_FIRST_S", 0.0)
    monkeypatch.setattr(journal_module, "_PRUNE_EVERY_S", 0.0)
    async with opened(tmp_path, now=1e9) as journal:
        await journal.record(KEY, ENTRY)
        if settled:
            journal.settle(KEY)
    async with opened(tmp_path, now=1e9 + days * DAY_S) as journal:
        await journal.record(OTHER, ENTRY)
        assert await journal.look_up(KEY) is not None
    async with opened(tmp_path, now=1e9 + days * DAY_S + 1) as journal:
        await journal.record(OTHER, ENTRY)
        assert await journal.look_up(KEY) is None
        assert await journal.look_up(OTHER) is not None


async def test_a_host_that_was_off_for_weeks_still_knows_what_it_had_in_hand(tmp_path: Path) -> None:
    """Nothing is forgotten right after a start: the broker hands out again what was under way when the power went."""
    async with opened(tmp_path, now=1e9) as journal:
        await journal.record(KEY, ENTRY)
        journal.settle(KEY)
    async with opened(tmp_path, now=1e9 + 300 * DAY_S) as journal:
        for number in range(3):
            await journal.record(bytes([number]) * 32, ENTRY)
        assert await journal.look_up(KEY) == Entry(ENTRY, settled=True)


async def test_a_settled_entry_is_not_another_ones(tmp_path: Path) -> None:
    """Settling touches its own entry alone."""
    async with opened(tmp_path) as journal:
        await journal.record(KEY, ENTRY)
        await journal.record(OTHER, ENTRY)
        journal.settle(OTHER)
        await journal.record(b"x" * 32, {})
        assert await journal.look_up(KEY) == Entry(ENTRY, settled=False)
        assert await journal.look_up(OTHER) == Entry(ENTRY, settled=True)


async def test_a_journal_that_cannot_be_used_says_so(tmp_path: Path) -> None:
    """No folder is unavailable, a newer format is a configuration error, a closed one is unavailable."""
    (tmp_path / "file").touch()
    with pytest.raises(BrokerUnavailable):
        await Journal(tmp_path / "file" / "j").start()
    async with opened(tmp_path) as journal:
        assert journal.state is BrokerState.UP
    assert journal.state is BrokerState.DOWN
    with pytest.raises(BrokerUnavailable):
        await journal.record(KEY, ENTRY)
    with sqlite3.connect(tmp_path / "journal.db") as connection:
        connection.execute("PRAGMA user_version = 2")
    with pytest.raises(ConfigError, match="newer"):
        await Journal(tmp_path).start()
