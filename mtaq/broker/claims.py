"""Who is working on this right now? One attempt is made by one process at a time, on this host.

A claim is a lock on one byte of a file, at an offset that is the key's first 62 bits; the kernel frees it the moment
its process dies. Two keys that meet at one offset (about once in 10^12 at a million claims) only mean that the second
waits until the first is released.

Beside it two tables. One of bytes notes whose content is going out: whoever is handed such a key by the broker, and
finds nothing in the journal, knows that it may be sent twice. It is in memory, so a crash leaves it and a loss of power
does not. And a table of bits remembers which keys may have a twin: whoever meets a copy that says so marks the key, and
another copy, which may not say it, is looked at twice. The table forgets everything when an eighth of it is marked.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path

from mtaq.broker.file_locks import RangeLocks, open_private

#: Bits of the table of twins, and how many marks it takes before it is begun anew.
_TWINS = 1 << 23
_MOST_TWINS = _TWINS // 8
_COUNT_BYTES = 8
#: Places in the table of what is going out; there are never more than a few thousand at once.
_SENDING = 1 << 20


class Claims:
    """The claims that this process holds. For one thread; open it after forking."""

    def __init__(self, path: Path) -> None:
        self._locks = RangeLocks(path)
        self._held: set[int] = set()
        self._twins = _shared_bytes(path.with_name(f"{path.name}.twins"), _COUNT_BYTES + _TWINS // 8)
        self._sending = _shared_bytes(path.with_name(f"{path.name}.sending"), _SENDING)

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

    def expect_twin(self, key: bytes) -> None:
        """Remember, for all processes and also after a crash, that there may be another copy under *key*."""
        place, bit = _twin(key)
        if self._twins[place] & bit:
            return
        count = int.from_bytes(self._twins[:_COUNT_BYTES], "little") + 1
        if count > _MOST_TWINS:
            self._twins[:] = bytes(len(self._twins))
            count = 1
        self._twins[:_COUNT_BYTES] = count.to_bytes(_COUNT_BYTES, "little")
        self._twins[place] |= bit

    def expects_twin(self, key: bytes) -> bool:
        """May there be, or have been, another copy? Sometimes true for no reason."""
        place, bit = _twin(key)
        return bool(self._twins[place] & bit)

    def note_sending(self, key: bytes) -> None:
        """Note that content is going out under *key*."""
        self._sending[_place(key)] = 1

    def note_sent(self, key: bytes) -> None:
        """Its outcome has been noted elsewhere."""
        self._sending[_place(key)] = 0

    def was_sending(self, key: bytes) -> bool:
        """Was content going out under *key*, and nobody came to note its outcome? Once in a million times wrong."""
        return bool(self._sending[_place(key)])

    def close(self) -> None:
        """Let go of everything."""
        self._twins.close()
        self._sending.close()
        self._held.clear()
        self._locks.close()


def _offset(key: bytes) -> int:
    return int.from_bytes(key[:8], "big") >> 2


def _place(key: bytes) -> int:
    return int.from_bytes(key[16:24], "big") % _SENDING


def _twin(key: bytes) -> tuple[int, int]:
    number = int.from_bytes(key[8:16], "big") % _TWINS
    return _COUNT_BYTES + (number >> 3), 1 << (number & 7)


def _shared_bytes(path: Path, size: int) -> mmap.mmap:
    fd = open_private(path)
    try:
        os.ftruncate(fd, size)
        return mmap.mmap(fd, size)
    finally:
        os.close(fd)
