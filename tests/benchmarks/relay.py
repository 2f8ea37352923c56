"""mtaq as it is measured: ``mtaq receive`` or ``mtaq run`` on a RabbitMQ node of our own, with default settings.

A message is answered 250 when the quorum queue has confirmed it; the log is written at its default level, to a file.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import aiormq

from tests.benchmarks.peers import SmtpSink
from tests.benchmarks.processes import Group, Groups
from tests.support.instance import Relay
from tests.support.rabbitmq import RabbitNode

_QUEUE = "mail"

#: Broker, load and sink want the other half of the cores. On two, a second process of a role costs more than it brings:
#: each has its own connection to the broker, whose confirms and acks are then gathered in smaller lots.
_THREADS = max(1, (os.cpu_count() or 1) // 2)


class Mtaq:
    """One instance and its node."""

    name = "mtaq"

    def __init__(self, folder: Path, node: RabbitNode, *, verb: str, **options: object) -> None:
        self._node = node
        self._relay = Relay(
            folder, node.address, verb=verb, name="mtaq", rabbitmq_inbox=_QUEUE, smtp_threads=_THREADS, **options
        )
        self.port = self._relay.port

    def start(self) -> None:
        """Start it and wait until it takes mail."""
        self._relay.start()
        self._relay.wait_ready()

    def stop(self) -> None:
        """Stop it."""
        self._relay.cleanup()

    def groups(self) -> Groups:
        """Its workers by what they do, its supervisor, and the node."""
        process = self._relay.process
        assert process is not None
        workers = {f"mtaq {role}": tuple(self._relay.worker_pids(role)) for role in ("receive", "deliver")}
        beam = int((self._node.directory / "pid").read_text())
        return {
            **{name: Group(pids) for name, pids in workers.items() if pids},
            "mtaq supervisor": Group((process.pid,)),
            "rabbitmq": Group((beam,), tree=True),
        }

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return what it has logged under *name*."""
        return self._relay.events(name)

    def queue(self, ask: Callable[[aiormq.abc.AbstractChannel], Coroutine[Any, Any, int]]) -> int:
        """Return what *ask* finds out on a channel."""

        async def asking() -> int:
            connection = await aiormq.connect(self._node.address)
            try:
                return await ask(await connection.channel())
            finally:
                await connection.close()

        return asyncio.run(asking())


class MtaqIntake(Mtaq):
    """Reception alone: the inbox fills, nobody consumes it."""

    def __init__(self, folder: Path, node: RabbitNode, **options: object) -> None:
        super().__init__(folder, node, verb="receive", **options)

    def begin(self) -> None:
        """Nothing is there."""

    def wait_done(self, messages: int) -> float:
        """What was answered 250 is there."""
        return 0.0

    def collect(self) -> int:
        """Empty the inbox; the node tells how many messages that were."""

        async def purge(channel: aiormq.abc.AbstractChannel) -> int:
            return (await channel.queue_purge(_QUEUE)).message_count or 0

        return self.queue(purge)


class MtaqRelay(Mtaq):
    """Reception and delivery, inbox and outbox the same queue; everything goes to a sink."""

    def __init__(self, folder: Path, node: RabbitNode, *, sink: SmtpSink) -> None:
        super().__init__(
            folder, node, verb="run", rabbitmq_outbox=_QUEUE, smtp_sink_address="127.0.0.1", smtp_sink_port=sink.port
        )
        self._sink = sink

    def groups(self) -> Groups:
        """Its own and the sink."""
        return {**super().groups(), **self._sink.groups()}

    def begin(self) -> None:
        """Count at the sink from here."""
        self._sink.begin()

    def wait_done(self, messages: int) -> float:
        """Wait for the last message at the sink."""
        return self._sink.wait_done(messages)

    def collect(self) -> int:
        """Return how many came to the sink."""
        return self._sink.collect()
