"""``file://``: lines of ``user:hash`` in a file, read again when it changed.

Fields behind the hash do not count, so that files in the form of /etc/shadow work as they are; neither do empty lines
and lines that start with ``#``. Of two lines for a user the first counts. A file that cannot be read is nobody's no:
it raises ``OSError``.
"""

from __future__ import annotations

import asyncio
import errno
import os
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from mtaq.model.login import Verdict
from mtaq.smtpauth.crypt import fits, is_usable

_MAX_FILE_BYTES = 64 * 1024 * 1024
#: Compared against for users that do not exist where no user exists; nobody knows the password.
_NOBODY = "$6$mtaq$" + "." * 86


class _Stamp(NamedTuple):
    mtime_ns: int
    ctime_ns: int
    inode: int
    size_bytes: int


class UsersFile:
    """The users of one file."""

    at_once = 1000  # the threads are the bound

    def __init__(self, path: str) -> None:
        self._path = path
        self._stamp: _Stamp | None = None
        self._hashes: dict[str, str] = {}
        self._threads = ThreadPoolExecutor(max_workers=4, thread_name_prefix="users-file")

    @property
    def name(self) -> str:
        """The form."""
        return f"file://{self._path}"

    async def check(self, user: str, password: str, client_ip: str) -> Verdict:
        """Look up and compare in a thread, because a hash is made to be slow."""
        accepted = await asyncio.get_running_loop().run_in_executor(self._threads, self._accepts, user, password)
        return Verdict.ACCEPTED if accepted else Verdict.REFUSED

    async def close(self) -> None:
        """Let the threads end."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _accepts(self, user: str, password: str) -> bool:
        hashes = self._current()
        if user in hashes:
            return fits(password, hashes[user])
        # As slow as for a user that exists, so that time does not tell who does.
        fits(password, next(filter(is_usable, hashes.values()), _NOBODY))
        return False

    def _current(self) -> dict[str, str]:
        with open(self._path, "rb") as file:
            status = os.fstat(file.fileno())
            stamp = _Stamp(status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_size)
            if stamp != self._stamp:
                content = file.read(_MAX_FILE_BYTES + 1)
                if len(content) > _MAX_FILE_BYTES:
                    raise OSError(errno.EFBIG, f"{self._path} is larger than {_MAX_FILE_BYTES} bytes")
                self._hashes, self._stamp = parse(content), stamp
        return self._hashes


def parse(content: bytes) -> dict[str, str]:
    """Return the hash of each user; what is no such line is left out."""
    found: dict[str, str] = {}
    for line in content.decode("utf-8", "replace").split("\n"):
        user, colon, rest = line.strip().partition(":")
        if user and colon and not user.startswith("#"):
            found.setdefault(user, rest.partition(":")[0])
    return found
