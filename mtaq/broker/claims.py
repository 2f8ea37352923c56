"""Who is working on this right now? One attempt is made by one process at a time, on this host.

A claim is a lock on one byte of a file, at an offset that is the key's first 62 bits; the kernel frees it the moment
its process dies. Nothing is written. Two keys that meet at one offset (about once in 10^12 at a million claims) only
mean that the second waits until the first is released.
"""

from __future__ import annotations

from pathlib import Path

from mtaq.broker.file_locks import RangeLocks


class Claims:
    """The claims that this process holds. For one thread; open it after forking."""

    def __init__(self, path: Path) -> None:
        self._locks = RangeLocks(path)
        self._held: set[int] = set()

    def take(self, key: bytes) -> bool:
        """Claim *key* (32 bytes, a digest).

        Returns:
            False when another living process, or this one, holds it: ask again later.
        """
        offset = _offset(key)
        if offset in self._held or not self._locks.try_lock(offset):
            return False
        self._held.add(offset)
        return True

    def release(self, key: bytes) -> None:
        """Let go of *key*, which this object holds."""
        offset = _offset(key)
        self._held.remove(offset)
        self._locks.unlock(offset)

    def close(self) -> None:
        """Let go of everything."""
        self._held.clear()
        self._locks.close()


def _offset(key: bytes) -> int:
    return int.from_bytes(key[:8], "big") >> 2
