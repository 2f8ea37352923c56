"""Clients that trickle: thousands of them hold nobody up, take little, and are cut when their time is over."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import statistics
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.instance import Relay
from tests.support.load import read_reply

pytestmark = pytest.mark.slow

SLOW = 2000
#: They come from so many addresses, each of which keeps to the usual cap of 100.
ADDRESSES = 40
#: Honest clients, so many at a time.
HONEST, AT_A_TIME = 60, 4
#: What is promised is a second; a machine that does other things as well may take longer, and not for ever.
SERVED_S = 10.0
#: What a connection may add to the memory of the processes that hold it.
BYTES_PER_CONNECTION = 32 * 1024


class Slow(asyncio.Protocol):
    """A client that sends a byte now and then: of a command that has no end, or of a content that has none.

    Attributes:
        ready: It has come as far as it wants to.
        gone: The server has closed.
        heard: Everything it was told.
    """

    def __init__(self, *, in_content: bool) -> None:
        loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[None] = loop.create_future()
        self.gone: asyncio.Future[None] = loop.create_future()
        self.heard = b""
        self._steps = [b"EHLO slow.test\r\n"]
        if in_content:
            self._steps.append(b"MAIL FROM:<eve@example.net>\r\nRCPT TO:<grace@example.com>\r\nDATA\r\n")
        self._awaited = [b"220 ", b"\r\n250 ", b"\r\n354 "]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep it."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Go on to where trickling begins."""
        self.heard += data
        while self._awaited and self._awaited[0] in self.heard:
            del self._awaited[0]
            if self._steps:
                self._transport.write(self._steps.pop(0))
            elif not self.ready.done():
                self.ready.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        """Note it."""
        for future in (self.ready, self.gone):
            if not future.done():
                future.set_result(None)

    def trickle(self) -> None:
        """Send a byte, once it is time for that."""
        if self.ready.done():
            self._transport.write(b"x")

    def close(self) -> None:
        """Go."""
        self._transport.abort()


@asynccontextmanager
async def trickling(port: int, count: int) -> AsyncIterator[list[Slow]]:
    """Have *count* clients trickle, a byte each in every second, half of them inside of content."""
    loop, few = asyncio.get_running_loop(), asyncio.Semaphore(50)
    slow: list[Slow] = []

    async def begin(number: int) -> None:
        source = f"127.0.1.{number % ADDRESSES + 1}", 0
        async with few:
            _, client = await loop.create_connection(
                lambda: Slow(in_content=number % 2 == 0), "127.0.0.1", port, local_addr=source
            )
            slow.append(client)
            await asyncio.wait_for(client.ready, 60)

    async def trickle() -> None:
        for part in range(1_000_000):
            for client in slow[part % 10 :: 10]:
                client.trickle()
            await asyncio.sleep(0.1)

    ticking = asyncio.create_task(trickle())
    try:
        await asyncio.gather(*(begin(number) for number in range(count)))
        yield slow
    finally:
        ticking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await ticking
        for client in slow:
            client.close()


async def deliver(port: int) -> float:
    """Deliver a message as everybody does, and return how long it took from connecting to the 250."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        assert (await read_reply(reader)).startswith("220")
        for command, answer in (
            ("EHLO client.test", "250"), ("MAIL FROM:<ada@example.org>", "250"), ("RCPT TO:<grace@example.com>", "250"),
            ("DATA", "354"), ("Subject: hello\r\n\r\nhello\r\n.", "250"),
        ):  # fmt: skip
            writer.write(command.encode() + b"\r\n")
            assert (await read_reply(reader)).startswith(answer)
        return loop.time() - began
    finally:
        writer.transport.abort()


async def deliver_all(port: int) -> list[float]:
    """Have all honest clients deliver, and return how long each took."""
    took: list[float] = []

    async def one_after_the_other() -> None:
        for _ in range(HONEST // AT_A_TIME):
            took.append(await deliver(port))
            await asyncio.sleep(0.1)

    await asyncio.gather(*(one_after_the_other() for _ in range(AT_A_TIME)))
    return took


def memory_bytes(relay: Relay) -> int:
    """Return the resident memory of all receiving processes."""
    statuses = [Path(f"/proc/{pid}/status").read_text() for pid in relay.worker_pids("receive")]
    return sum(int(status.partition("VmRSS:")[2].split()[0]) * 1024 for status in statuses)


@asynccontextmanager
async def running(folder: Path, **options: object) -> AsyncIterator[Relay]:
    """Run a relay that only receives."""
    relay = Relay(folder, f"embedded://{folder / 'queue'}", verb="receive", **options)
    try:
        relay.start()
        await asyncio.to_thread(relay.wait_ready)
        yield relay
    finally:
        await asyncio.to_thread(relay.cleanup)


@pytest.fixture
def _many_files() -> None:
    """Allow this process, and those that it starts, as many open files as the test needs."""
    wanted = SLOW + 1000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"{wanted} open files are needed, and the limit is {hard} (ulimit -Hn)")
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@pytest.mark.usefixtures("_many_files")
async def test_two_thousand_that_trickle_hold_nobody_up(tmp_path: Path) -> None:
    """While 2,000 trickle, all honest clients are served in time, and each of the 2,000 takes little memory."""
    async with running(tmp_path, smtp_connections=SLOW + 500) as relay:
        await deliver_all(relay.port)
        before = memory_bytes(relay)
        async with trickling(relay.port, SLOW) as slow:
            first = await deliver_all(relay.port)
            grown = memory_bytes(relay) - before
            second = await deliver_all(relay.port)
            later = memory_bytes(relay) - before
            assert not any(client.gone.done() for client in slow)
        took = first + second
        print(
            f"\n{len(took)} honest clients beside {SLOW} that trickle: median {statistics.median(took) * 1000:.0f} ms, "
            f"longest {max(took) * 1000:.0f} ms; memory {grown / SLOW / 1024:.1f} KB a connection, "
            f"{later / SLOW / 1024:.1f} KB some seconds later"
        )
        assert len(took) == 2 * HONEST
        assert max(took) < SERVED_S
        assert max(grown, later) < SLOW * BYTES_PER_CONNECTION
        assert relay.events("worker.died") == []


async def test_who_trickles_is_cut_and_who_is_merely_slow_is_not(tmp_path: Path) -> None:
    """With ``smtp-timeout: 5`` a byte a second is told 421 4.4.2, in commands and content; a command each is fine."""
    async with running(tmp_path, smtp_timeout=5) as relay, trickling(relay.port, 100) as slow:
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
        await read_reply(reader)
        while not all(client.gone.done() for client in slow):
            writer.write(b"NOOP\r\n")
            assert (await read_reply(reader)).startswith("250")
            await asyncio.wait([client.gone for client in slow], timeout=1)
        assert {client.heard.splitlines()[-1][:9] for client in slow} == {b"421 4.4.2"}
        writer.transport.abort()
        reasons = [event.get("reason") for event in relay.events("session.closed")]
        assert reasons.count("too slow") == len(slow)
