"""A small file that all processes of an instance map into memory, with locks on single bytes of it.

What is written lives in the page cache, so it survives its writer and is never waited for. A lock is a POSIX record
lock (fcntl(2)): the kernel frees it in the moment its process dies, whatever killed it. The byte that is locked need
not exist. Space is reserved when the file is opened: a full file system is an error then, and not a crash later.

POSIX locks belong to the process, with two consequences: they never conflict inside it; and closing *any* descriptor
of the file gives all of them up, so a process opens a file once, and nothing else in it opens that file.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import time
from collections.abc import Iterable
from pathlib import Path

#: How long ``lock`` insists. Whoever holds a lock does so for microseconds; longer only if it was stopped meanwhile.
LOCK_TRIES = 50
LOCK_PAUSE_S = 0.0002

#: ``struct flock`` as the 64-bit calls take it: type, whence, start, length, pid.
_FLOCK = struct.Struct("@hhqqi")


class SharedFile:
    """A file of *size* bytes, zero where nothing was written. For one thread.

    Args:
        path: Made if missing, readable by its owner alone; never shrunk.
        used: The parts that will be written, as offset and length.

    Attributes:
        memory: The file's content.

    Raises:
        OSError: It cannot be opened for writing, or there is no room for it.
    """

    def __init__(self, path: Path, size: int, *, used: Iterable[tuple[int, int]]) -> None:
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(self.fd).st_size < size:
                os.ftruncate(self.fd, size)
            for offset, length in used:
                os.posix_fallocate(self.fd, offset, length)
            self.memory = mmap.mmap(self.fd, size)
        except OSError as error:
            os.close(self.fd)
            raise OSError(error.errno, error.strerror, str(path)) from error

    def try_lock(self, offset: int) -> bool:
        """Lock the byte at *offset* unless another process has it. What this one holds it gets again."""
        try:
            fcntl.lockf(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, offset)
        except (BlockingIOError, PermissionError):  # EAGAIN or EACCES: another process has it
            return False
        return True

    def lock(self, offset: int) -> bool:
        """Lock the byte at *offset*, waiting some 10 ms at most for whoever has it; was it granted?"""
        for _ in range(LOCK_TRIES):
            if self.try_lock(offset):
                return True
            time.sleep(LOCK_PAUSE_S)  # of the event loop, too: its holder is about to let go
        return False

    def unlock(self, offset: int) -> None:
        """Free the byte at *offset*."""
        fcntl.lockf(self.fd, fcntl.LOCK_UN, 1, offset)

    def is_locked(self, offset: int) -> bool:
        """Does another process hold the byte at *offset*?"""
        asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, offset, 1, 0)
        return bool(_FLOCK.unpack(fcntl.fcntl(self.fd, fcntl.F_GETLK, asked))[0] != fcntl.F_UNLCK)

    def close(self) -> None:
        """Free all locks. May be called twice."""
        if self.fd >= 0:
            self.memory.close()
            os.close(self.fd)
            self.fd = -1
