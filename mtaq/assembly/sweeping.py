"""Sweeps of the delay queues: one at a time in an instance, and by themselves when something was freed.

Every delivery process watches the runtime state and sees the same changes within two seconds. Each waits until the
others know as well, or what one sends forward another would park again; then whoever gets the lock first sweeps. In the
lock's file stands when a sweep of this kind began last: who noticed something before that has nothing left to do. By
themselves sweeps take no more than a part of the time, however often something changes.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from pathlib import Path

from mtaq.broker.file_locks import open_private
from mtaq.broker.port import Broker
from mtaq.deliver.forward import AGAIN
from mtaq.deliver.recall import KINDS, Recall
from mtaq.model.errors import BrokerError
from mtaq.model.parcel import Sifted
from mtaq.net.counters import uptime_s
from mtaq.telemetry.events import EventLog

#: By then every process knows of a change, as far as the state promises.
KNOWN_S = 2.5
#: How often the lock is tried, and the end of a limit looked for.
POLL_S = 0.25
#: Between two sweeps so many times what the last one took, and at least so long.
REST, LEAST_REST_S = 5.0, 2.0
RETRY_S = 10.0
LOCK_FILE = "sweep.lock"


class SweepLock:
    """The right to sweep, for one holder in the instance; freed by the kernel when it dies."""

    def __init__(self, run_directory: Path) -> None:
        self._path = run_directory / LOCK_FILE

    @contextlib.asynccontextmanager
    async def held(self, on_wait: Callable[[], None] = lambda: None) -> AsyncIterator[SweepNote]:
        """Wait for the lock, however long; *on_wait* is called once when somebody else has it.

        Raises:
            OSError: The file cannot be opened.
        """
        fd = open_private(self._path)
        try:
            waited = False
            while not _try_lock(fd):
                if not waited:
                    on_wait()
                waited = True
                await asyncio.sleep(POLL_S)
            yield SweepNote(fd)
        finally:
            os.close(fd)


class SweepNote:
    """When the last sweep began that sent forward whatever was freed."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def began_at(self) -> float:
        """Return it, by ``uptime_s``; 0 for never since the host was started."""
        with contextlib.suppress(ValueError, KeyError, TypeError):
            noted = json.loads(os.pread(self._fd, 1000, 0))
            began_at = float(noted["began_at"])
            return began_at if began_at <= uptime_s() else 0.0
        return 0.0

    def note(self, began_at: float) -> None:
        """Write it down."""
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, json.dumps({"began_at": began_at}).encode(), 0)


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class AutomaticSweeps:
    """Sends forward what was freed, for one delivery process."""

    def __init__(
        self,
        recall: Recall,
        *,
        broker: Broker,
        outbox: str,
        run_directory: Path,
        events: EventLog,
        clock: Callable[[], datetime],
    ) -> None:
        self._recall = recall
        self._broker = broker
        self._outbox = outbox
        self._lock = SweepLock(run_directory)
        self._events = events
        self._clock = clock
        self._changed = asyncio.Event()
        self._noticed_at = 0.0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to watch. What was freed while nothing ran is looked for at once."""
        self._noticed_at = uptime_s()
        self._task = asyncio.get_running_loop().create_task(self._run())

    def changed(self, kinds: frozenset[str]) -> None:
        """Entries of these kinds changed; for ``Control.on_change``."""
        if kinds & KINDS:
            self._noticed_at = uptime_s()
            self._changed.set()

    async def stop(self) -> None:
        """End a sweep under way: what is not sent forward stays where it is."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        is_freed = True
        while True:
            if not is_freed:
                await self._wait_for_change()
                is_freed = self._recall.is_freed()
                continue
            try:
                rest_s = await self._sweep(self._noticed_at)
                is_freed = False
            except (BrokerError, OSError) as error:
                self._events.delivery_not_swept(reason=str(error))
                rest_s = RETRY_S
            except Exception as error:  # the top of a task: mail comes out by itself, only later
                self._events.bug(error)
                rest_s, is_freed = RETRY_S, False
            await asyncio.sleep(rest_s)

    async def _wait_for_change(self) -> None:
        """Wait until entries changed, or a limit ends."""
        end = self._recall.next_end()
        wait_s = None if end is None else max((end - self._clock()).total_seconds(), 0.0) + POLL_S
        try:
            async with asyncio.timeout(wait_s):
                await self._changed.wait()
        except TimeoutError:
            self._noticed_at = uptime_s()
        self._changed.clear()

    async def _sweep(self, noticed_at: float) -> float:
        """Sweep, unless somebody has done it since; return how long to rest."""
        await asyncio.sleep(KNOWN_S)
        async with self._lock.held() as note:
            began_at = uptime_s()
            if note.began_at() >= noticed_at:
                return LEAST_REST_S
            swept = await self._broker.sift(self._outbox, self._recall.choose, delayed=True, again=AGAIN)
            note.note(began_at)
        took_s = uptime_s() - began_at
        if swept.moved or swept.refused:
            self._tell(swept, took_s)
        return max(REST * took_s, LEAST_REST_S)

    def _tell(self, swept: Sifted, took_s: float) -> None:
        self._events.delivery_swept(
            messages=swept.moved, refused=swept.refused or None, duration_ms=round(took_s * 1000, 1)
        )
