"""Where log lines go: standard output and error, files, syslog.

A line is written with one system call, so lines of several processes do not mix. A line that cannot be written is
dropped and counted; nothing is raised into the caller.
"""

from __future__ import annotations

import os
import syslog
import time
from collections.abc import Callable, Sequence
from typing import Literal

from mtaq.telemetry.events import Record, Sink
from mtaq.telemetry.format import Format, console_line, json_line
from mtaq.telemetry.vocabulary import DEBUG, ERROR, INFO, WARNING

_STANDARD = {"stdout": 1, "stderr": 2}
_PRIORITIES = {DEBUG: syslog.LOG_DEBUG, INFO: syslog.LOG_INFO, WARNING: syslog.LOG_WARNING, ERROR: syslog.LOG_ERR}
_LOOK_EVERY_S = 1.0
_MODE = 0o640


def open_sink(
    targets: Sequence[str],
    *,
    log_format: Literal["auto", "json", "console"] = "auto",
    monotonic: Callable[[], float] = time.monotonic,
) -> Sink:
    """
    Open the logs named.

    Args:
        targets: ``stdout``, ``stderr``, ``syslog`` or paths of files; none at all logs nothing.
        log_format: ``auto`` writes for reading on a terminal and JSON anywhere else.
        monotonic: Seconds from a clock that never steps; files are looked at once a second.

    Raises:
        OSError: A file cannot be opened.
    """
    sinks = [_open(target, log_format, monotonic) for target in targets]
    return sinks[0] if len(sinks) == 1 else Tee(sinks)


def _open(target: str, log_format: str, monotonic: Callable[[], float]) -> Sink:
    if target == "syslog":
        return SyslogSink(console_line if log_format == "console" else json_line)
    if target in _STANDARD:
        return DescriptorSink(_STANDARD[target], choose_format(log_format, _STANDARD[target]))
    return FileSink(target, console_line if log_format == "console" else json_line, monotonic)


def choose_format(log_format: str, descriptor: int) -> Format:
    """Return the form for a descriptor: ``auto`` looks whether it is a terminal."""
    readable = log_format == "console" or (log_format == "auto" and os.isatty(descriptor))
    return console_line if readable else json_line


class Tee:
    """Writes each line to several sinks."""

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._sinks = tuple(sinks)

    def write(self, level: int, record: Record) -> None:
        """Hand the record to every sink."""
        for sink in self._sinks:
            sink.write(level, record)


class DescriptorSink:
    """Writes to an open file descriptor.

    Attributes:
        dropped: Lines that could not be written, or only in part.
    """

    def __init__(self, descriptor: int, line: Format) -> None:
        self._descriptor = descriptor
        self._line = line
        self._torn = b""
        self.dropped = 0

    def write(self, level: int, record: Record) -> None:
        """Write one line, or count it as dropped."""
        written = 0
        try:
            line = self._torn + self._line(record)
            while written < len(line):
                written += os.write(self._descriptor, line[written:] if written else line)
            self._torn = b""
        except Exception:  # a log must not stop the mail, whatever is wrong with it
            self._torn = b"\n" if written else self._torn
            self.dropped += 1


class FileSink(DescriptorSink):
    """Appends to a file, and opens it anew when it was moved away or removed, as logrotate does."""

    def __init__(self, path: str, line: Format, monotonic: Callable[[], float]) -> None:
        super().__init__(_open_for_append(path), line)
        self._path = path
        self._monotonic = monotonic
        self._look_at = monotonic() + _LOOK_EVERY_S

    def write(self, level: int, record: Record) -> None:
        """Write one line, or count it as dropped."""
        now = self._monotonic()
        if now >= self._look_at:
            self._look_at = now + _LOOK_EVERY_S
            self._follow_rotation()
        super().write(level, record)

    def _follow_rotation(self) -> None:
        try:
            if os.path.samestat(os.stat(self._path), os.fstat(self._descriptor)):
                return
        except FileNotFoundError:
            pass
        except OSError:
            return
        try:
            descriptor = _open_for_append(self._path)
        except OSError:
            return  # the moved file still takes lines; the next look tries again
        os.close(self._descriptor)
        self._descriptor = descriptor


def _open_for_append(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, _MODE)


class SyslogSink:
    """Writes to the system's log, facility ``mail``.

    Attributes:
        dropped: Lines that could not be written.
    """

    def __init__(self, line: Format) -> None:
        self._line = line
        self.dropped = 0
        syslog.openlog("mtaq", syslog.LOG_PID, syslog.LOG_MAIL)

    def write(self, level: int, record: Record) -> None:
        """Write one line, or count it as dropped."""
        try:
            syslog.syslog(_PRIORITIES[level], self._line(record).decode().rstrip("\n"))
        except Exception:  # a log must not stop the mail, whatever is wrong with it
            self.dropped += 1
