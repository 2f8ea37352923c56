"""The sink, which also shows what load and machine can do at all; and what starting and stopping a peer takes.

A peer that does not start, or loses messages, raises ``PeerFailed``.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.benchmarks.processes import Group, Groups
from tests.support.instance import free_port

#: What to install when a program is missing.
PACKAGE = "postfix"

SINK_PROGRAM = "/usr/sbin/smtp-sink"
#: The user of Debian's package; a program started by root becomes it.
USER = "postfix"

_START_S = 30.0
_LOOK_S = 0.01
#: Without a single new message for this long, a relay is taken to have lost some.
_STALLED_S = 60.0


class PeerFailed(Exception):
    """A peer did not start, or lost messages."""


def wait_listening(port: int, process: subprocess.Popen[bytes], told: Callable[[], str]) -> None:
    """
    Wait until *process* listens on *port*.

    Raises:
        PeerFailed: It ended, or takes too long; *told* gives its log.
    """
    deadline = time.monotonic() + _START_S
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        if process.poll() is not None or time.monotonic() > deadline:
            raise PeerFailed(f"{process.args!r} does not listen: {told()[-2000:]}")
        time.sleep(_LOOK_S)


def end(process: subprocess.Popen[bytes], *, wait_s: float = 10.0) -> None:
    """Stop a process that leads a group of its own, and whatever else is in the group."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(wait_s)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


class SmtpSink:
    """``smtp-sink``: takes every message and forgets it. On its own it is the ceiling of this load on this machine."""

    name = "smtp-sink"

    def __init__(self, folder: Path, *, sessions: int) -> None:
        self.port = free_port()
        self._counter = folder / "smtp-sink.count"
        command = [SINK_PROGRAM, "-c", "-m", str(max(256, 4 * sessions))]
        command += ["-u", USER] if os.geteuid() == 0 else []
        with self._counter.open("wb") as output:
            self._process = subprocess.Popen(
                [*command, f"127.0.0.1:{self.port}", "1000"], stdout=output, stderr=output, start_new_session=True
            )
        self._before = 0

    def start(self) -> None:
        """Wait until it listens."""
        wait_listening(self.port, self._process, self._counter.read_text)

    def stop(self) -> None:
        """Stop it."""
        end(self._process)

    def groups(self) -> Groups:
        """Its one process."""
        return {"smtp-sink": Group((self._process.pid,))}

    def begin(self) -> None:
        """Count from here."""
        self._before = self._count()

    def wait_done(self, messages: int) -> float:
        """
        Wait until *messages* more have come; return when the last did, to a hundredth of a second.

        Raises:
            PeerFailed: Nothing has come for a minute.
        """
        last, came_at = -1, time.monotonic()
        while (count := self.collect()) < messages:
            if count != last:
                last, came_at = count, time.monotonic()
            elif time.monotonic() - came_at > _STALLED_S:
                raise PeerFailed(f"{count} of {messages} messages came to the sink")
            time.sleep(_LOOK_S)
        return time.monotonic()

    def collect(self) -> int:
        """Return how many messages have come since ``begin``."""
        return self._count() - self._before

    def _count(self) -> int:
        # It writes "sess=1 quit=1 mesg=1\r" after each message and each session.
        with self._counter.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 200))
            counts: list[bytes] = re.findall(rb"mesg=(\d+)\r", file.read())
        return int(counts[-1]) if counts else 0
