"""RabbitMQ killed, blocked, cut off: nothing confirmed is lost, every call ends, and all comes back by itself."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Iterator

import pytest

from mtaq.broker import Broker, BrokerOptions, open_broker
from mtaq.broker.address import parse_addresses
from mtaq.model.errors import BrokerError, BrokerUnavailable, TooLarge
from mtaq.model.parcel import BrokerState, QueueSpec
from tests.support.queues import Inbox, fresh_queue, parcel, publish_all
from tests.support.rabbitmq import PACKAGE, RabbitNode, is_installed, running_node

pytestmark = [
    pytest.mark.faults,
    pytest.mark.rabbitmq,
    pytest.mark.skipif(not is_installed(), reason=f"install {PACKAGE} (Debian package) to run this"),
    pytest.mark.timeout(1200),
]

_KILLS = 20 if os.environ.get("LONG") else 3

#: A node killed within a second of a queue's declaration comes back with that queue empty.
_SETTLE_S = 3.0
_RECOVERY_S = 90.0
_PUBLISH_TIMEOUT_S = 3.0


@pytest.fixture(scope="module")
def node() -> Iterator[RabbitNode]:
    """A node of our own, to be killed."""
    with running_node() as started:
        yield started


@pytest.fixture
async def broker(node: RabbitNode) -> AsyncIterator[Broker]:
    async with _opened(node) as broker:
        yield broker


@pytest.fixture
async def other(node: RabbitNode) -> AsyncIterator[Broker]:
    async with _opened(node) as broker:
        yield broker


@contextlib.asynccontextmanager
async def _opened(node: RabbitNode, *, heartbeat_s: int = 30) -> AsyncIterator[Broker]:
    broker = open_broker(BrokerOptions(addresses=parse_addresses(node.address), heartbeat_s=heartbeat_s))
    await broker.start()
    try:
        yield broker
    finally:
        await broker.close()


async def _until(broker: Broker, state: BrokerState) -> None:
    async with asyncio.timeout(_RECOVERY_S):
        while broker.state is not state:
            await asyncio.sleep(0.001)


class Load:
    """Publishes numbered bodies without pause and remembers which were confirmed."""

    def __init__(self, broker: Broker, queue: str) -> None:
        self.confirmed: set[bytes] = set()
        self.failures = 0
        self._broker = broker
        self._queue = queue
        self._count = 0
        self._stopped = False

    async def run(self) -> None:
        while not self._stopped:
            self._count += 1
            body = b"%d" % self._count
            try:
                async with asyncio.timeout(_PUBLISH_TIMEOUT_S + 5):  # a hanging publish fails the test
                    await self._broker.publish(self._queue, parcel(body), timeout_s=_PUBLISH_TIMEOUT_S)
            except BrokerError:
                self.failures += 1
                await asyncio.sleep(0.05)
            else:
                self.confirmed.add(body)

    async def more(self, count: int) -> None:
        """Wait until *count* more were confirmed."""
        goal = len(self.confirmed) + count
        async with asyncio.timeout(_RECOVERY_S):
            while len(self.confirmed) < goal:
                await asyncio.sleep(0.01)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            for _ in range(10):
                group.create_task(self.run())
            try:
                yield
            finally:
                self._stopped = True


async def _kill_and_start(node: RabbitNode, broker: Broker) -> None:
    await asyncio.to_thread(node.kill_9)
    await _until(broker, BrokerState.DOWN)
    await asyncio.to_thread(node.start)
    await _until(broker, BrokerState.UP)


async def _all_came(inbox: Inbox, load: Load) -> None:
    async with asyncio.timeout(_RECOVERY_S):
        while load.confirmed - set(inbox.bodies):
            await asyncio.sleep(0.05)


async def test_killed_under_load(node: RabbitNode, broker: Broker, other: Broker) -> None:
    """Killed with -9 again and again while publishing and consuming: every confirmed message is consumed."""
    queue = await fresh_queue(broker)
    await asyncio.sleep(_SETTLE_S)
    inbox, load = Inbox(ack=True), Load(broker, queue)
    other.consume(queue, prefetch=50, on_message=inbox)
    async with load.running():
        for _ in range(_KILLS):
            await load.more(200)
            await _kill_and_start(node, broker)
        await load.more(200)
    await _all_came(inbox, load)
    assert load.failures > 0
    print(f"{len(load.confirmed)} confirmed, {len(inbox.bodies) - len(set(inbox.bodies))} handed out twice")


async def test_killed_before_consuming(node: RabbitNode, broker: Broker) -> None:
    """What was confirmed before and after a kill lies in the queue, delayed messages included."""
    queue = await fresh_queue(broker, ladder=True)
    await asyncio.sleep(_SETTLE_S)
    load = Load(broker, queue)
    await broker.publish(queue, parcel(b"delayed"), timeout_s=_PUBLISH_TIMEOUT_S, delay_s=5)
    load.confirmed.add(b"delayed")
    async with load.running():
        await load.more(200)
        await _kill_and_start(node, broker)
        await load.more(200)
    inbox = Inbox(ack=True)
    broker.consume(queue, prefetch=50, on_message=inbox)
    await _all_came(inbox, load)


async def test_connections_closed(node: RabbitNode, broker: Broker) -> None:
    """Connections closed by an operator: what was not settled comes again, late acks do nothing, all goes on."""
    queue = await fresh_queue(broker)
    await publish_all(broker, queue, ["a", "b"])
    inbox = Inbox()
    broker.consume(queue, prefetch=10, on_message=inbox)
    a, b = await inbox.wait(2)
    load = Load(broker, queue)
    async with load.running():
        await load.more(1)
        closing = asyncio.to_thread(node.ctl, "close_all_connections", "maintenance")
        await asyncio.gather(closing, _until(broker, BrokerState.DOWN))  # it is up again before ctl has ended
        a.ack()
        b.requeue()
        await _until(broker, BrokerState.UP)
        await load.more(1)
    again = Inbox(ack=True)
    broker.consume(queue, prefetch=100, on_message=again)
    async with asyncio.timeout(_RECOVERY_S):
        while not {b"a", b"b"} <= {
            message.body for message in (*inbox.messages, *again.messages) if message.redelivered
        }:
            await asyncio.sleep(0.05)


async def test_larger_than_the_server_takes(node: RabbitNode, broker: Broker) -> None:
    """A message beyond the server's own limit is UnconfirmedPublish for its sender alone."""
    limit = "application:set_env(rabbit, max_message_size, {})."
    queue = await fresh_queue(broker)
    await asyncio.to_thread(node.ctl, "eval", limit.format(2000))
    try:
        with pytest.raises(TooLarge, match="2000"):
            await broker.publish(queue, parcel(b"x" * 2001), timeout_s=_RECOVERY_S)
        await broker.publish(queue, parcel(b"x" * 2000), timeout_s=_RECOVERY_S)
    finally:
        await asyncio.to_thread(node.ctl, "eval", limit.format(134217728))


async def test_memory_alarm(node: RabbitNode, broker: Broker) -> None:
    """Under a memory alarm publishing fails in bounded time, consuming goes on, and publishing recovers by itself."""
    queue = await fresh_queue(broker)
    await publish_all(broker, queue, ["before"])
    inbox = Inbox(ack=True)
    await asyncio.to_thread(node.set_memory_alarm, True)
    try:
        with pytest.raises(BrokerUnavailable):
            await broker.publish(queue, parcel(b"stuck"), timeout_s=1)
        await _until(broker, BrokerState.BLOCKED)
        with pytest.raises(BrokerUnavailable, match="blocked"):
            await broker.publish(queue, parcel(b"refused"), timeout_s=_RECOVERY_S)
        broker.consume(queue, prefetch=10, on_message=inbox)
        await inbox.wait(1)
    finally:
        await asyncio.to_thread(node.set_memory_alarm, False)
    await _until(broker, BrokerState.UP)
    await publish_all(broker, queue, ["after"])
    await inbox.wait(2)
    assert b"after" in inbox.bodies or await inbox.wait(3)
    assert b"refused" not in inbox.bodies


async def test_close_while_blocked(node: RabbitNode, broker: Broker) -> None:
    """Closing does not wait for a blocked broker."""
    queue = await fresh_queue(broker)
    await asyncio.to_thread(node.set_memory_alarm, True)
    try:
        with pytest.raises(BrokerUnavailable):
            await broker.publish(queue, parcel(), timeout_s=1)
        async with asyncio.timeout(30):
            await broker.close()
    finally:
        await asyncio.to_thread(node.set_memory_alarm, False)


async def test_close_while_down(node: RabbitNode, broker: Broker) -> None:
    """Closing does not wait for a broker that is gone, and leaves no task behind."""
    queue = await fresh_queue(broker)
    broker.consume(queue, prefetch=10, on_message=Inbox())
    await publish_all(broker, queue, ["a"])
    await asyncio.to_thread(node.kill_9)
    try:
        await _until(broker, BrokerState.DOWN)
        async with asyncio.timeout(30):
            await broker.close()
        with pytest.raises(BrokerUnavailable):
            await broker.start()
        left = {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}
        assert left == set()
    finally:
        await asyncio.to_thread(node.start)


async def test_frozen(node: RabbitNode) -> None:
    """A node that answers nothing more: publishing ends in time, the heartbeat notices, and it recovers by itself."""
    async with _opened(node, heartbeat_s=1) as broker:
        queue = await fresh_queue(broker)
        await asyncio.to_thread(node.freeze, True)
        try:
            with pytest.raises(BrokerUnavailable):
                await broker.publish(queue, parcel(b"a"), timeout_s=1)
            await _until(broker, BrokerState.DOWN)
        finally:
            await asyncio.to_thread(node.freeze, False)
        await _until(broker, BrokerState.UP)
        await publish_all(broker, queue, ["b"])


async def test_restarted(node: RabbitNode, broker: Broker) -> None:
    """An orderly restart is survived: declaring, publishing and consuming go on."""
    queue = await fresh_queue(broker)
    inbox = Inbox(ack=True)
    broker.consume(queue, prefetch=10, on_message=inbox)
    await publish_all(broker, queue, ["a"])
    await inbox.wait(1)
    await asyncio.to_thread(node.restart)
    await _until(broker, BrokerState.UP)
    async with asyncio.timeout(_RECOVERY_S):
        while True:
            with contextlib.suppress(BrokerError):
                await broker.declare([QueueSpec(name=queue)])
                await broker.publish(queue, parcel(b"b"), timeout_s=_PUBLISH_TIMEOUT_S)
                break
            await asyncio.sleep(0.1)
    await inbox.wait(2, timeout_s=_RECOVERY_S)
    assert inbox.bodies[:2] == [b"a", b"b"]
