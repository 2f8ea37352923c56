"""One question to the operator's code, from asking to a decision: bounded in time, counted, and never an exception.

Whatever goes wrong refuses for now and is told in the log; the client learns no more than that.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mtaq.hooks.answer import judge
from mtaq.hooks.json_text import aside, size_of
from mtaq.hooks.ports import HookCode, HookFailure, Point
from mtaq.model.decision import Decision, defer
from mtaq.telemetry.events import EventLog, told_by
from mtaq.telemetry.metrics import counter, histogram
from mtaq.telemetry.vocabulary import Fields

CALLS = counter(
    "mtaq_hook_calls",
    "Questions to hooks and steps of pipelines, by how they ended.",
    ("hook", "point", "outcome"),
)
SECONDS = histogram("mtaq_hook_seconds", "Seconds that hooks and steps took.", ("hook", "point"))

NOT_DECIDED = defer()
"""What the client is told when there is no answer; never why."""


class Call:
    """Asks one piece of code, again and again."""

    def __init__(self, code: HookCode, *, events: EventLog, timeout_s: float) -> None:
        """Ask *code*; *timeout_s* bounds each answer, waiting for a free place included."""
        self.code = code
        self._events = events
        self._timeout_s = timeout_s

    async def __call__(self, point: Point, data: Mapping[str, Any]) -> Decision:
        """Return the decision at *point*; an accept at once where the code has nothing to say."""
        if point not in self.code.points:
            return Decision("accept")
        began = time.perf_counter()
        decision, outcome = await self._ask(point, data, began)
        CALLS.labels(self.code.label, point, outcome).inc()
        SECONDS.labels(self.code.label, point).observe(time.perf_counter() - began)
        if outcome == "changed":
            self._events.message_changed(**self._facts(point, data, began))
        return replace(decision, decided_by=self.code.label)

    async def _ask(self, point: Point, data: Mapping[str, Any], began: float) -> tuple[Decision, str]:
        try:
            async with asyncio.timeout(self._timeout_s) as clock:
                said = await self.code.ask(point, data)
                decision = await aside(size_of(data), lambda: judge(said, point, data))
        except Exception as error:  # the top of foreign code: whatever it raises, mail is kept by its sender
            failure = error
            if isinstance(error, TimeoutError) and clock.expired():
                failure = HookFailure(f"no answer within {self._timeout_s:g} s")
        else:
            return decision, _outcome(decision)
        facts: Fields = {**self._facts(point, data, began), **_told(failure)}
        self._events.hook_failed(**facts)
        return NOT_DECIDED, "failed"

    def _facts(self, point: Point, data: Mapping[str, Any], began: float) -> Fields:
        connection = data.get("connection") or {}
        client = data.get("client") or {}
        return {
            "hook": self.code.label,
            "point": point,
            "message_id": data.get("message-id"),
            "peer_ip": connection.get("remote-ip") or client.get("ip"),
            "reverse_path": data.get("envelope"),
            "forward_path": data.get("recipient") or next(iter(data.get("recipients") or ()), None),
            "duration_ms": int((time.perf_counter() - began) * 1000),
        }


def _outcome(decision: Decision) -> str:
    if decision.action == "accept":
        return "accepted" if decision.message is None else "changed"
    return {"reject": "rejected", "defer": "deferred", "drop": "dropped"}[decision.action]


def _told(failure: Exception) -> Fields:
    if isinstance(failure, HookFailure):
        return {"reason": str(failure), "error": failure.detail}
    return {"reason": "it raised an exception", **told_by(failure)}
