"""What the supervisor is asked over the control socket, and how it asks its workers: in turn, bounded, and merged.

A worker that gives no answer in time is left out, and the answer says so.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mtaq.cli.supervisor import Worker

#: What may be asked for.
KINDS = ("sites", "connections")
ANSWER_S = 5.0


class Questions:
    """Questions under way."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._open: dict[tuple[str, int, int], asyncio.Future[list[dict[str, Any]]]] = {}

    async def answer(self, question: dict[str, Any], workers: Sequence[Worker]) -> dict[str, Any]:
        """Return the rows of all workers, each with the process that it came from."""
        kind = question.get("show")
        if kind not in KINDS:
            return {"error": f"expected show to be one of {', '.join(KINDS)}"}
        number = next(self._numbers)
        asked = [worker for worker in workers if worker.control is not None]
        answers = await asyncio.gather(*(self._ask(worker, kind, number) for worker in asked))
        rows = [
            {**row, "process": f"{worker.role} {worker.number}"}
            for worker, found in zip(asked, answers, strict=True)
            for row in found or ()
        ]
        silent = [
            f"{worker.role} {worker.number}" for worker, found in zip(asked, answers, strict=True) if found is None
        ]
        return {"rows": rows, "silent": silent}

    async def _ask(self, worker: Worker, kind: str, number: int) -> list[dict[str, Any]] | None:
        assert worker.control is not None, "only those are asked that can hear"
        key = (worker.role, worker.number, number)
        future: asyncio.Future[list[dict[str, Any]]] = asyncio.get_running_loop().create_future()
        self._open[key] = future
        worker.control.send(ask=kind, id=number)
        try:
            async with asyncio.timeout(ANSWER_S):
                return await future
        except (TimeoutError, ConnectionError):
            return None
        finally:
            del self._open[key]

    def answered(self, worker: Worker, said: dict[str, Any]) -> None:
        """Take what a worker said."""
        future = self._open.get((worker.role, worker.number, said["answer"]))
        if future is not None and not future.done():
            future.set_result(said["rows"])

    def gone(self, worker: Worker) -> None:
        """A worker ended: it will not answer."""
        for (role, number, _), future in self._open.items():
            if (role, number) == (worker.role, worker.number) and not future.done():
                future.set_exception(ConnectionError("the worker ended"))
