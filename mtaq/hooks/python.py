"""``python://module:object``: code in our own process.

Imported once, when the worker starts. A coroutine runs in the event loop, anything else in a thread, so that it may
block; code of a coroutine that blocks, blocks everybody, which nothing here can prevent.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from mtaq.config.hooks import PythonCode
from mtaq.hooks.objects import Message, Recipient, Sender
from mtaq.hooks.ports import CONTENT_POINTS, HOOK_POINTS, Point, Said
from mtaq.hooks.threads import Threads, guarded
from mtaq.model.decision import Decision
from mtaq.model.errors import ConfigError

Function = Callable[[Any], Any]

_OBJECTS: dict[Point, Callable[[Mapping[str, Any]], Any]] = {
    "sender": Sender.of,
    "recipient": Recipient.of,
    "message": Message.of,
    "pipeline": Message.of,
}


class PythonHook:
    """An object of the operator's code, and its function for each point."""

    def __init__(self, target: PythonCode, *, pipeline: bool, threads: Threads) -> None:
        """
        Import and, where it is a class, instantiate.

        Raises:
            ConfigError: It cannot be imported, or is nothing that can be called.
        """
        self.label = target.label
        self._threads = threads
        self._object = load(target)
        self._functions = functions_of(self._object, pipeline=pipeline)
        if not self._functions:
            raise ConfigError(f"{self.label} is neither callable nor has it a method sender, recipient or message")
        self.points = frozenset(self._functions)

    async def ask(self, point: Point, data: Mapping[str, Any]) -> Said:
        """Call the function of *point* with an object made of *data*."""
        function = self._functions[point]
        handed = _OBJECTS[point](data)
        value = await self._call(partial(function, handed), is_async=_is_async(function))
        if point in CONTENT_POINTS and _leaves_it_at_that(value):
            value = handed  # what was done to it counts
        return Said("accept", value)

    async def close(self) -> None:
        """Call the object's own ``close``, if it has one."""
        close = getattr(self._object, "close", None)
        if callable(close):
            await self._call(close, is_async=_is_async(close))

    async def _call(self, function: Callable[[], Any], *, is_async: bool) -> Any:
        value = function() if is_async else await self._threads.run(function)
        return await guarded(value) if inspect.isawaitable(value) else value


def load(target: PythonCode) -> Any:
    """
    Return the object; of a class, an instance.

    Raises:
        ConfigError: There is none; the text says why.
    """
    try:
        found: Any = importlib.import_module(target.module)
        for name in target.name.split("."):
            found = getattr(found, name)
        return found() if inspect.isclass(found) else found
    except (Exception, SystemExit) as error:  # whatever the operator's code does while it is imported
        raise ConfigError(f"{target.label} cannot be loaded: {type(error).__name__}: {error}") from error


def functions_of(found: Any, *, pipeline: bool) -> dict[Point, Function]:
    """Return what to call at each point: methods of its name, else the object itself."""
    if pipeline:
        function = getattr(found, "message", found)
        return {"pipeline": function} if callable(function) else {}
    methods = {point: getattr(found, point, None) for point in HOOK_POINTS}
    known = {point: method for point, method in methods.items() if callable(method)}
    if known or not callable(found):
        return known
    return {point: partial(found, point) for point in HOOK_POINTS}


def _is_async(function: Any) -> bool:
    if isinstance(function, partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


def _leaves_it_at_that(value: Any) -> bool:
    """Does the answer accept, without a message of its own?"""
    if isinstance(value, Decision):
        return value.action == "accept" and value.message is None
    return value is None or value is True or (isinstance(value, dict) and value in ({}, {"action": "accept"}))
