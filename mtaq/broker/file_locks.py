"""Locks on bytes of a file, which the kernel frees when their holder dies.

They are "open file description" locks: each ``RangeLocks`` excludes every other one, in this process and elsewhere,
and nothing else that happens to the file in this process (another open, another close) touches them, which plain
POSIX locks cannot say. A process forked off without ``exec`` shares them: open after the fork.

Linux, local file systems. Fails with ``OSError`` when the file cannot be opened.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from pathlib import Path

#: ``struct flock`` as the 64-bit calls take it: type, whence, start, length, pid.
_FLOCK = struct.Struct("@hhqqi")


def open_private(path: Path) -> int:
    """Open *path* to read and write, made if missing: readable by its owner alone, whatever the umask.

    Root hands a file it makes to the owner of the folder, so that the daemon can use what a root shell touched first.

    Returns:
        The file descriptor, not inherited by programs started later.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    os.fchmod(fd, 0o600)
    if os.geteuid() == 0:
        folder = path.parent.stat()
        os.fchown(fd, folder.st_uid, folder.st_gid)
    return fd


class RangeLocks:
    """The locks that one holder has on one file. Not for use by several threads at once."""

    def __init__(self, path: Path) -> None:
        self._fd = open_private(path)

    def try_lock(self, offset: int) -> bool:
        """Lock the byte at *offset* (0 to 2^63 - 2; it need not exist) unless somebody else holds it.

        What this object holds already it gets again.
        """
        try:
            fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, offset, 1, 0))
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return False
            raise
        return True

    def unlock(self, offset: int) -> None:
        """Free the byte at *offset*, held or not."""
        fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, offset, 1, 0))

    def is_locked(self, offset: int) -> bool:
        """Does somebody other than this object hold the byte at *offset*?"""
        asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, offset, 1, 0)
        answer = fcntl.fcntl(self._fd, fcntl.F_OFD_GETLK, asked)
        return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)

    def close(self) -> None:
        """Free everything."""
        os.close(self._fd)
