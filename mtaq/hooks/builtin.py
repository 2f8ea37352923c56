"""The built-in steps of pipelines: ``sanitize-html`` and ``parse-full``.

The work itself is ``mtaq.mime``'s; here is only how it becomes a change of the message. They are asked, counted and
bounded like the operator's own steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from mtaq.config.hooks import ParseFull, SanitizeHtml
from mtaq.hooks.json_text import size_of
from mtaq.hooks.ports import Point, Said
from mtaq.hooks.threads import Threads
from mtaq.mime.extract import extracted_shared
from mtaq.mime.sanitize import Level, sanitize_html
from mtaq.model.codec import content_of, content_property

#: Taking HTML apart takes a millisecond for about this much; more of it goes to a thread.
LARGE_BYTES = 16 * 1024


class BuiltinStep:
    """A step that is a function of the message and returns the properties to change."""

    points: frozenset[Point] = frozenset(("pipeline",))

    def __init__(self, step: SanitizeHtml | ParseFull, *, threads: Threads) -> None:
        self.label = step.label
        self._threads = threads
        self._work = parsed if isinstance(step, ParseFull) else partial(sanitized, level=step.level)

    async def ask(self, point: Point, data: Mapping[str, Any]) -> Said:
        """Do the work, in a thread when there is much of it."""
        work = partial(self._work, data)
        changes = await self._threads.run(work) if size_of(data) > LARGE_BYTES else work()
        return Said("accept", {"changes": changes} if changes else None)

    async def close(self) -> None:
        """Nothing is held."""


def sanitized(message: Mapping[str, Any], *, level: Level) -> dict[str, Any]:
    """Return the content of *message* with harmless HTML; nothing when it was harmless."""
    content = content_of(message)
    clean = sanitize_html(content, level)
    if clean == content:
        return {}
    name, text = content_property(clean)
    return {"mime": None, "mime-base64": None, name: text}


def parsed(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``extracted`` of *message*, its body included; what other steps put there stays."""
    found = extracted_shared(content_of(message), message["envelope"], full=True)
    return {"extracted": {**(message.get("extracted") or {}), **found}}
