"""``smtp-hook``: one piece of the operator's code that decides at sender, recipient and message."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mtaq.hooks.call import Call
from mtaq.hooks.ports import Point
from mtaq.model.decision import Decision


class Hook:
    """The hook of a port. Its answers never raise; no answer is a transient refusal."""

    def __init__(self, call: Call) -> None:
        self._call = call

    @property
    def points(self) -> frozenset[Point]:
        """Where it has something to say; elsewhere it accepts without being asked."""
        return self._call.code.points

    async def sender(self, session: Mapping[str, Any]) -> Decision:
        """Decide about a reverse-path. *session* has ``client`` and ``envelope``; never a drop."""
        return await self._call("sender", session)

    async def recipient(self, session: Mapping[str, Any]) -> Decision:
        """Decide about one forward-path. *session* has ``recipient`` beside; never a drop."""
        return await self._call("recipient", session)

    async def message(self, message: Mapping[str, Any]) -> Decision:
        """Decide about a message: the inbox JSON with ``recipients`` in place of ``recipient``."""
        return await self._call("message", message)

    async def close(self) -> None:
        """The worker ends; ``mtaq.hooks.loading.Hooks.close`` does this for all."""
        await self._call.code.close()
