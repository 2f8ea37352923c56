"""A cap that holds exactly across the processes of an instance, and survives the death of any of them.

One file, one byte per slot, one POSIX record lock (fcntl(2)) per slot taken: the kernel frees the slots of a process
in the moment it dies, whatever killed it. No server, no counter that could be wrong after a crash.

POSIX locks belong to the process, with two consequences: they never conflict inside it, so it keeps its own set of
what it took; and closing *any* descriptor of the file gives all of them up, so there is one ``Slots`` per file in a
process, and nothing else opens that file.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class Slots:
    """*count* slots, shared by all processes that open *path*.

    Args:
        path: A file of its own in the run directory; created when missing.
        count: The same in every process.

    Raises:
        OSError: The file cannot be opened for writing.
    """

    def __init__(self, path: Path, count: int) -> None:
        self._count = count
        self._taken: set[int] = set()
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        # Processes begin far from each other, so that the first try usually succeeds while few slots are taken.
        self._next = os.getpid() * 0x9E3779B1 % count if count else 0

    @property
    def taken(self) -> int:
        """Slots that this process holds."""
        return len(self._taken)

    def take(self) -> int | None:
        """Take a slot; ``None`` when all are taken. One system call while most are free, *count* when none is."""
        for step in range(self._count):
            slot = (self._next + step) % self._count
            if slot not in self._taken and self._lock(slot):
                self._taken.add(slot)
                self._next = (slot + 1) % self._count
                return slot
        return None

    def release(self, slot: int) -> None:
        """Give *slot* back. A slot that this process does not hold is left alone."""
        if slot not in self._taken:
            return
        self._taken.discard(slot)
        fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, slot)
        self._next = slot

    def close(self) -> None:
        """Give all slots back."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            self._taken.clear()

    def _lock(self, slot: int) -> bool:
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, slot)
        except (BlockingIOError, PermissionError):  # EAGAIN or EACCES: another process has it
            return False
        return True
