"""The caps on connections of a whole instance: four processes, both sides, a storm of clients."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import random
import signal
import struct
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from mtaq.config.process import cpu_count
from mtaq.net.slots import MOST
from tests.support.instance import Relay, wait_until
from tests.support.load import read_reply

TOTAL, IN, OUT = 100, 50, 75
STORM_S = 30 if os.environ.get("LONG") else 3
CONNECTS_PER_S = 1000
#: How long a client of the storm waits to be greeted.
PATIENCE_S = 2.0

_FLOCK = struct.Struct("@hhqqi")


class Tally:
    """How many connections are open, counted inside of what the relay holds: after it began, before it ends."""

    def __init__(self) -> None:
        self.clients = self.deliveries = 0
        self.most_clients = self.most_deliveries = self.most_together = 0

    def count(self, *, clients: int = 0, deliveries: int = 0) -> None:
        """Note a change."""
        self.clients += clients
        self.deliveries += deliveries
        self.most_clients = max(self.most_clients, self.clients)
        self.most_deliveries = max(self.most_deliveries, self.deliveries)
        self.most_together = max(self.most_together, self.clients + self.deliveries)


class SlowSink:
    """A mail host that takes everything, and answers content when it is told to."""

    def __init__(self, tally: Tally) -> None:
        self.answers = asyncio.Event()
        self._tally = tally
        self._server: asyncio.Server | None = None

    async def start(self) -> int:
        """Listen; return the port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=1000)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tally.count(deliveries=1)
        try:
            writer.write(b"220 sink.test\r\n")
            with contextlib.suppress(OSError):
                await self._talk(reader, writer)
        finally:
            self._tally.count(deliveries=-1)
            writer.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            if line.startswith(b"DATA"):
                writer.write(b"354 go on\r\n")
                while await reader.readline() not in (b".\r\n", b""):
                    pass
                await self.answers.wait()
                await asyncio.sleep(random.uniform(0, 0.5))
            elif line.startswith(b"QUIT"):
                return  # it is not counted any more when the relay hears of it
            writer.write(b"250 ok\r\n")


class Client:
    """A client of the relay that holds its connection."""

    def __init__(self, port: int, tally: Tally) -> None:
        self._port = port
        self._tally = tally
        self.greeting = ""

    async def open(self) -> Client:
        """Connect, and hear the greeting."""
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self._port)
        self.greeting = await read_reply(self.reader)
        if self.greeting.startswith("220"):
            self._tally.count(clients=1)
        return self

    async def say(self, line: str) -> str:
        """Send a line; return the reply."""
        self.writer.write(line.encode() + b"\r\n")
        return await read_reply(self.reader)

    def close(self) -> None:
        """Go."""
        if self.greeting.startswith("220"):
            self._tally.count(clients=-1)
        self.greeting = ""
        self.writer.transport.abort()

    async def send(self, recipients: list[str]) -> None:
        """Send one message."""
        await self.say("EHLO client.test")
        assert (await self.say("MAIL FROM:<ada@example.org>")).startswith("250")
        for recipient in recipients:
            assert (await self.say(f"RCPT TO:<{recipient}>")).startswith("250")
        assert (await self.say("DATA")).startswith("354")
        assert (await self.say("Subject: hello\r\n\r\nhello\r\n.")).startswith("250")


class LockTable:
    """The kernel's word on who holds what."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def held(self, base: int = 0) -> int:
        """Count the slots held, of the total or of a side."""
        return sum(self._is_locked(base + slot) for slot in range(TOTAL + 100))

    def _is_locked(self, offset: int) -> bool:
        asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, offset, 1, 0)
        return bool(_FLOCK.unpack(fcntl.fcntl(self._fd, fcntl.F_GETLK, asked))[0] != fcntl.F_UNLCK)

    def close(self) -> None:
        """Look no more."""
        os.close(self._fd)


@pytest.fixture
def tally() -> Tally:
    """What the test counts."""
    return Tally()


@pytest.fixture
async def sink(tally: Tally) -> SlowSink:
    """A slow mail host."""
    return SlowSink(tally)


@pytest.fixture
async def relay(tmp_path: Path, sink: SlowSink) -> AsyncIterator[Relay]:
    """An instance of four processes that relays everything to the sink, each domain a site of its own."""
    relay = Relay(
        tmp_path, f"embedded://{tmp_path / 'queue'}", smtp_threads=2,
        smtp_connections=TOTAL, smtp_connections_in=IN, smtp_connections_out=OUT, smtp_connections_wait=4,
        rabbitmq_inbox="outbox", delivery_security="optional", delivery_idle=1,
        smtp_sink_address="127.0.0.1", smtp_sink_port=await sink.start(),
    )  # fmt: skip
    relay.start()
    try:
        await asyncio.to_thread(relay.wait_ready)
        assert len(relay.worker_pids("receive")) + len(relay.worker_pids("deliver")) == 2 * min(2, cpu_count())
        yield relay
    finally:
        sink.answers.set()
        await asyncio.to_thread(relay.cleanup)


@pytest.fixture
def locks(relay: Relay) -> Iterator[LockTable]:
    """The lock table of the instance."""
    table = LockTable(relay.folder / "instance" / "slots")
    yield table
    table.close()


async def until(condition: object, what: str) -> None:
    """Wait for a condition without holding up the loop."""
    await asyncio.to_thread(wait_until, condition, what)


async def filled(relay: Relay, tally: Tally, *, sites: int) -> list[Client]:
    """Take all connections that clients may have, and give delivery mail for so many sites."""
    clients = [await Client(relay.port, tally).open() for _ in range(IN)]
    assert {client.greeting[:3] for client in clients} == {"220"}
    await clients[0].send([f"grace@site{number}.test" for number in range(sites)])
    return clients


async def test_the_client_beyond_the_cap_waits_and_delivery_has_the_rest(
    relay: Relay, tally: Tally, locks: LockTable
) -> None:
    """Total 100, in 50, out 75: the 51st client is served when one leaves, else told 421; delivery opens 50."""
    clients = await filled(relay, tally, sites=TOTAL - IN)
    await until(lambda: tally.deliveries == TOTAL - IN, "delivery to open its connections")
    waiting = asyncio.create_task(Client(relay.port, tally).open())
    await asyncio.sleep(0.2)
    assert not waiting.done()
    clients.pop().close()
    clients.append(await waiting)
    assert clients[-1].greeting.startswith("220")
    assert (await Client(relay.port, tally).open()).greeting.startswith("421 4.7.0")
    await clients[0].send([f"grace@further{number}.test" for number in range(50)])
    await until(lambda: relay.events("delivery.waiting"), "delivery to tell that it has no more")
    assert (locks.held(), locks.held(MOST), locks.held(2 * MOST)) == (TOTAL, IN, TOTAL - IN)
    for client in clients[:30]:
        client.close()
    await until(lambda: tally.deliveries == OUT, "delivery to use what reception left, up to its own cap")
    assert (locks.held(), locks.held(MOST), locks.held(2 * MOST)) == (IN - 30 + OUT, IN - 30, OUT)
    assert tally.most_together <= TOTAL


async def test_the_slots_of_killed_workers_are_used_at_once(relay: Relay, tally: Tally, locks: LockTable) -> None:
    """`kill -9` of a worker of each side, in the middle: as many clients and deliveries find room again."""
    clients = await filled(relay, tally, sites=TOTAL - IN)
    await until(lambda: tally.deliveries == TOTAL - IN, "delivery to open its connections")
    for role in ("receive", "deliver"):
        pid = relay.worker_pids(role)[0]
        os.kill(pid, signal.SIGKILL)
        await until(lambda role=role, pid=pid: pid not in relay.worker_pids(role), "the worker's end")
    missing = IN - locks.held(MOST)
    assert 0 < missing < IN
    clients += [await Client(relay.port, tally).open() for _ in range(missing)]
    assert {client.greeting[:3] for client in clients} == {"220"}
    await until(lambda: locks.held(2 * MOST) == TOTAL - IN, "delivery to have its connections again")
    assert (locks.held(), locks.held(MOST)) == (TOTAL, IN)


async def test_the_sum_never_exceeds_the_total_in_a_storm(
    relay: Relay, tally: Tally, sink: SlowSink, locks: LockTable
) -> None:
    """1,000 connects a second, deliveries that come and go: no cap is ever exceeded, and all slots come back."""
    clients = await filled(relay, tally, sites=120)
    await until(lambda: tally.deliveries == TOTAL - IN, "delivery to open its connections")
    for client in clients:
        client.close()
    sink.answers.set()
    outcomes: dict[str, int] = {}
    tasks: set[asyncio.Task[None]] = set()
    loop = asyncio.get_running_loop()
    begin = loop.time()
    for number in range(STORM_S * CONNECTS_PER_S):
        await asyncio.sleep(begin + number / CONNECTS_PER_S - loop.time())
        task = asyncio.create_task(visit(relay.port, tally, outcomes, sends=number % 50 == 0))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        if number % 500 == 0:
            assert locks.held() <= TOTAL
            assert locks.held(MOST) <= IN
            assert locks.held(2 * MOST) <= OUT
    await asyncio.gather(*tasks)
    assert outcomes["220"] > IN
    assert tally.most_clients <= IN
    assert tally.most_deliveries <= OUT
    assert tally.most_together <= TOTAL
    assert relay.events("worker.died") == []
    await until(lambda: locks.held() == locks.held(MOST) == locks.held(2 * MOST) == 0, "all slots to be free")


async def visit(port: int, tally: Tally, outcomes: dict[str, int], *, sends: bool) -> None:
    """Be one client of the storm."""
    client = Client(port, tally)
    outcome = "none"
    try:
        async with asyncio.timeout(PATIENCE_S):
            await client.open()
        outcome = client.greeting[:3]
        if outcome == "220" and sends:
            async with asyncio.timeout(PATIENCE_S):
                await client.send([f"grace@site{random.randrange(200)}.test" for _ in range(5)])
        elif outcome == "220":
            await asyncio.sleep(random.uniform(0, 0.1))
    except (TimeoutError, OSError, EOFError):
        pass
    finally:
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
        if hasattr(client, "writer"):
            client.close()
