"""Claims on attempts: held by one at a time, freed with their holder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mtaq.broker.claims import Claims

PROJECT = Path(__file__).parents[3]
ONE, OTHER = b"\x01" * 32, b"\xff" * 32


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "claims"


@pytest.fixture
def claims(path: Path) -> Iterator[Claims]:
    claims = Claims(path)
    yield claims
    claims.close()


def test_a_key_is_taken_once(claims: Claims) -> None:
    """Not even its holder gets it again before it is released; other keys are free."""
    assert claims.take(ONE)
    assert not claims.take(ONE)
    assert claims.take(OTHER)
    claims.release(ONE)
    assert claims.take(ONE)


def test_two_holders_of_one_process_exclude_each_other(claims: Claims, path: Path) -> None:
    """And closing one does not free what the other holds."""
    assert claims.take(ONE)
    second, third = Claims(path), Claims(path)
    assert not second.take(ONE)
    third.close()
    assert not second.take(ONE)
    claims.release(ONE)
    assert second.take(ONE)
    second.close()
    assert claims.take(ONE)


def test_a_killed_process_frees_its_claims(claims: Claims, path: Path) -> None:
    """The kernel does it, at once."""
    code = f"""
from mtaq.broker.claims import *
claims = Claims(Path({str(path)!r}))
print(claims.take({ONE!r}), flush=True)
input()
"""
    holder = subprocess.Popen(
        [sys.executable, "-c", code], cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "True\n"
    assert not claims.take(ONE)
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    assert claims.take(ONE)


def test_keys_that_meet_at_one_offset_wait_for_each_other(claims: Claims) -> None:
    """Only the first 62 bits count."""
    assert claims.take(bytes(32))
    assert not claims.take(bytes(31) + b"\x01")
    claims.release(bytes(32))
    assert claims.take(bytes(31) + b"\x01")


def test_the_file_stays_empty_and_private(claims: Claims, path: Path) -> None:
    """Locks cost no space, and others may not look."""
    old = os.umask(0)
    try:
        fresh = Claims(path.with_name("fresh"))
    finally:
        os.umask(old)
    assert fresh.take(OTHER)
    fresh.close()
    assert path.with_name("fresh").stat().st_size == 0
    assert path.with_name("fresh").stat().st_mode & 0o777 == 0o600
