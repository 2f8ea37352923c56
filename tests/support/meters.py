"""What delivery processes count together, in memory: the decisions are the real ones, the tables are dictionaries."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable

from mtaq.deliver.gate import MINUTE_S
from mtaq.deliver.ports import Meters
from mtaq.limits.gcra import next_place, next_turn
from mtaq.limits.window import EMPTY, PARTS, Window


class FakeRates:
    """``RateTable`` in memory."""

    def __init__(self) -> None:
        self.due: defaultdict[bytes, int] = defaultdict(int)

    def take(self, key: bytes, *, per_minute: float, burst: int = 1, now: float) -> float:
        """Take a turn."""
        turn = next_turn(self.due[key], per_minute=per_minute, burst=burst, now_ns=int(now * 1e9))
        self.due[key] = turn.due_ns
        return turn.wait_ns / 1e9

    def look(self, key: bytes, *, now: float) -> float:
        """Look at the end of the line."""
        return max(0.0, self.due[key] / 1e9 - now)

    def reserve(self, key: bytes, *, takes_s: float, not_before_s: float, within_s: float, now: float) -> float | None:
        """Take a place."""
        place = next_place(
            self.due[key],
            takes_ns=int(takes_s * 1e9),
            from_ns=int((now + not_before_s) * 1e9),
            until_ns=int((now + within_s) * 1e9),
        )
        if place is None:
            return None
        self.due[key] = place.due_ns
        return not_before_s + place.wait_ns / 1e9


class FakeVolumes:
    """``CountTable`` in memory."""

    def __init__(self) -> None:
        self._part_s = MINUTE_S / (PARTS - 1)
        self._windows: defaultdict[bytes, Window] = defaultdict(lambda: EMPTY)

    def take(self, key: bytes, *, limit: int, count: int, now: float) -> float:
        """Count."""
        wait_s = self.look(key, limit=limit, count=count, now=now)
        if not wait_s:
            self._windows[key] = self._windows[key].at(int(now / self._part_s)).with_more(count)
        return wait_s

    def look(self, key: bytes, *, limit: int, count: int, now: float) -> float:
        """Look for room."""
        parts = self._windows[key].at(int(now / self._part_s)).parts_until_room(limit, count)
        return parts * self._part_s - now % self._part_s if parts else 0.0


class FakeTallies:
    """``TallyTable`` in memory."""

    def __init__(self) -> None:
        self.counts: defaultdict[bytes, int] = defaultdict(int)

    def take(self, key: bytes, *, limit: int, now: float) -> bool:
        """Count."""
        if self.counts[key] >= limit:
            return False
        self.counts[key] += 1
        return True

    def count(self, key: bytes) -> int:
        """Tell."""
        return self.counts[key]


def fake_meters(now: Callable[[], float] | None = None, *, processes: int = 1) -> Meters:
    """Return meters of a single process, by the event loop's clock unless *now* is given."""
    return Meters(
        rates=FakeRates(),
        lines=FakeRates(),
        volumes=FakeVolumes(),
        tallies=FakeTallies(),
        now=now or asyncio.get_running_loop().time,
        processes=processes,
    )
