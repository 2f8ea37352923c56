"""What the embedded queue adds to the contract of brokers: files, several processes, clocks, a disk that fails."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mtaq.broker.embedded import EmbeddedBroker
from mtaq.broker.embedded import clock as queue_clock
from mtaq.model.errors import BrokerUnavailable, ConfigError, TopologyMismatch, UnconfirmedPublish
from mtaq.model.parcel import BrokerState, Consumed, Parcel, QueueSpec

PROJECT = Path(__file__).parents[2]
QUEUES = [QueueSpec(name="inbox"), QueueSpec(name="outbox", ladder=True)]


@asynccontextmanager
async def opened(path: Path, **options: object) -> AsyncIterator[EmbeddedBroker]:
    broker = EmbeddedBroker(path, **{"max_size_bytes": 8 << 20, **options})  # type: ignore[arg-type]  # any option
    await broker.start()
    await broker.declare(QUEUES)
    try:
        yield broker
    finally:
        await broker.close()


async def put(broker: EmbeddedBroker, queue: str, *bodies: str, priority: int = 0, delay_s: float = 0) -> None:
    for body in bodies:
        parcel = Parcel(body=body.encode(), type="test", priority=priority)
        await broker.publish(queue, parcel, timeout_s=10, delay_s=delay_s)


class Taker:
    """Collects what a queue hands out."""

    def __init__(self, broker: EmbeddedBroker, queue: str, prefetch: int = 100, *, ack: bool = False) -> None:
        self.messages: list[Consumed] = []
        self._ack = ack
        self._changed = asyncio.Event()
        self.consumer = broker.consume(queue, prefetch=prefetch, on_message=self._on_message)

    def _on_message(self, message: Consumed) -> None:
        self.messages.append(message)
        if self._ack:
            message.ack()
        self._changed.set()

    @property
    def bodies(self) -> list[str]:
        return [message.body.decode() for message in self.messages]

    async def wait(self, count: int) -> Sequence[Consumed]:
        async with asyncio.timeout(20):
            while len(self.messages) < count:
                self._changed.clear()
                await self._changed.wait()
        return self.messages


async def all_taken(*takers: Taker, count: int) -> None:
    while (got := sum(len(taker.messages) for taker in takers)) < count:
        waits = [asyncio.ensure_future(taker.wait(len(taker.messages) + 1)) for taker in takers]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        assert sum(len(taker.messages) for taker in takers) > got


async def test_a_message_comes_out_as_it_went_in(tmp_path: Path) -> None:
    """Body and every property survive a restart."""
    parcel = Parcel(
        body=b'{"a":1}',
        type="mtaq.inbox.v1",
        correlation_id="srv.1",
        message_id="fixed",
        priority=3,
        headers={"traceparent": "00-1", "tries": 2, "redelivered": True},
    )
    async with opened(tmp_path / "q") as broker:
        await broker.publish("inbox", parcel, timeout_s=10)
    async with opened(tmp_path / "q") as broker:
        (message,) = await Taker(broker, "inbox").wait(1)
        assert (message.queue, message.body, message.type) == ("inbox", parcel.body, parcel.type)
        assert (message.correlation_id, message.message_id, message.priority) == ("srv.1", "fixed", 3)
        assert message.headers == parcel.headers
        assert message.redelivered is False


@pytest.mark.parametrize("size", [0, 1, 4096, (1 << 20) - 1, 1 << 20, (3 << 20) + 17])
async def test_a_body_of_any_size_comes_back_unchanged(tmp_path: Path, size: int) -> None:
    """Bodies are stored byte for byte, the streamed large ones too."""
    body = os.urandom(size)
    async with opened(tmp_path / "q") as broker:
        await broker.publish("inbox", Parcel(body=body, type="test"), timeout_s=10)
        (message,) = await Taker(broker, "inbox").wait(1)
        assert message.body == body


async def test_a_refused_publish_does_not_touch_its_neighbours(tmp_path: Path) -> None:
    """Of publishes in one batch, only the one for a missing queue fails."""
    async with opened(tmp_path / "q") as broker:
        results = await asyncio.gather(
            put(broker, "inbox", "one"), put(broker, "nowhere", "two"), put(broker, "inbox", "three"),
            return_exceptions=True,
        )  # fmt: skip
        assert [type(result) for result in results] == [type(None), UnconfirmedPublish, type(None)]
        taker = Taker(broker, "inbox")
        await taker.wait(2)
        assert taker.bodies == ["one", "three"]


async def test_what_cannot_be_stored_is_unconfirmed(tmp_path: Path) -> None:
    """Too large, a delay for a queue without delays, and text that is no Unicode are refused at once."""
    async with opened(tmp_path / "q", max_size_bytes=10) as broker:
        for parcel, delay_s in (
            (Parcel(body=b"x" * 11, type="test"), 0),
            (Parcel(body=b"x", type="test"), 1),
            (Parcel(body=b"x", type="\udc80"), 0),
        ):
            with pytest.raises(UnconfirmedPublish):
                await broker.publish("inbox", parcel, timeout_s=10, delay_s=delay_s)


async def test_an_absurd_priority_is_the_highest_one(tmp_path: Path) -> None:
    """A number that no column holds neither fails nor breaks its batch."""
    async with opened(tmp_path / "q", max_priority=5) as broker:
        await put(broker, "inbox", "x", priority=10**30)
        (message,) = await Taker(broker, "inbox").wait(1)
        assert message.priority == 5


async def test_no_more_than_prefetch_are_out_and_an_ack_brings_the_next(tmp_path: Path) -> None:
    """The third message comes only after one of two was settled."""
    async with opened(tmp_path / "q") as broker:
        await put(broker, "inbox", "1", "2", "3")
        taker = Taker(broker, "inbox", prefetch=2)
        await taker.wait(2)
        await put(broker, "outbox", "a later batch")
        assert taker.bodies == ["1", "2"]
        taker.messages[0].ack()
        await taker.wait(3)
        assert taker.bodies == ["1", "2", "3"]


async def test_a_requeued_message_comes_again_redelivered(tmp_path: Path) -> None:
    """Settling twice changes nothing."""
    async with opened(tmp_path / "q") as broker:
        await put(broker, "inbox", "1")
        taker = Taker(broker, "inbox")
        (first,) = await taker.wait(1)
        first.requeue()
        first.ack()
        _, second = await taker.wait(2)
        assert second.redelivered


async def test_after_stop_nothing_is_handed_out_and_the_rest_can_be_settled(tmp_path: Path) -> None:
    """What was out when the consumer stopped is still its own."""
    async with opened(tmp_path / "q") as broker:
        await put(broker, "inbox", "1", "2")
        taker = Taker(broker, "inbox", prefetch=1)
        (message,) = await taker.wait(1)
        await taker.consumer.stop()
        message.ack()
        other = Taker(broker, "inbox")
        await other.wait(1)
        assert (taker.bodies, other.bodies) == (["1"], ["2"])


async def test_close_gives_back_what_is_not_settled(tmp_path: Path) -> None:
    """Acked is gone, unsettled comes again, redelivered."""
    async with opened(tmp_path / "q") as broker:
        await put(broker, "inbox", "acked", "open")
        messages = await Taker(broker, "inbox").wait(2)
        messages[0].ack()
    async with opened(tmp_path / "q") as broker:
        taker = Taker(broker, "inbox")
        await taker.wait(1)
        await put(broker, "inbox", "fresh")
        await taker.wait(2)
        assert [(m.body, m.redelivered) for m in taker.messages] == [(b"open", True), (b"fresh", False)]


async def test_two_processes_share_a_queue(tmp_path: Path) -> None:
    """Each message goes to one of two consumers, and both get some."""
    async with opened(tmp_path / "q") as one, opened(tmp_path / "q") as two:
        first, second = Taker(one, "inbox", 50, ack=True), Taker(two, "inbox", 50, ack=True)
        async with opened(tmp_path / "q") as publisher:
            await asyncio.gather(*(put(publisher, "inbox", str(number)) for number in range(500)))
        await asyncio.gather(first.wait(51), second.wait(51))
        await all_taken(first, second, count=500)
        assert sorted(map(int, first.bodies + second.bodies)) == list(range(500))


async def test_a_queue_declared_later_by_somebody_else_is_consumed(tmp_path: Path) -> None:
    """Consuming may begin before the queue exists."""
    async with opened(tmp_path / "q") as one, opened(tmp_path / "q") as two:
        taker = Taker(one, "late")
        assert await two.declare([QueueSpec(name="late")]) is True
        assert await two.declare([QueueSpec(name="late")]) is False
        await put(two, "late", "x")
        await taker.wait(1)


async def test_a_broker_that_may_not_declare_only_looks(tmp_path: Path) -> None:
    """A missing queue, or one without its delays, is named."""
    async with opened(tmp_path / "q"):
        looker = EmbeddedBroker(tmp_path / "q", max_size_bytes=100, declare=False)
        await looker.start()
        assert await looker.declare(QUEUES) is False
        for spec in (QueueSpec(name="missing"), QueueSpec(name="inbox", ladder=True)):
            with pytest.raises(TopologyMismatch, match=spec.name):
                await looker.declare([spec])
        await looker.close()


async def test_a_delayed_message_comes_when_its_time_has_passed(tmp_path: Path) -> None:
    """The wall clock plays no part; shorter delays overtake longer ones."""
    uptime_s = 1000.0
    async with opened(tmp_path / "q", uptime=lambda: uptime_s) as broker:
        taker = Taker(broker, "outbox", ack=True)
        await put(broker, "outbox", "in a minute", delay_s=60)
        await put(broker, "outbox", "in a second", delay_s=1)
        await put(broker, "outbox", "now")
        await taker.wait(1)
        uptime_s += 1.5
        await taker.wait(2)
        uptime_s += 60
        await taker.wait(3)
        assert taker.bodies == ["now", "in a second", "in a minute"]


async def test_after_a_reboot_delays_go_on_by_the_wall_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Uptime starts again from nothing, and a delay that is over then is over."""
    monkeypatch.setattr(queue_clock, "boot_id", lambda: "first boot")
    monkeypatch.setattr(queue_clock.time, "time", lambda: 1_000_000.0)
    async with opened(tmp_path / "q", uptime=lambda: 5000.0) as broker:
        await put(broker, "outbox", "x", delay_s=60)
    monkeypatch.setattr(queue_clock, "boot_id", lambda: "second boot")
    monkeypatch.setattr(queue_clock.time, "time", lambda: 1_000_061.0)
    async with opened(tmp_path / "q", uptime=lambda: 3.0) as broker:
        await Taker(broker, "outbox").wait(1)


async def test_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    """Whatever the umask, folder and files are closed to others."""
    old = os.umask(0)
    try:
        async with opened(tmp_path / "deep" / "q") as broker:
            await put(broker, "inbox", "secret")
            assert (tmp_path / "deep" / "q").stat().st_mode & 0o777 == 0o700
            for file in (tmp_path / "deep" / "q").iterdir():
                assert file.stat().st_mode & 0o777 == 0o600, file
    finally:
        os.umask(old)


async def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    """Data of a newer program is a configuration error that names the file, and stays as it is."""
    async with opened(tmp_path / "q"):
        pass
    with sqlite3.connect(tmp_path / "q" / "queue.db") as connection:
        connection.execute("PRAGMA user_version = 99")
    broker = EmbeddedBroker(tmp_path / "q", max_size_bytes=100)
    with pytest.raises(ConfigError, match="newer"):
        await broker.start()
    assert broker.state is BrokerState.DOWN


async def test_a_folder_that_cannot_be_made_is_unavailable(tmp_path: Path) -> None:
    """Start fails with the reason instead of waiting."""
    (tmp_path / "file").touch()
    broker = EmbeddedBroker(tmp_path / "file" / "q", max_size_bytes=100)
    with pytest.raises(BrokerUnavailable):
        await broker.start()
    with pytest.raises(BrokerUnavailable):
        await broker.publish("inbox", Parcel(body=b"", type="test"), timeout_s=1)


FULL_DISK = """
import asyncio, resource, sys
from pathlib import Path
from mtaq.broker.embedded import EmbeddedBroker
from mtaq.model.errors import BrokerUnavailable
from mtaq.model.parcel import BrokerState, Parcel, QueueSpec

def allow(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

async def main(folder):
    states = asyncio.Queue()
    broker = EmbeddedBroker(folder, max_size_bytes=8 << 20, on_state=lambda state, why: states.put_nowait(state))
    await broker.start()
    await broker.declare([QueueSpec(name="inbox")])
    await broker.publish("inbox", Parcel(body=b"first", type="test"), timeout_s=5)
    taken = asyncio.Queue()
    broker.consume("inbox", prefetch=1, on_message=taken.put_nowait)
    first = await taken.get()
    allow(4096)
    try:
        await broker.publish("inbox", Parcel(body=bytes(1 << 19), type="test"), timeout_s=5)
    except BrokerUnavailable:
        pass
    else:
        raise SystemExit("stored on a full disk")
    assert await states.get() is BrokerState.DOWN and broker.state is BrokerState.DOWN
    first.ack()
    allow(resource.RLIM_INFINITY)
    assert await states.get() is BrokerState.UP and broker.state is BrokerState.UP
    await broker.publish("inbox", Parcel(body=b"second", type="test"), timeout_s=5)
    second = await taken.get()
    assert (second.body, second.redelivered) == (b"second", False), second.body[:10]
    second.ack()
    await broker.close()

asyncio.run(asyncio.wait_for(main(Path(sys.argv[1])), 30))
"""


def test_a_full_disk_is_down_and_mends_itself(tmp_path: Path) -> None:
    """Publishing fails, the state says so, an ack given meanwhile is kept, and all goes on when there is room."""
    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(tmp_path / "q")], cwd=PROJECT, timeout=60)
    assert done.returncode == 0


async def test_a_locked_queue_delays_nobody_without_end(tmp_path: Path) -> None:
    """A publish that cannot be written in time fails as unavailable."""
    async with opened(tmp_path / "q") as broker:
        holder = sqlite3.connect(tmp_path / "q" / "queue.db", isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(BrokerUnavailable):
            await broker.publish("inbox", Parcel(body=b"x", type="test"), timeout_s=0.05)
        holder.execute("ROLLBACK")
        holder.close()
        await put(broker, "inbox", "y")


async def test_a_callback_that_raises_keeps_nothing_else_back(tmp_path: Path) -> None:
    """The loop's exception handler hears of it; the messages behind it are handed out."""
    heard: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context["exception"]))
    async with opened(tmp_path / "q") as broker:
        await put(broker, "inbox", "bad", "good")
        taken: asyncio.Queue[Consumed] = asyncio.Queue()
        broker.consume("inbox", prefetch=10, on_message=picky(taken.put_nowait))
        assert (await taken.get()).body == b"good"
    assert [type(error) for error in heard] == [ValueError]


def picky(accept: Callable[[Consumed], None]) -> Callable[[Consumed], None]:
    def on_message(message: Consumed) -> None:
        if message.body == b"bad":
            raise ValueError
        accept(message)

    return on_message
