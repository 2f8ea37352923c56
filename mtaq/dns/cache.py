"""DNS answers, remembered for as long as they hold, and some time longer for when nobody answers.

Knows nothing of DNS itself: keys and answers are opaque. Bounded in number and in memory; what was used longest ago
goes first.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


@dataclass(slots=True)
class _Entry(Generic[Value]):
    value: Value
    fresh_until: float
    kept_until: float
    size_bytes: int


class Cache(Generic[Key, Value]):
    """A map whose entries end.

    Args:
        size: Most entries held.
        size_bytes: Most memory that they take together.
        clock: Seconds from anywhere, never going back.
    """

    def __init__(self, size: int, size_bytes: int, clock: Callable[[], float]) -> None:
        self._size = size
        self._free_bytes = size_bytes
        self._clock = clock
        self._entries: OrderedDict[Key, _Entry[Value]] = OrderedDict()

    def get(self, key: Key) -> Value | None:
        """Return what was stored under *key*, or ``None`` when there is nothing or its time is over."""
        entry = self._entries.get(key)
        if entry is None or self._clock() >= entry.fresh_until:
            return None
        self._entries.move_to_end(key)
        return entry.value

    def get_stale(self, key: Key) -> Value | None:
        """Return what is still kept under *key*, although its time may be over."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if self._clock() >= entry.kept_until:
            self._drop(key)
            return None
        return entry.value

    def put(self, key: Key, value: Value, ttl_s: float, *, size_bytes: int, stale_s: float = 0) -> None:
        """Store *value* for *ttl_s* seconds, 0 or less stores nothing; and keep it *stale_s* seconds longer."""
        self._drop(key)
        if ttl_s <= 0:
            return
        now = self._clock()
        self._entries[key] = _Entry(value, now + ttl_s, now + ttl_s + stale_s, size_bytes)
        self._free_bytes -= size_bytes
        while self._entries and (len(self._entries) > self._size or self._free_bytes < 0):
            self._drop(next(iter(self._entries)))

    def revive(self, key: Key, ttl_s: float) -> None:
        """Let ``get`` return for *ttl_s* seconds what is stale under *key*; it is kept no longer for that."""
        entry = self._entries.get(key)
        if entry is not None:
            entry.fresh_until = min(self._clock() + ttl_s, entry.kept_until)

    def _drop(self, key: Key) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._free_bytes += entry.size_bytes

    def __len__(self) -> int:
        return len(self._entries)


def memory_of(value: Any) -> int:
    """Return about how many bytes *value* takes, tuples with what is in them."""
    return sys.getsizeof(value) + (sum(map(memory_of, value)) if isinstance(value, tuple) else 0)
