"""Rates and counts that processes share, and that outlive them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mtaq.net.counters import SETS, WAYS, CountTable, RateTable, TallyTable

ROOT = Path(__file__).resolve().parents[2]
BOOT, NEXT_BOOT = b"1" * 36, b"2" * 36
NOW = 1_000_000.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file."""
    return tmp_path / "table"


@pytest.fixture
def counts(path: Path) -> Iterator[CountTable]:
    """A table with a window of a minute."""
    table = CountTable(path, window_s=60, boot=BOOT)
    yield table
    table.close()


def elsewhere(path: Path, code: str) -> subprocess.Popen[str]:
    """Start a process with a table of counts at *path*."""
    begin = f"from mtaq.net.counters import *\ntable = CountTable(Path({str(path)!r}), window_s=60, boot={BOOT!r})\n"
    return subprocess.Popen(
        [sys.executable, "-c", begin + code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_a_minutes_worth_may_come_at_once_and_then_no_more(counts: CountTable) -> None:
    """Until the window has passed; other keys have their own."""
    assert [counts.take(b"a", limit=3, now=NOW) for _ in range(3)] == [0, 0, 0]
    wait = counts.take(b"a", limit=3, now=NOW)
    assert 60 <= wait <= 65
    assert counts.take(b"a", limit=3, now=NOW + wait - 0.01) > 0
    assert counts.take(b"b", limit=3, now=NOW) == 0
    assert counts.take(b"a", limit=3, now=NOW + wait) == 0


def test_what_was_refused_is_not_counted(counts: CountTable) -> None:
    """Asking again and again does not lengthen the wait."""
    counts.take(b"a", limit=1, now=NOW)
    wait = counts.take(b"a", limit=1, now=NOW)
    assert counts.take(b"a", limit=1, now=NOW + 30) == pytest.approx(wait - 30)
    assert counts.count(b"a", now=NOW + 30) == 1


def test_counting_and_looking(counts: CountTable) -> None:
    """``add`` tells how many there were, ``count`` changes nothing; both forget."""
    assert [counts.add(b"a", now=NOW + second) for second in range(5)] == [1, 2, 3, 4, 5]
    assert counts.count(b"a", now=NOW + 59) == 5
    assert counts.count(b"a", now=NOW + 59) == 5
    assert counts.count(b"b", now=NOW) == 0
    assert counts.count(b"a", now=NOW + 70) == 0


def test_processes_count_together(path: Path, counts: CountTable) -> None:
    """Four that take as much as they can get exactly the limit, and no count is lost."""
    code = f"print(sum(table.take(b'a', limit=500, now={NOW}) == 0 for _ in range(400)), flush=True)"
    processes = [elsewhere(path, code) for _ in range(4)]
    assert sum(json.loads(process.communicate()[0]) for process in processes) == 500
    assert counts.count(b"a", now=NOW) == 500


def test_counts_outlive_a_killed_process(path: Path, counts: CountTable) -> None:
    """A worker that starts anew goes on where the dead one was."""
    process = elsewhere(path, f"print(table.add(b'a', now={NOW}), flush=True)\ninput()")
    assert process.stdout is not None
    assert process.stdout.readline() == "1\n"
    process.kill()
    process.communicate()
    assert counts.add(b"a", now=NOW) == 2


def test_who_stands_still_with_a_lock_holds_up_nobody_for_long(path: Path, counts: CountTable) -> None:
    """Everybody else counts beside it."""
    process = elsewhere(
        path, "for at in range(4096, 4096 + SETS): assert table._table._file.try_lock(at)\nprint(flush=True)\ninput()"
    )
    assert process.stdout is not None
    process.stdout.readline()
    assert [counts.add(b"a", now=NOW) for _ in range(2)] == [1, 2]
    process.kill()
    process.communicate()


def test_nothing_is_remembered_of_an_earlier_boot(path: Path, counts: CountTable) -> None:
    """Nor of a table that had another window: what its times mean is not known."""
    counts.add(b"a", now=NOW)
    again = CountTable(path, window_s=60, boot=BOOT)
    assert again.count(b"a", now=NOW) == 1
    again.close()
    later = CountTable(path, window_s=60, boot=NEXT_BOOT)
    assert later.count(b"a", now=NOW) == 0
    later.add(b"a", now=5.0)
    later.close()
    assert CountTable(path, window_s=600, boot=NEXT_BOOT).count(b"a", now=5.0) == 0


def test_a_flood_of_clients_takes_no_more_room(path: Path, counts: CountTable) -> None:
    """Whoever was not seen for longest makes room; who is busy all the time stays known."""
    before = path.stat()
    for number in range(SETS * WAYS // 8):
        counts.add(b"%d" % number, now=NOW + number / 1e6)
        if number % 100 == 0:
            counts.add(b"busy", now=NOW + number / 1e6)
    assert counts.count(b"busy", now=NOW + 1) == 82
    assert path.stat().st_size == before.st_size


def test_a_set_that_is_full_forgets_the_oldest(counts: CountTable, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nine keys in one set: the one touched longest ago is gone."""
    monkeypatch.setattr("mtaq.net.counters._place", lambda key: (7, key))
    keys = [b"key %04d" % number for number in range(WAYS + 1)]
    for number, key in enumerate(keys[:WAYS]):
        counts.add(key, now=NOW + number)
    counts.add(keys[0], now=NOW + 20)
    counts.add(keys[WAYS], now=NOW + 21)
    assert [counts.count(key, now=NOW + 22) for key in keys] == [2, 0, 1, 1, 1, 1, 1, 1, 1]


def test_rates_are_spread(path: Path) -> None:
    """With a burst of 1 each has to wait for the one before; the wait is told, and kept over a restart."""
    table = RateTable(path, boot=BOOT)
    assert table.take(b"a", per_minute=60, now=NOW) == 0
    assert table.take(b"a", per_minute=60, now=NOW + 0.25) == pytest.approx(0.75)
    assert table.take(b"b", per_minute=60, now=NOW) == 0
    table.close()
    table = RateTable(path, boot=BOOT)
    assert table.take(b"a", per_minute=60, now=NOW + 0.5) == pytest.approx(0.5)
    assert table.take(b"a", per_minute=60, now=NOW + 1) == 0
    assert [table.take(b"c", per_minute=60, burst=3, now=NOW) for _ in range(4)] == [0, 0, 0, pytest.approx(1)]


def test_a_real_boot_has_a_name(path: Path) -> None:
    """The table of this host can be used as it is."""
    assert CountTable(path, window_s=600).add(b"a", now=NOW) == 1


def test_things_of_different_size_share_a_window(counts: CountTable) -> None:
    """What does not fit waits for room; what is larger than the limit goes alone."""
    assert counts.take(b"a", limit=100, count=70, now=NOW) == 0
    assert counts.look(b"a", limit=100, count=30, now=NOW) == 0
    wait = counts.look(b"a", limit=100, count=31, now=NOW)
    assert wait == counts.take(b"a", limit=100, count=31, now=NOW) > 59
    assert counts.take(b"a", limit=100, count=900, now=NOW) > 59
    assert counts.take(b"a", limit=100, count=900, now=NOW + wait) == 0


def test_turns_are_reserved_one_behind_the_other(path: Path) -> None:
    """However many processes ask, and none that would come too late."""
    line = RateTable(path, boot=BOOT)
    found = [line.reserve(b"a", takes_s=2, not_before_s=5, within_s=60, now=NOW) for _ in range(3)]
    assert found == [pytest.approx(5), pytest.approx(7), pytest.approx(9)]
    assert line.look(b"a", now=NOW) == pytest.approx(11)
    assert line.reserve(b"a", takes_s=2, not_before_s=5, within_s=10, now=NOW) is None
    assert line.look(b"a", now=NOW) == pytest.approx(11)
    assert line.reserve(b"b", takes_s=2, not_before_s=0, within_s=0, now=NOW) == 0
    line.close()


def test_a_tally_counts_to_its_limit_and_no_further(path: Path) -> None:
    """It does not forget with time."""
    tally = TallyTable(path, boot=BOOT)
    assert [tally.take(b"day 1", limit=2, now=NOW + day * 86400) for day in range(3)] == [True, True, False]
    assert (tally.count(b"day 1"), tally.count(b"day 2")) == (2, 0)
    tally.close()
