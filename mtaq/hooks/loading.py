"""From ``smtp-hook`` and ``smtp-pipeline`` to what answers; one object per worker.

The same URL on several ports is one piece of code, so that an object keeps what it knows, also over a reload. How much
of it may run at once is bounded for the whole worker; who waits for a place uses up ``smtp-hook-timeout``.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from mtaq.config.hooks import Executable, HookTarget, ParseFull, PythonCode, SanitizeHtml, Step
from mtaq.hooks.builtin import BuiltinStep
from mtaq.hooks.call import Call
from mtaq.hooks.executable import ExecutableHook
from mtaq.hooks.hook import Hook
from mtaq.hooks.pipeline import Pipeline
from mtaq.hooks.ports import HookCode, HttpRequest
from mtaq.hooks.python import PythonHook
from mtaq.hooks.threads import Threads
from mtaq.hooks.web import WebHook
from mtaq.telemetry.events import EventLog

#: Threads, programs and requests at once, of each kind, in a worker.
AT_ONCE = 32

#: For the ``close`` methods of the operator's objects.
CLOSING_S = 2.0


class Hooks:
    """Makes the hooks and pipelines of a worker's ports; needs a running event loop."""

    def __init__(self, *, request: HttpRequest, events: EventLog, at_once: int = AT_ONCE) -> None:
        """Use *request* for HTTP; log to *events*."""
        self._request = request
        self._events = events
        self._python = Threads(at_once)
        self._programs = Threads(at_once)
        self._builtin = Threads(at_once)
        self._requests = asyncio.Semaphore(at_once)
        self._known: dict[tuple[Step, bool], HookCode] = {}

    def hook(self, target: HookTarget | None, *, timeout_s: float) -> Hook | None:
        """
        Return the hook of ``smtp-hook``, or ``None`` where there is none.

        Raises:
            ConfigError: Python code that cannot be loaded.
        """
        return None if target is None else Hook(self._call(target, timeout_s, pipeline=False))

    def pipeline(self, steps: Sequence[Step], *, timeout_s: float) -> Pipeline | None:
        """
        Return the pipeline of ``smtp-pipeline``, or ``None`` where there is none.

        Raises:
            ConfigError: Python code that cannot be loaded.
        """
        return Pipeline([self._call(step, timeout_s, pipeline=True) for step in steps]) if steps else None

    async def close(self) -> None:
        """Tell all code that the worker ends, and wait for it a little."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSING_S):
                endings = await asyncio.gather(*(code.close() for code in self._known.values()), return_exceptions=True)
                for code, error in zip(self._known.values(), endings, strict=True):
                    if isinstance(error, Exception):
                        self._events.hook_failed(hook=code.label, reason=f"close: {error}")

    def _call(self, step: Step, timeout_s: float, *, pipeline: bool) -> Call:
        code = self._known.get((step, pipeline))
        if code is None:
            code = self._known[step, pipeline] = self._open(step, pipeline=pipeline)
        return Call(code, events=self._events, timeout_s=timeout_s)

    def _open(self, step: Step, *, pipeline: bool) -> HookCode:
        if isinstance(step, PythonCode):
            return PythonHook(step, pipeline=pipeline, threads=self._python)
        if isinstance(step, Executable):
            return ExecutableHook(step, pipeline=pipeline, threads=self._programs)
        if isinstance(step, SanitizeHtml | ParseFull):
            return BuiltinStep(step, threads=self._builtin)
        return WebHook(step, pipeline=pipeline, request=self._request, places=self._requests)
