"""``exec://``: the operator's own program decides.

It gets user and password as two lines on standard input, and ``MTAQ_USER`` and ``MTAQ_CLIENT_IP`` in an environment
that has nothing else of ours. It answers by its exit status: 0 accepts, 1 to 125 refuse; anything else (not found, not
executable, a signal) is nobody's no and raises ``OSError``. What it prints goes nowhere. When its time is up, it and
what it started are killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal

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
        starting = asyncio.ensure_future(
            asyncio.create_subprocess_exec(
                self._path,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
                cwd="/",
                env={"PATH": _PATH, "LANG": "C.UTF-8", "MTAQ_USER": user, "MTAQ_CLIENT_IP": client_ip},
                start_new_session=True,
            )
        )
        try:
            process = await asyncio.shield(starting)
        except asyncio.CancelledError:
            await _kill(await starting)  # it may run already, unknown to anybody
            raise
        try:
            await process.communicate(f"{user}\n{password}\n".encode())
        finally:
            if process.returncode is None:
                await _kill(process)
        return _verdict(process.returncode)

    async def close(self) -> None:
        """Nothing is held."""


async def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


def _verdict(status: int | None) -> Verdict:
    if status == 0:
        return Verdict.ACCEPTED
    if status is not None and 1 <= status <= _LAST_REFUSAL:
        return Verdict.REFUSED
    raise OSError(f"the program ended with status {status}")
