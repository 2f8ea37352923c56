"""One run of the operator's program: JSON in, exit status and output out, everything bounded.

Blocks; runs in a thread. ``subprocess`` is used and not the event loop's own processes, because those of uvloop leave
our sockets open in the child. The program is the leader of a process group that is killed when the program ends or is
given up on, before its id is given back to the kernel; so no child of it stays, and no stranger is ever hit.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from mtaq.hooks.ports import HookFailure

#: Nothing of ours: no secrets, no library paths.
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}

#: What is kept of the standard error, for the log.
KEPT_ERRORS_BYTES = 500

_PIECE_BYTES = 65_536

#: As much as a pipe holds when it was made as large as it can be (pipe(7)).
_PIPE_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended.

    Attributes:
        status: Exit status; negative: the signal that ended it.
        output: Its standard output.
        errors: The beginning of its standard error.
    """

    status: int
    output: bytes
    errors: bytes


class Program:
    """One run, which any thread may kill."""

    def __init__(self, arguments: Sequence[str], given: bytes, *, max_output_bytes: int) -> None:
        """Prepare to start *arguments* with *given* on standard input."""
        self._arguments = arguments
        self._given = given
        self._max_output_bytes = max_output_bytes
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._killed = self._over = False
        self._output = bytearray()
        self._errors = bytearray()

    def run(self) -> Ended:
        """
        Run it to its end.

        Raises:
            HookFailure: It said too much, or was killed before it was started.
            OSError: It cannot be started.
        """
        with contextlib.ExitStack() as stack:
            given = stack.enter_context(open(os.memfd_create("mtaq-hook"), "w+b", buffering=0))
            _write_all(given.fileno(), self._given)
            self._given = b""
            process = stack.enter_context(self._start(given.fileno()))
            try:
                self._started(process)
                self._read(process)
            finally:
                self._end(process)
        return Ended(process.returncode, bytes(self._output), bytes(self._errors))

    def kill(self) -> None:
        """Kill it and all that it started, now or as soon as it is started. Never blocks."""
        with self._lock:
            self._killed = True
            if self._process is not None and not self._over:
                _kill_group(self._process.pid)

    def _started(self, process: subprocess.Popen[bytes]) -> None:
        with self._lock:
            self._process = process
            if self._killed:
                raise HookFailure("given up before it was started")

    def _start(self, given: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self._arguments,
            stdin=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd="/",
            env=ENVIRONMENT,
            start_new_session=True,
        )

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        """Collect what it writes until it ends; what its children write after that does not count."""
        assert process.stdout is not None
        assert process.stderr is not None
        output, errors = process.stdout.fileno(), process.stderr.fileno()
        ended = os.pidfd_open(process.pid)
        try:
            poll = select.poll()
            poll.register(ended, select.POLLIN)
            for descriptor in (output, errors):
                os.set_blocking(descriptor, False)
                poll.register(descriptor, select.POLLIN)
            while ended not in (ready := [descriptor for descriptor, _ in poll.poll()]):
                for descriptor in ready:
                    if not self._take(descriptor, is_output=descriptor == output):
                        poll.unregister(descriptor)
        finally:
            os.close(ended)
        self._take(output, is_output=True)
        self._take(errors, is_output=False)

    def _take(self, descriptor: int, *, is_output: bool) -> bool:
        """Read what is there, a pipe full of it at most; ``False`` at the end of the stream."""
        for _ in range(_PIPE_BYTES // _PIECE_BYTES):
            try:
                data = os.read(descriptor, _PIECE_BYTES)
            except BlockingIOError:
                return True
            if not data:
                return False
            if not is_output:
                self._errors += data[: KEPT_ERRORS_BYTES - len(self._errors)]
                continue
            self._output += data
            if len(self._output) > self._max_output_bytes:
                raise HookFailure(f"it wrote more than {self._max_output_bytes} bytes")
        return True

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        with self._lock:
            self._over = True
            _kill_group(process.pid)
        process.wait()  # from here on the kernel may give its id to somebody else


def _kill_group(leader: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # gone; or a program that became another user
        os.killpg(leader, signal.SIGKILL)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
    os.lseek(descriptor, 0, os.SEEK_SET)
