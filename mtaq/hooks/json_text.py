"""JSON of the operator's code, to bytes and back, without holding up the event loop over a large message."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import orjson

from mtaq.hooks.ports import CONTENT_POINTS, HookFailure, Point
from mtaq.model.codec import CONTENT_PROPERTIES

T = TypeVar("T")

#: Work on more than this goes to a thread: it takes a millisecond or so.
LARGE_BYTES = 256 * 1024

#: Longest answer where there is no message to change.
SHORT_ANSWER_BYTES = 64 * 1024


def size_of(data: Mapping[str, Any]) -> int:
    """Return about how long the content in *data* is, in characters."""
    return sum(len(data.get(name) or "") for name in CONTENT_PROPERTIES)


async def aside(size: int, function: Callable[[], T]) -> T:
    """Return what *function* returns; it runs in a thread when *size* says that it takes long."""
    return await asyncio.to_thread(function) if size > LARGE_BYTES else function()


async def encoded(point: Point, data: Mapping[str, Any]) -> bytes:
    """Return the JSON that is given at *point*: *data* with ``hook`` naming the point."""
    return await aside(size_of(data), lambda: orjson.dumps({**data, "hook": point}))


async def decoded(text: bytes) -> Any:
    """
    Return the value of an answer, ``None`` when it is empty.

    Raises:
        HookFailure: It is not JSON.
    """
    try:
        return await aside(len(text), lambda: orjson.loads(text)) if text.strip() else None
    except orjson.JSONDecodeError as error:
        raise HookFailure(f"the answer is not JSON: {error}") from error


def longest_answer(point: Point, given: bytes) -> int:
    """Return how many bytes an answer may have: a message may become somewhat larger than it was."""
    return 2 * len(given) + 2**20 if point in CONTENT_POINTS else SHORT_ANSWER_BYTES
