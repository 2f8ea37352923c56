"""One message, one mail: the broker's connections cut, or a process frozen, while a host is making up its mind.

The mail host takes the whole content and holds its answer back. Meanwhile the broker hands the message out again, to
the same process or to another one: only claims and journal keep it from being sent a second time.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from mtaq.client import connect
from tests.support.fake_mx import FakeMx, Script
from tests.support.instance import Relay, wait_until
from tests.support.rabbitmq import PACKAGE, RabbitNode, is_installed, running_node

pytestmark = [
    pytest.mark.faults,
    pytest.mark.slow,
    pytest.mark.rabbitmq,
    pytest.mark.skipif(not is_installed(), reason=f"install {PACKAGE} (Debian package) to run this"),
    pytest.mark.timeout(300),
]

#: Long enough for a second attempt that nothing forbids to get to the mail host.
_TEMPTATION_S = 2.0
_PATIENCE_S = 60.0
_HEARTBEAT_S = 1


@pytest.fixture(scope="module")
def node() -> Iterator[RabbitNode]:
    """A node of our own: its connections are cut."""
    with running_node() as started:
        yield started


@asynccontextmanager
async def delivering(folder: Path, node: RabbitNode, mx: FakeMx, *, instances: int) -> AsyncIterator[list[Relay]]:
    """Instances that only deliver, with one process each, on one journal."""
    async with AsyncExitStack() as stack:
        relays = []
        for number in range(instances):
            relay = Relay(
                folder, node.address, verb="deliver", name=f"relay{number}", smtp_threads=1,
                run_directory=folder / f"instance{number}", smtp_sink_address=mx.ip, smtp_sink_port=mx.port,
                rabbitmq_success="success", rabbitmq_heartbeat=_HEARTBEAT_S, retry_interval="1", retry_jitter=0,
            )  # fmt: skip
            stack.callback(relay.cleanup)
            relay.start()
            await asyncio.to_thread(relay.wait_ready)
            relays.append(relay)
        yield relays


async def publish(node: RabbitNode) -> None:
    """Put one message into the outbox."""
    async with connect(node.address) as queues:
        await queues.publish(
            "outbox", {"recipient": "bob@example.com", "envelope": "", "mime": "Subject: once\r\n\r\nonly\r\n"}
        )


async def results(node: RabbitNode) -> list[list[str]]:
    """Take what is in the queue of successes: of each message, how its attempts ended."""
    found = []
    async with connect(node.address) as queues:
        taking = queues.consume("success")
        with contextlib.suppress(TimeoutError):
            while True:
                async with asyncio.timeout(_TEMPTATION_S):
                    message = await taking.next()
                assert message is not None
                found.append([item["result"] for item in message["results"]])
                message.ack()
    return found


def duplicates(relays: list[Relay]) -> int:
    """Return how many copies were recognised."""
    return sum(len(relay.events("delivery.duplicate")) for relay in relays)


async def holders(node: RabbitNode) -> set[str]:
    """Return the broker's names of the connections that have unsettled messages."""
    listed = await asyncio.to_thread(node.ctl, "list_channels", "connection", "messages_unacknowledged")
    rows = [line.split("\t") for line in listed.splitlines() if line.count("\t") == 1]
    return {connection for connection, unsettled in rows if unsettled.isdigit() and int(unsettled)}


async def handed_out_again(node: RabbitNode, before: set[str]) -> None:
    """Wait until the message is in other hands than *before*."""
    async with asyncio.timeout(_PATIENCE_S):
        while not (now := await holders(node)) or now & before:
            await asyncio.sleep(0.2)


async def sent_once(node: RabbitNode, mx: FakeMx, relays: list[Relay]) -> None:
    """Let the host answer; the message must come to its one result, and its copy be recognised."""
    await asyncio.sleep(_TEMPTATION_S)
    assert len(mx.dialogs) == 1, "a second attempt began while the first was under way"
    mx.gate.set()
    for relay in relays:
        for pid in relay.worker_pids("deliver"):
            os.kill(pid, signal.SIGCONT)
    await asyncio.to_thread(wait_until, lambda: duplicates(relays), "the copy to be recognised")
    assert await results(node) == [["accepted"]]
    assert len(mx.mail) == duplicates(relays) == 1
    assert not any(relay.events("bug") for relay in relays)


@asynccontextmanager
async def held_back(
    folder: Path, node: RabbitNode, *, instances: int, script: Script | None = None
) -> AsyncIterator[tuple[FakeMx, list[Relay]]]:
    """A message whose answer the host holds back."""
    async with (
        FakeMx(*filter(None, (script, Script()))) as mx,
        delivering(folder, node, mx, instances=instances) as relays,
    ):
        mx.gate.clear()
        await publish(node)
        await mx.wait_for(lambda: mx.dialogs and mx.dialogs[0][-1:] == ["DATA"])
        yield mx, relays


@pytest.mark.parametrize("instances", [1, 2])
async def test_connections_cut_while_a_host_decides(tmp_path: Path, node: RabbitNode, instances: int) -> None:
    """``rabbitmqctl close_all_connections``: the message is handed out again, and not sent again."""
    async with held_back(tmp_path, node, instances=instances) as (mx, relays):
        before = await holders(node)
        await asyncio.to_thread(node.ctl, "close_all_connections", "maintenance")
        await handed_out_again(node, before)
        await sent_once(node, mx, relays)


async def test_a_process_frozen_while_a_host_decides(tmp_path: Path, node: RabbitNode) -> None:
    """The broker gives its message to another process; that one waits, and the frozen one's 250 counts."""
    async with held_back(tmp_path, node, instances=2) as (mx, relays):
        before = await holders(node)
        for pid in (await _owner(node, before, relays)).worker_pids("deliver"):
            os.kill(pid, signal.SIGSTOP)
        await handed_out_again(node, before)
        await sent_once(node, mx, relays)


async def test_the_broker_killed_while_a_host_decides(tmp_path: Path, node: RabbitNode) -> None:
    """Killed with -9 and started again: the message is still there, handed out again, and not sent again."""
    async with held_back(tmp_path, node, instances=2) as (mx, relays):
        before = await holders(node)
        await asyncio.to_thread(node.kill_9)
        await asyncio.to_thread(node.start)
        await handed_out_again(node, before)
        await sent_once(node, mx, relays)


async def test_connections_cut_while_a_host_defers(tmp_path: Path, node: RabbitNode) -> None:
    """The retry copy is published by the first and not by the one who was handed the message again: one second try."""
    script = Script(replies={"content": b"451 4.7.1 greylisted\r\n"}, close_after=frozenset({"content"}))
    async with held_back(tmp_path, node, instances=2, script=script) as (mx, relays):
        before = await holders(node)
        await asyncio.to_thread(node.ctl, "close_all_connections", "maintenance")
        await handed_out_again(node, before)
        mx.gate.set()
        await mx.wait_for(lambda: mx.mail)
        assert await results(node) == [["error", "accepted"]]
        await asyncio.sleep(_TEMPTATION_S)
        assert len(mx.mail) == 1
        assert sum(dialog.count("DATA") for dialog in mx.dialogs) == 2
        assert sum(len(relay.events("delivery.deferred")) for relay in relays) == 1


async def _owner(node: RabbitNode, connections: set[str], relays: list[Relay]) -> Relay:
    """Return the relay whose process has one of these connections."""
    listed = await asyncio.to_thread(node.ctl, "list_connections", "pid", "peer_port")
    rows = [line.split("\t") for line in listed.splitlines() if line.count("\t") == 1]
    ports = {int(port) for connection, port in rows if connection in connections}
    [owner] = [relay for relay in relays if ports & _local_ports(relay.worker_pids("deliver")[0])]
    return owner


def _local_ports(pid: int) -> set[int]:
    """Return the local TCP ports of a process, from ``/proc``."""
    inodes = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        target = os.readlink(descriptor)
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    rows = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    return {int(row[1].partition(":")[2], 16) for row in rows if row[9] in inodes}
