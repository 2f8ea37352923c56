"""The load: Postfix's ``smtp-source``, the same for every server."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

PROGRAM = "/usr/sbin/smtp-source"


class LoadFailed(Exception):
    """A server refused, or ``smtp-source`` could not go on."""


@dataclass(frozen=True, slots=True)
class Case:
    """What is sent.

    Attributes:
        size_bytes: Of the body; the header section comes on top.
        reuse: All messages of a session over one connection; else a connection for each.
        sessions: At the same time.
        file: The message to send; ``None`` for one that smtp-source makes.
    """

    size_bytes: int
    reuse: bool
    sessions: int
    file: Path | None = None

    def __str__(self) -> str:
        connections = "reused connections" if self.reuse else "new connections"
        return f"{self.size_bytes / 1024:g} KB, {self.sessions} sessions, {connections}"


@dataclass(frozen=True, slots=True)
class Sent:
    """A load that ended well: every message was answered 250.

    Attributes:
        began: On the monotonic clock.
        seconds: From its start to the last answer.
        cpu_s: Processor time of ``smtp-source``.
        peak_bytes: Its memory.
    """

    began: float
    seconds: float
    cpu_s: float
    peak_bytes: int


def send(port: int, case: Case, messages: int) -> Sent:
    """
    Send *messages* messages to 127.0.0.1 and wait until all are answered.

    Raises:
        LoadFailed: One was not answered 250.
    """
    command = [PROGRAM, "-s", str(case.sessions), "-m", str(messages)]
    command += ["-F", str(case.file)] if case.file else ["-l", str(case.size_bytes)]
    command += ["-f", "sender@load.test", "-t", "recipient@destination.test", "-M", "load.test"]
    command += ["-d"] if case.reuse else []
    with tempfile.TemporaryFile() as output:
        began = time.monotonic()
        process = subprocess.Popen([*command, f"127.0.0.1:{port}"], stdout=output, stderr=output)
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            process.wait()
            raise
        seconds = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        told = output.read().decode(errors="replace")
    if process.returncode or told:
        raise LoadFailed(f"smtp-source ({case}) ended with {process.returncode}: {told.strip()[-500:]}")
    return Sent(began, seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)
