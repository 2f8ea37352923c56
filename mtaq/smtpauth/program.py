"""``exec://``: the operator's own program decides.

It gets user and password as two lines on standard input, and ``MTAQ_USER`` and ``MTAQ_CLIENT_IP`` in an environment
that has nothing else of ours. It answers by its exit status: 0 accepts, 1 to 125 refuse; anything else (not found, not
executable, a signal) is nobody's no and raises ``OSError``. What it prints goes nowhere. When its time is up, it and
what it started are killed.

``subprocess`` is used and not the event loop's own processes, because those of uvloop leave sockets open in the child:
ours, and the standard input of programs that judge other logins at the same time.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess

from mtaq.model.login import Verdict

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_LAST_REFUSAL = 125  # 126 and 127 are a shell's for what could not be run


class Program:
    """One program."""

    at_once = 16

    def __init__(self, path: str) -> None:
        self._path = path

    @property
    def name(self) -> str:
        """The form."""
        return f"exec://{self._path}"

    async def check(self, user: str, password: str, client_ip: str) -> Verdict:
        """Run it; the caller bounds the time."""
        starting = asyncio.ensure_future(asyncio.to_thread(self._start, user, password, client_ip))
        try:
            process = await asyncio.shield(starting)
        except asyncio.CancelledError:
            starting.add_done_callback(_kill_what_started)
            raise
        try:
            await _end_of(process)
        except asyncio.CancelledError:
            await asyncio.to_thread(_kill, process)
            raise
        return _verdict(process.wait())

    async def close(self) -> None:
        """Nothing is held."""

    def _start(self, user: str, password: str, client_ip: str) -> subprocess.Popen[bytes]:
        with open(os.memfd_create("mtaq-login"), "w+b", buffering=0) as given:
            given.write(f"{user}\n{password}\n".encode())
            given.seek(0)
            return subprocess.Popen(
                [self._path],
                stdin=given,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env={"PATH": _PATH, "LANG": "C.UTF-8", "MTAQ_USER": user, "MTAQ_CLIENT_IP": client_ip},
                start_new_session=True,
            )


async def _end_of(process: subprocess.Popen[bytes]) -> None:
    """Wait until it has ended, and leave its status to whoever asks for it."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    descriptor = os.pidfd_open(process.pid)
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End it and what it started; its id is its own until it was waited for."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # gone; or a program that became another user
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _kill_what_started(starting: asyncio.Future[subprocess.Popen[bytes]]) -> None:
    """Nobody waits for this program any more."""
    if not starting.cancelled() and starting.exception() is None:
        _kill(starting.result())


def _verdict(status: int) -> Verdict:
    if status == 0:
        return Verdict.ACCEPTED
    if 1 <= status <= _LAST_REFUSAL:
        return Verdict.REFUSED
    raise OSError(f"the program ended with status {status}")
