"""Takes in the files of the spool directory as if they had been received.

Each process of an instance runs one ``Spool``; the one that holds the directory's lock works, the others wait for its
death. A file is removed only after what it is handed to has said that its message is safe. A crash in between, or a
reply that says "try again", leaves it to be taken again, so a message may come twice and none is lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path

from mtaq.config.spool import SpoolOptions
from mtaq.model.reply import Reply
from mtaq.receive.spool_content import Unfit
from mtaq.receive.spool_folder import SpooledMessage, SpoolFolder, Unsettled, Waiting
from mtaq.telemetry.events import EventLog
from mtaq.telemetry.metrics import counter

LOOK_EVERY_S = 1.0

#: Files that one look brings; more wait for the next, so that new ones are seen between.
MOST_FILES = 1000

#: Files worked on at once, and their size together; one alone may be larger.
MOST_AT_ONCE = 10
MOST_BYTES_AT_ONCE = 32 * 1024 * 1024

#: Wait before a file is tried again that could not be taken, doubled each time up to the second.
RETRY_FIRST_S = 2.0
RETRY_LAST_S = 300.0

FILES = counter("mtaq_spool_files", "Files of the spool directory that were taken in, or refused.", ("outcome",))

Take = Callable[[SpooledMessage], Awaitable[Reply]]
"""Stores a message and says what a client would be told: 2yz it is safe, 4yz try again, 5yz never."""


class Spool:
    """Watches one directory until stopped."""

    def __init__(
        self,
        options: SpoolOptions,
        directory: str,
        *,
        take: Take,
        is_ready: Callable[[], bool],
        max_bytes: int,
        strict: bool,
        events: EventLog,
        clock: Callable[[], datetime],
    ) -> None:
        """
        Prepare to watch *directory*.

        Args:
            take: Gets what the files say.
            is_ready: Can mail be taken now?
            max_bytes: Largest file, and largest content.
            strict: Syntax demanded of addresses, as ``smtp-validate-address`` has it.
            clock: Timezone-aware.
        """
        self._directory = directory
        self._take = take
        self._is_ready = is_ready
        self._events = events
        self._clock = clock
        self._folder = SpoolFolder(options, directory, max_bytes=max_bytes, strict=strict, report=self._refused)
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._held: str | None = None
        self._later: dict[Path, tuple[float, float]] = {}  # file → when again, and how long that is

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run())

    async def stop(self, grace_s: float) -> None:
        """Take nothing more, and let what is under way finish for *grace_s* seconds; the rest is found again."""
        self._stopping.set()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=grace_s)
            self._task.cancel()
        self._folder.release()

    async def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                worked = await self._look()
            except OSError as error:
                worked = False
                self._hold(error)
            except Exception as error:  # the top of a worker: the next look may do better
                worked = False
                self._events.bug(error)
            else:
                self._held = None
            if not worked:
                await self._pause()

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(LOOK_EVERY_S):
                await self._stopping.wait()
        except TimeoutError:
            pass

    def _hold(self, error: OSError) -> None:
        reason = error.strerror or str(error)
        if reason != self._held:
            self._events.spool_held(file=str(error.filename or self._directory), reason=reason)
        self._held = reason

    def _refused(self, path: str, reason: str) -> None:
        self._events.spool_refused(file=path, reason=reason)

    async def _look(self) -> bool:
        """Work on what is there; tell whether there was anything to do."""
        if not self._is_ready() or not await asyncio.to_thread(self._folder.acquire):
            return False
        now = self._clock().timestamp()
        found = await asyncio.to_thread(self._folder.waiting, now, MOST_FILES + len(self._later))
        here = {waiting.path for waiting in found}
        self._later = {path: later for path, later in self._later.items() if path in here}
        due = [waiting for waiting in found if self._is_due(waiting, now)]
        await self._work_on(due)
        return bool(due)

    def _is_due(self, waiting: Waiting, now: float) -> bool:
        at, wait_s = self._later.get(waiting.path, (now, 0.0))
        # While so many wait for better times, others would only join them.
        return not now < at <= now + wait_s and (waiting.is_taken or len(self._later) < MOST_FILES)

    async def _work_on(self, files: list[Waiting]) -> None:
        tasks: dict[asyncio.Task[None], int] = {}
        try:
            for waiting in files:
                while tasks and (
                    len(tasks) >= MOST_AT_ONCE or sum(tasks.values()) + waiting.size_bytes > MOST_BYTES_AT_ONCE
                ):
                    await self._some_done(tasks)
                if self._stopping.is_set():
                    break
                tasks[asyncio.create_task(self._work(waiting))] = waiting.size_bytes
        finally:
            while tasks:
                await self._some_done(tasks)

    async def _some_done(self, tasks: dict[asyncio.Task[None], int]) -> None:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            del tasks[task]

    async def _work(self, waiting: Waiting) -> None:
        try:
            claimed = await asyncio.to_thread(self._folder.claim, waiting)
            if claimed is not None:
                await self._take_in(claimed)
        except OSError as error:
            self._hold(error)
            self._again(waiting.path)
        except Exception as error:  # the top of a piece of work: others go on
            self._events.bug(error)
            self._again(waiting.path)

    async def _take_in(self, claimed: Waiting) -> None:
        try:
            message = await asyncio.to_thread(self._folder.read, claimed)
        except Unsettled:
            self._again(claimed.path)
            return
        except Unfit as error:
            await self._refuse(claimed, str(error))
            return
        reply = await self._take(message)
        del message
        if reply.is_positive:
            await asyncio.to_thread(self._folder.finish, claimed)
            self._later.pop(claimed.path, None)
            FILES.labels("taken").inc()
        elif reply.is_permanent:
            await self._refuse(claimed, str(reply))
        else:
            self._again(claimed.path)

    async def _refuse(self, claimed: Waiting, reason: str) -> None:
        await asyncio.to_thread(self._folder.refuse, claimed, reason)
        self._later.pop(claimed.path, None)
        FILES.labels("refused").inc()

    def _again(self, path: Path) -> None:
        _, waited_s = self._later.get(path, (0.0, 0.0))
        wait_s = min(max(RETRY_FIRST_S, waited_s * 2), RETRY_LAST_S)
        self._later[path] = (self._clock().timestamp() + wait_s, wait_s)
