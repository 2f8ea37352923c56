"""Whose is an idempotency key? The first one's, in every process of the host, also after a crash."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mtaq.broker import idempotency as module
from mtaq.broker.idempotency import IdempotencyKeys
from mtaq.model.errors import BrokerUnavailable, ConfigError

PROJECT = Path(__file__).parents[3]
KEY = b"k" * 32

#: Claims a hundred keys as one owner, says which are its own, and stands still to be killed.
_CLAIMANT = """
import asyncio, sys
from pathlib import Path
from mtaq.broker.idempotency import IdempotencyKeys

async def main(folder, owner):
    keys = IdempotencyKeys(Path(folder))
    numbers = range(100)
    first = await asyncio.gather(*(keys.claim(b"%032d" % number, owner, ttl_s=1000) for number in numbers))
    print(*(number for number, whose in zip(numbers, first) if whose == owner), flush=True)
    await asyncio.Event().wait()

asyncio.run(main(*sys.argv[1:]))
"""


@asynccontextmanager
async def opened(folder: Path, now: float = 1e9) -> AsyncIterator[IdempotencyKeys]:
    """Keys at a time that stands still."""
    keys = IdempotencyKeys(folder, clock=lambda: now)
    yield keys
    await keys.close()


async def test_the_first_has_it(tmp_path: Path) -> None:
    """However often anybody asks, and after a restart."""
    async with opened(tmp_path) as keys:
        assert [await keys.claim(KEY, owner, ttl_s=100) for owner in ("a", "b", "a")] == ["a", "a", "a"]
        assert await keys.claim(b"o" * 32, "b", ttl_s=100) == "b"
    async with opened(tmp_path) as keys:
        assert await keys.claim(KEY, "b", ttl_s=100) == "a"


async def test_a_claim_ends_when_its_claimant_said(tmp_path: Path) -> None:
    """Whoever asks later says nothing about it."""
    async with opened(tmp_path) as keys:
        await keys.claim(KEY, "a", ttl_s=100)
        await keys.claim(KEY, "b", ttl_s=10_000)
    async with opened(tmp_path, 1e9 + 99) as keys:
        assert await keys.claim(KEY, "b", ttl_s=100) == "a"
    async with opened(tmp_path, 1e9 + 100) as keys:
        assert await keys.claim(KEY, "b", ttl_s=100) == "b"


async def test_of_many_at_once_one_has_it(tmp_path: Path) -> None:
    """Also of those whose claims are written together."""
    async with opened(tmp_path) as keys:
        whose = await asyncio.gather(*(keys.claim(KEY, f"owner {number}", ttl_s=9) for number in range(50)))
        assert len(set(whose)) == 1


async def test_claims_that_are_over_are_forgotten(tmp_path: Path) -> None:
    """So the file does not grow for ever."""
    async with opened(tmp_path) as keys:
        for number in range(20):
            await keys.claim(b"%032d" % number, "a", ttl_s=100)
    async with opened(tmp_path, 1e9 + 101) as keys:
        await keys.claim(KEY, "b", ttl_s=100)
    assert sqlite3.connect(tmp_path / "claims.db").execute("SELECT owner FROM claims").fetchall() == [("b",)]


def test_of_processes_that_are_killed_one_has_each(tmp_path: Path) -> None:
    """Exactly one, and what it was told still holds when it is dead."""
    tmp_path.chmod(0o700)
    claimants = [
        subprocess.Popen(
            [sys.executable, "-c", _CLAIMANT, str(tmp_path), f"owner {number}"], cwd=PROJECT,
            stdout=subprocess.PIPE, text=True,
        )
        for number in range(3)
    ]  # fmt: skip
    had = []
    for claimant in claimants:
        assert claimant.stdout is not None
        had.append(set(map(int, claimant.stdout.readline().split())))
    for claimant in claimants:
        claimant.kill()
        claimant.communicate()
    assert sorted(number for numbers in had for number in numbers) == list(range(100))

    async def whose() -> list[str]:
        async with opened(tmp_path, 0) as keys:
            return [await keys.claim(b"%032d" % number, "late", ttl_s=100) for number in range(100)]

    for number, owner in enumerate(asyncio.run(whose())):
        assert number in had[int(owner.removeprefix("owner "))]


async def test_a_folder_that_cannot_be_used_is_tried_again(tmp_path: Path) -> None:
    """It is not known then whose a key is."""
    folder = tmp_path / "file"
    folder.write_text("no folder")
    async with opened(folder) as keys:
        for _ in range(2):
            with pytest.raises(BrokerUnavailable):
                await keys.claim(KEY, "a", ttl_s=9)
        folder.unlink()
        assert await keys.claim(KEY, "a", ttl_s=9) == "a"


async def test_a_file_of_a_newer_program_is_not_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says so."""
    monkeypatch.setattr(module, "FORMAT_VERSION", 2)
    async with opened(tmp_path) as keys:
        await keys.claim(KEY, "a", ttl_s=9)
    monkeypatch.undo()
    async with opened(tmp_path) as keys:
        for opening in (keys.start, lambda: keys.claim(KEY, "a", ttl_s=9)):
            with pytest.raises(ConfigError, match="newer"):
                await opening()


async def test_closing_what_was_never_asked_does_nothing(tmp_path: Path) -> None:
    """No file, no thread."""
    async with opened(tmp_path / "keys") as keys:
        await keys.start()
    assert not (tmp_path / "keys").exists()
