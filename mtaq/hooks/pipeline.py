"""``smtp-pipeline``: steps that run one after the other on an accepted message, before it is published."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mtaq.hooks.call import Call
from mtaq.model.decision import Decision, accept


class Pipeline:
    """The steps of a port, in order. Each gets what the one before made of the message."""

    def __init__(self, steps: Sequence[Call]) -> None:
        self._steps = steps

    async def run(self, message: dict[str, Any]) -> Decision:
        """
        Run *message*, the inbox JSON with ``recipients``, through all steps; it is not changed itself.

        Returns:
            Accept, with the message when a step changed it; or drop or defer, by the first step that says so.
        """
        current = message
        for step in self._steps:
            decision = await step("pipeline", current)
            if decision.action != "accept":
                return decision
            if decision.message is not None:
                current = decision.message
        return accept(None if current is message else current)
