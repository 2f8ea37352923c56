"""The name server of ``tests.support.dns_server`` beside a test that waits for programs, in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

from tests.support.dns_server import DnsServer, Zones


@contextlib.contextmanager
def running_dns(zones: Zones, **how: Any) -> Iterator[DnsServer]:
    """Run a name server with *zones*, which may be replaced at any time: ``server.zones = …``."""
    started: Future[tuple[DnsServer, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def serve() -> None:
        stop = asyncio.Event()
        async with DnsServer(zones, **how) as server:
            started.set_result((server, asyncio.get_running_loop(), stop))
            await stop.wait()

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            if not started.done():
                started.set_exception(error)
            raise

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    server, loop, stop = started.result(30)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(30)
