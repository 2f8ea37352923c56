"""Work that is given up on."""

from __future__ import annotations

import asyncio
import threading

import pytest

from mtaq.hooks.threads import Threads, guarded


async def test_values_and_errors():
    """What the function returns or raises arrives."""
    threads = Threads(1)
    assert await threads.run(lambda: 5) == 5
    with pytest.raises(ZeroDivisionError):
        await threads.run(lambda: 1 / 0)


async def test_a_place_is_kept_until_the_thread_ends():
    """A thread that hangs keeps its place; whoever waits for one can give up, and gets it when the thread ends."""
    threads, go_on, given_up = Threads(1), threading.Event(), []
    hanging = asyncio.create_task(threads.run(go_on.wait, on_cancel=lambda: given_up.append(True)))
    while threading.active_count() < 2 or not threads._places.locked():
        await asyncio.sleep(0)
    hanging.cancel()
    with pytest.raises(asyncio.CancelledError):
        await hanging
    assert given_up == [True]
    waiting = asyncio.create_task(threads.run(lambda: "late"))
    await asyncio.sleep(0)
    assert not waiting.done()
    go_on.set()
    assert await waiting == "late"


async def test_a_place_comes_back_when_no_thread_can_be_started(monkeypatch):
    """No thread, no place taken."""
    threads = Threads(1)

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError):
            await threads.run(lambda: 5)
    assert await threads.run(lambda: 5) == 5


async def test_a_coroutine_that_does_not_let_itself_be_cancelled():
    """Who gives up on a coroutine does not wait for it to agree."""
    release = asyncio.Event()

    async def stubborn() -> str:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        return "at last"

    waiting = asyncio.create_task(guarded(stubborn()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    release.set()
    await asyncio.sleep(0)
