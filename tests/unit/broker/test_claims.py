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


def test_an_expected_twin_is_remembered_by_all_and_for_good(path: Path, claims: Claims) -> None:
    """Another process knows it, and so does one that comes later; other keys are not expected."""
    other = Claims(path)
    assert not claims.expects_twin(ONE)
    claims.expect_twin(ONE)
    assert other.expects_twin(ONE)
    assert not other.expects_twin(OTHER)
    other.close()
    later = Claims(path)
    assert later.expects_twin(ONE)
    later.close()


def test_a_table_with_too_many_marks_is_begun_anew(claims: Claims, monkeypatch: pytest.MonkeyPatch) -> None:
    """It must not end with everything marked: every message would have the journal asked."""
    monkeypatch.setattr("mtaq.broker.claims._MOST_TWINS", 3)
    keys = [bytes([number]) * 32 for number in range(1, 5)]
    for key in keys:
        claims.expect_twin(key)
        claims.expect_twin(key)
    assert [claims.expects_twin(key) for key in keys] == [False, False, False, True]


def test_what_is_going_out_is_seen_by_others_and_after_a_crash(tmp_path: Path) -> None:
    """Until its outcome is noted."""
    claims, other = Claims(tmp_path / "claims"), Claims(tmp_path / "claims")
    claims.note_sending(ONE)
    claims.close()
    assert (other.was_sending(ONE), other.was_sending(OTHER)) == (True, False)
    other.note_sent(ONE)
    assert not Claims(tmp_path / "claims").was_sending(ONE)
    other.close()
