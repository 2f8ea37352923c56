"""``exec:///path``: a program of its own, JSON on standard input, asked by exit status.

Status 0 accepts, 77 (``EX_NOPERM``) rejects, 99 drops; any other is no answer. JSON on standard output says more. The
point stands in the first argument too, for scripts that do not read JSON. No shell is involved.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mtaq.config.hooks import Executable
from mtaq.hooks.json_text import decoded, encoded, longest_answer
from mtaq.hooks.ports import HOOK_POINTS, HookFailure, Point, Said, Verdict
from mtaq.hooks.process import Ended, Program
from mtaq.hooks.threads import Threads

VERDICTS: dict[int, Verdict] = {0: "accept", 77: "reject", 99: "drop"}


class ExecutableHook:
    """One program, started for every question."""

    def __init__(self, target: Executable, *, pipeline: bool, threads: Threads) -> None:
        self.label = target.label
        self.points: frozenset[Point] = frozenset(("pipeline",) if pipeline else HOOK_POINTS)
        self._path = target.path
        self._threads = threads

    async def ask(self, point: Point, data: Mapping[str, Any]) -> Said:
        """Run the program; it is killed, with all that it started, when nobody waits for it any more."""
        given = await encoded(point, data)
        program = Program((self._path, point), given, max_output_bytes=longest_answer(point, given))
        del given
        try:
            ended = await self._threads.run(program.run, on_cancel=program.kill)
        except OSError as error:
            raise HookFailure(f"it cannot be started: {error.strerror or error}") from error
        verdict = VERDICTS.get(ended.status)
        if verdict is None:
            raise HookFailure(how_it_ended(ended.status), detail_of(ended))
        try:
            return Said(verdict, await decoded(ended.output))
        except HookFailure as failure:
            raise HookFailure(str(failure), detail_of(ended)) from failure

    async def close(self) -> None:
        """Every run ends with whoever waits for it."""


def how_it_ended(status: int) -> str:
    """Return an exit status in words."""
    return f"ended by signal {-status}" if status < 0 else f"exit status {status}"


def detail_of(ended: Ended) -> str | None:
    """Return what the program wrote on its standard error, if anything."""
    return ended.errors.decode("utf-8", "replace").strip() or None
