"""DNS answers, remembered for as long as they hold.

Knows nothing of DNS itself: keys and answers are opaque. Bounded; what was used longest ago goes first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Cache(Generic[Key, Value]):
    """A map whose entries end.

    Args:
        size: Most entries held.
        clock: Seconds from anywhere, never going back.
    """

    def __init__(self, size: int, clock: Callable[[], float]) -> None:
        self._size = size
        self._clock = clock
        self._entries: OrderedDict[Key, tuple[float, Value]] = OrderedDict()

    def get(self, key: Key) -> Value | None:
        """Return what was stored under *key*, or ``None`` when there is nothing or its time is over."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        expires_at, value = entry
        if self._clock() >= expires_at:
            del self._entries[key]
            return None
        self._entries.move_to_end(key)
        return value

    def put(self, key: Key, value: Value, ttl_s: float) -> None:
        """Store *value* for *ttl_s* seconds; 0 or less stores nothing."""
        self._entries.pop(key, None)
        if ttl_s <= 0:
            return
        self._entries[key] = (self._clock() + ttl_s, value)
        if len(self._entries) > self._size:
            self._entries.popitem(last=False)

    def __len__(self) -> int:
        return len(self._entries)
