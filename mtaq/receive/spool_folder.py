"""The spool directory as files: which are ready, whose they are while being worked on, where they end.

A file is first renamed into the folder ``.taken``, so that nobody works on it twice and whoever writes a new file under
the old name loses nothing. A crash leaves it there, where it is found again. One process at a time works on a
directory: a lock in ``.taken`` that the kernel frees when its holder dies. Only regular files are taken, links are not
followed; what does not belong there is reported once and left. All methods block and are meant for threads; they raise
``OSError`` when the directory itself cannot be worked on.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pwd
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from mtaq.config.spool import SpoolOptions
from mtaq.receive.spool_content import LineEnds, SpooledContent, Unfit, read_spooled

TAKEN, DONE, LOCK = ".taken", "done", ".lock"

#: Whoever writes a file in place has made it empty before.
EMPTY_WAIT_S = 10.0

BLOCK_BYTES = 1024 * 1024


class Unsettled(Exception):
    """Somebody still writes the file."""


class Waiting(NamedTuple):
    """A file to take, or one that was taken before.

    Attributes:
        path: Where it is now.
        name: What it is called.
        size_bytes: Its size now.
        is_taken: It is in ``.taken`` already.
    """

    path: Path
    name: str
    size_bytes: int
    is_taken: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SpooledMessage:
    """One message out of the directory.

    Attributes:
        said: Envelope and content.
        directory: The spool directory.
        file: The file's own name.
        user: Who owned the file: a name, or a number without one.
        size_bytes: Size of the file.
    """

    said: SpooledContent
    directory: str
    file: str
    user: str
    size_bytes: int


class SpoolFolder:
    """Works on one spool directory."""

    def __init__(
        self,
        options: SpoolOptions,
        directory: str,
        *,
        max_bytes: int,
        strict: bool,
        report: Callable[[str, str], None],
    ) -> None:
        """Take files of up to *max_bytes* whose addresses are *strict*ly right; *report* hears what is not taken."""
        self._options = options
        self._directory = Path(directory)
        self._taken = self._directory / TAKEN
        self._max_bytes = max_bytes
        self._strict = strict
        self._report = report
        self._lock: int | None = None
        self._left: dict[str, tuple[int, ...]] = {}  # what is left where it is, until it changes

    def acquire(self) -> bool:
        """Become the one that works on the directory; ``False`` while another process is."""
        if self._lock is not None and not self._taken.is_dir():  # somebody tidied up
            self.release()
        if self._lock is None:
            self._taken.mkdir(mode=0o700, exist_ok=True)
            lock = os.open(self._taken / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                return False
            self._lock = lock
        return True

    def release(self) -> None:
        """Let another process work on the directory."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def waiting(self, now: float, most: int) -> list[Waiting]:
        """Return up to *most* files to work on: those taken before, then those ready at *now*, the oldest first."""
        again = [
            Waiting(Path(entry.path), entry.name.partition(".")[2], entry.stat(follow_symlinks=False).st_size, True)
            for entry in islice(_entries(self._taken), most)
        ]
        ready = []
        present = set()
        for entry in _entries(self._directory):
            present.add(entry.name)
            with contextlib.suppress(FileNotFoundError):
                found = entry.stat(follow_symlinks=False)
                if self._is_ready(entry, found, now):
                    ready.append((found.st_mtime_ns, Waiting(Path(entry.path), entry.name, found.st_size, False)))
        self._left = {name: signature for name, signature in self._left.items() if name in present}
        ready.sort(key=lambda item: item[0])
        return again + [waiting for _, waiting in ready[: most - len(again)]]

    def _is_ready(self, entry: os.DirEntry[str], found: os.stat_result, now: float) -> bool:
        if stat.S_ISDIR(found.st_mode) or self._left.get(entry.name) == _signature(found):
            return False
        if not stat.S_ISREG(found.st_mode):
            self._leave(Path(entry.path), found, "is no regular file")
            return False
        wait_s = max(self._options.spool_delay, 0 if found.st_size else EMPTY_WAIT_S)
        return not 0 <= now - found.st_ctime < wait_s  # a time to come is of a clock that was set back

    def _leave(self, path: Path, found: os.stat_result, reason: str) -> None:
        self._left[path.name] = _signature(found)
        self._report(_shown(str(path)), reason)

    def claim(self, waiting: Waiting) -> Waiting | None:
        """Make a file ours, whatever becomes of its name; ``None`` when it is gone or cannot be had."""
        if waiting.is_taken:
            return waiting
        # No longer than a name may be, and told apart from whatever comes under the same name.
        taken = self._taken / f"{secrets.token_hex(8)}.{os.fsdecode(os.fsencode(waiting.name)[-200:])}"
        try:
            waiting.path.rename(taken)
        except FileNotFoundError:
            return None
        except PermissionError as error:  # somebody else's file in a folder like /tmp
            self._leave(waiting.path, waiting.path.lstat(), f"cannot be taken: {error.strerror}")
            return None
        return waiting._replace(path=taken, is_taken=True)

    def read(self, claimed: Waiting) -> SpooledMessage:
        """
        Return what a claimed file says.

        Raises:
            Unfit: It is no message.
            Unsettled: It changed meanwhile.
        """
        try:
            file = os.open(claimed.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except PermissionError as error:
            raise Unfit(f"cannot be read: {error.strerror}") from error
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO):
                raise Unfit("is no regular file") from error
            raise
        try:
            before = os.fstat(file)
            content = self._content(file, before)
            if _signature(os.fstat(file)) != _signature(before):
                raise Unsettled
        finally:
            os.close(file)
        return SpooledMessage(
            said=read_spooled(content, extract=self._options.spool_extract, strict=self._strict),
            directory=str(self._directory),
            file=_shown(claimed.name),
            user=_user(before.st_uid),
            size_bytes=before.st_size,
        )

    def _content(self, file: int, found: os.stat_result) -> bytes:
        if not stat.S_ISREG(found.st_mode):
            raise Unfit("is no regular file")
        if found.st_size > self._max_bytes:
            raise Unfit(f"is larger than {self._max_bytes} bytes")
        ends, blocks, left_bytes = LineEnds(), [], self._max_bytes + 1
        while left_bytes > 0 and (block := os.read(file, min(BLOCK_BYTES, left_bytes))):
            left_bytes -= len(block)
            blocks.append(ends.feed(block))
        blocks.append(ends.finish())
        if blocks and not blocks[-1].endswith(b"\r\n") and not b"".join(blocks[-2:]).endswith(b"\r\n"):
            blocks.append(b"\r\n")
        content = b"".join(blocks)
        if not content.strip(b"\r\n"):
            raise Unfit("is empty")
        if len(content) > self._max_bytes:
            raise Unfit(f"is larger than {self._max_bytes} bytes with CRLF line ends")
        return content

    def finish(self, claimed: Waiting) -> None:
        """The message is safe elsewhere."""
        if self._options.spool_remove:
            claimed.path.unlink(missing_ok=True)
        else:
            kept = self._directory / DONE
            kept.mkdir(exist_ok=True)
            _move(claimed.path, kept, claimed.name)

    def refuse(self, claimed: Waiting, reason: str) -> None:
        """Put a file that nobody will take where the operator finds it, and the reason beside it."""
        if self._options.spool_fail_directory is None:
            path = _move(claimed.path, self._directory, claimed.name)
            self._leave(path, path.lstat(), reason)
            return
        path = _move(claimed.path, Path(self._options.spool_fail_directory), claimed.name)
        self._report(_shown(str(path)), reason)
        beside = path.with_name(os.fsdecode(os.fsencode(path.name)[:240]) + ".reason")
        beside.write_text(f"{reason}\n", "utf-8", errors="replace")


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Yield what is in *folder* and may concern us: names that begin with a dot are being written, or are ours."""
    with os.scandir(folder) as entries:
        yield from (entry for entry in entries if not entry.name.startswith("."))


def _signature(found: os.stat_result) -> tuple[int, ...]:
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_mode


def _shown(name: str) -> str:
    """Return a file's name as text that fits into JSON: names of files are any octets."""
    return os.fsencode(name).decode("utf-8", "replace")


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _move(source: Path, folder: Path, name: str) -> Path:
    """Move *source* into *folder* as *name*, or with a number behind it: nothing that is there is overwritten."""
    target = _reserve(folder, name)
    try:
        source.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            target.unlink(missing_ok=True)
            raise
        shutil.copyfile(source, target, follow_symlinks=False)
        source.unlink()
    return target


def _reserve(folder: Path, name: str) -> Path:
    for number in range(1_000_000):
        target = folder / (f"{os.fsdecode(os.fsencode(name)[:240])}.{number}" if number else name)
        with contextlib.suppress(FileExistsError):
            os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
            return target
    raise FileExistsError(errno.EEXIST, "too many files of one name", str(folder / name))
