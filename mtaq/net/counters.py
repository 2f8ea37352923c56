"""Rates and counts that all processes of an instance share, and that outlive any of them: tables in the run directory.

A table holds 65,536 keys, whatever comes: in sets of eight, in which a new key takes the place of the one that was
touched longest ago. A lock on the set keeps two processes from counting at once. One that is killed while it writes
leaves an entry that is wrong for one key and for as long as it counts, nothing else; one that stands still there is
waited for some milliseconds, then counted beside. What it forgets or miscounts lets somebody go early; it is for
limits, not for accounts.

Time is ``uptime_s``: the same in every process, whatever is done to the wall clock. A table of an earlier boot is
begun anew. One table per file in a process, see ``mtaq.net.shared_file``.
"""

from __future__ import annotations

import hashlib
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from mtaq.limits.gcra import next_place, next_turn
from mtaq.limits.window import PARTS, Window
from mtaq.net.shared_file import SharedFile

T = TypeVar("T")

SETS = 8192
WAYS = 8

_HEADER_BYTES = 4096
_HEADER = struct.Struct("<8s36s")
_TAG_BYTES = 8
_TOUCHED = struct.Struct("<d")
_PAYLOAD = _TAG_BYTES + _TOUCHED.size


def uptime_s() -> float:
    """Return the seconds since the host was started, suspension included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot_id() -> bytes:
    """Return a name of this boot of the host, 36 bytes."""
    return Path("/proc/sys/kernel/random/boot_id").read_bytes().strip()


class _Table:
    """Keys and what is kept of each, *payload_bytes* that are zero at first."""

    def __init__(self, path: Path, kind: bytes, payload_bytes: int, boot: bytes) -> None:
        self._entry = _PAYLOAD + payload_bytes
        self._set = self._entry * WAYS
        size = _HEADER_BYTES + self._set * SETS
        self._file = SharedFile(path, size, used=[(0, size)])
        self._empty = bytes(payload_bytes)
        self._begin(_HEADER.pack(kind, boot), size)

    def change(self, key: bytes, now: float, work: Callable[[bytes], tuple[bytes, T]]) -> T:
        """Let *work* make the new payload of *key*, and an answer, out of the old one."""
        number, tag = _place(key)
        start = _HEADER_BYTES + number * self._set
        # Not granted when its holder stands still: one of two may then be lost.
        locked = self._file.lock(_HEADER_BYTES + number)
        try:
            found = self._file.memory[start : start + self._set]
            at = self._find(found, tag)
            old = self._empty if at is None else found[at + _PAYLOAD : at + self._entry]
            at = start + (self._oldest(found) if at is None else at)
            new, answer = work(old)
            self._file.memory[at : at + self._entry] = tag + _TOUCHED.pack(now) + new
            return answer
        finally:
            if locked:
                self._file.unlock(_HEADER_BYTES + number)

    def look_up(self, key: bytes) -> bytes:
        """Return the payload of *key*."""
        number, tag = _place(key)
        start = _HEADER_BYTES + number * self._set
        found = self._file.memory[start : start + self._set]
        at = self._find(found, tag)
        return self._empty if at is None else found[at + _PAYLOAD : at + self._entry]

    def close(self) -> None:
        """Close the file; what it holds stays."""
        self._file.close()

    def _begin(self, header: bytes, size: int) -> None:
        """Empty a table of another kind, or of an earlier boot, before anybody of this one uses it."""
        locked = self._file.lock(0)
        try:
            if self._file.memory[: len(header)] != header:
                self._file.memory[_HEADER_BYTES:size] = bytes(size - _HEADER_BYTES)
                self._file.memory[: len(header)] = header
        finally:
            if locked:
                self._file.unlock(0)

    def _find(self, found: bytes, tag: bytes) -> int | None:
        for at in range(0, self._set, self._entry):
            if found.startswith(tag, at):
                return at
        return None

    def _oldest(self, found: bytes) -> int:
        return min(
            range(0, self._set, self._entry), key=lambda at: float(_TOUCHED.unpack_from(found, at + _TAG_BYTES)[0])
        )


class RateTable:
    """So many a minute for each key, see ``mtaq.limits.gcra``.

    Args:
        path: A file of its own in the run directory; made if missing.

    Raises:
        OSError: It cannot be opened for writing, or there is no room for it.
    """

    _DUE = struct.Struct("<Q")

    def __init__(self, path: Path, *, boot: bytes | None = None) -> None:
        self._table = _Table(path, b"rates\0\0\1", self._DUE.size, boot or boot_id())

    def take(self, key: bytes, *, per_minute: float, burst: int = 1, now: float) -> float:
        """
        Count one more for *key*, if it may go now.

        Args:
            per_minute: Above 0.
            burst: How many may go at once after a long silence.
            now: ``uptime_s``.

        Returns:
            0 when it may; else the seconds until one may, and nothing was counted.
        """

        def work(old: bytes) -> tuple[bytes, int]:
            turn = next_turn(self._DUE.unpack(old)[0], per_minute=per_minute, burst=burst, now_ns=int(now * 1e9))
            return self._DUE.pack(turn.due_ns), turn.wait_ns

        return self._table.change(key, now, work) / 1e9

    def look(self, key: bytes, *, now: float) -> float:
        """Return in how many seconds the line of *key* ends, or with a burst of 1 the next turn is; 0: at once."""
        due_ns: int = self._DUE.unpack(self._table.look_up(key))[0]
        return max(0.0, due_ns / 1e9 - now)

    def reserve(self, key: bytes, *, takes_s: float, not_before_s: float, within_s: float, now: float) -> float | None:
        """
        Reserve the next turn in the line of *key*, see ``mtaq.limits.gcra.next_place``.

        Args:
            takes_s: How long its turn is.
            not_before_s: Seconds from *now* before which it is of no use.
            within_s: Seconds from *now* after which it is of no use either.
            now: ``uptime_s``.

        Returns:
            Seconds from *now* until it; ``None`` when there is none in time, and nothing was reserved.
        """

        def work(old: bytes) -> tuple[bytes, float | None]:
            begin_ns = int((now + not_before_s) * 1e9)
            place = next_place(
                self._DUE.unpack(old)[0],
                takes_ns=max(1, int(takes_s * 1e9)),
                from_ns=begin_ns,
                until_ns=int((now + within_s) * 1e9),
            )
            if place is None:
                return old, None
            return self._DUE.pack(place.due_ns), not_before_s + place.wait_ns / 1e9

        return self._table.change(key, now, work)

    def close(self) -> None:
        """Close the file; what it holds stays."""
        self._table.close()


class CountTable:
    """How many in the last *window_s* seconds for each key, see ``mtaq.limits.window``.

    Args:
        path: A file of its own in the run directory; made if missing. All users give it the same window.

    Raises:
        OSError: It cannot be opened for writing, or there is no room for it.
    """

    _WINDOW = struct.Struct(f"<Q{PARTS}I")

    def __init__(self, path: Path, *, window_s: float, boot: bytes | None = None) -> None:
        self._part_s = window_s / (PARTS - 1)
        kind = b"count" + struct.pack("<H", int(window_s)) + b"\1"
        self._table = _Table(path, kind, self._WINDOW.size, boot or boot_id())

    def take(self, key: bytes, *, limit: int, now: float, count: int = 1) -> float:
        """
        Count *count* more for *key*, if that are no more than *limit* together, or if they are alone.

        Returns:
            0 when they were counted; else the seconds until there is room, and nothing was counted.
        """

        def work(old: bytes) -> tuple[bytes, int]:
            window = self._window(old, now)
            parts = window.parts_until_room(limit, count)
            return self._packed(window if parts else window.with_more(count)), parts

        return self._seconds(self._table.change(key, now, work), now)

    def look(self, key: bytes, *, limit: int, now: float, count: int = 1) -> float:
        """Return what ``take`` would, and count nothing."""
        return self._seconds(self._window(self._table.look_up(key), now).parts_until_room(limit, count), now)

    def add(self, key: bytes, *, now: float) -> int:
        """Count one more for *key*; return how many there were with it."""

        def work(old: bytes) -> tuple[bytes, int]:
            window = self._window(old, now).with_more()
            return self._packed(window), window.total

        return self._table.change(key, now, work)

    def count(self, key: bytes, *, now: float) -> int:
        """Return how many there were for *key*."""
        return self._window(self._table.look_up(key), now).total

    def close(self) -> None:
        """Close the file; what it holds stays."""
        self._table.close()

    def _seconds(self, parts: int, now: float) -> float:
        return parts * self._part_s - now % self._part_s if parts else 0.0

    def _window(self, packed: bytes, now: float) -> Window:
        part, *counts = self._WINDOW.unpack(packed)
        return Window(part, counts).at(int(now / self._part_s))

    def _packed(self, window: Window) -> bytes:
        return self._WINDOW.pack(window.part, *window.counts)


class TallyTable:
    """How many there were for each key, for ever: a new one begins with a new key.

    Args:
        path: A file of its own in the run directory; made if missing.

    Raises:
        OSError: It cannot be opened for writing, or there is no room for it.
    """

    _COUNT = struct.Struct("<Q")

    def __init__(self, path: Path, *, boot: bytes | None = None) -> None:
        self._table = _Table(path, b"tally\0\0\1", self._COUNT.size, boot or boot_id())

    def take(self, key: bytes, *, limit: int, now: float) -> bool:
        """Count one more for *key*, if there were fewer than *limit*; were there?"""

        def work(old: bytes) -> tuple[bytes, bool]:
            count = self._COUNT.unpack(old)[0]
            return (old, False) if count >= limit else (self._COUNT.pack(count + 1), True)

        return self._table.change(key, now, work)

    def count(self, key: bytes) -> int:
        """Return how many there were."""
        return int(self._COUNT.unpack(self._table.look_up(key))[0])

    def close(self) -> None:
        """Close the file; what it holds stays."""
        self._table.close()


def _place(key: bytes) -> tuple[int, bytes]:
    digest = hashlib.blake2b(key, digest_size=_TAG_BYTES + 4).digest()
    return int.from_bytes(digest[_TAG_BYTES:], "big") % SETS, digest[:_TAG_BYTES]
