"""Processes of the embedded queue die by kill -9 at any moment: nothing confirmed is lost, nothing acked comes back."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from mtaq.broker.embedded import EmbeddedBroker
from mtaq.model.parcel import Consumed

pytestmark = pytest.mark.faults

ROUNDS = 20 if os.environ.get("LONG") else 3
PROJECT = Path(__file__).parents[2]


class Worker:
    """A process of ``tests.support.embedded_worker`` and what it has said."""

    def __init__(self, role: str, folder: Path, log: Path) -> None:
        self.log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.embedded_worker", role, str(folder)], stdout=output, cwd=PROJECT
            )

    def said(self, verb: str) -> list[str]:
        lines = self.log.read_text().splitlines()
        return [line.split()[1] for line in lines if line.startswith(verb + " ")]

    def wait_until_said(self, verb: str, count: int) -> None:
        deadline = time.monotonic() + 60
        while len(self.said(verb)) < count:
            assert self.process.poll() is None, "the worker ended by itself"
            assert time.monotonic() < deadline, f"{self.log} stopped growing"
            time.sleep(0.01)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


async def drain(folder: Path) -> list[str]:
    """Take and ack what is left."""
    broker = EmbeddedBroker(folder, max_size_bytes=1 << 20)
    await broker.start()
    taken: list[str] = []
    more = asyncio.Event()

    def on_message(message: Consumed) -> None:
        taken.append(message.correlation_id)
        message.ack()
        more.set()

    broker.consume("work", prefetch=1000, on_message=on_message)
    while True:
        more.clear()
        try:
            async with asyncio.timeout(1.0):
                await more.wait()
        except TimeoutError:
            break
    await broker.close()
    return taken


def test_nothing_confirmed_is_lost_and_nothing_acked_comes_back(tmp_path: Path) -> None:
    """Two publishers and two consumers are killed together, again and again, in mid-work."""
    folder = tmp_path / "queue"
    workers: list[Worker] = []
    for number in range(ROUNDS):
        crew = [
            Worker(role, folder, tmp_path / f"{number}-{role}-{twin}")
            for role in ("publish", "consume")
            for twin in (1, 2)
        ]
        for worker in crew[:2]:
            worker.wait_until_said("confirmed", 200 + 37 * number)
        for worker in crew[2:]:
            worker.wait_until_said("acked", 20 + 7 * number)
        for worker in crew:
            worker.kill()
        workers += crew

    left = asyncio.run(drain(folder))

    confirmed = [name for worker in workers for name in worker.said("confirmed")]
    acked = [name for worker in workers for name in worker.said("acked")]
    took = Counter(name for worker in workers for name in worker.said("took"))
    assert set(confirmed) <= set(took) | set(left)
    assert not set(acked) & set(left)
    assert len(acked) == len(set(acked))
    assert len(left) == len(set(left))
    returned = [name for name in left if took[name]]
    print(
        f"{len(confirmed)} confirmed, {len(acked)} acked, {len(left)} left, {len(returned)} of them handed out before"
    )


def test_what_a_killed_consumer_held_goes_to_a_living_one(tmp_path: Path) -> None:
    """A consumer that dies gives everything back, redelivered, while others are running."""
    folder = tmp_path / "queue"
    publisher = Worker("publish", folder, tmp_path / "publisher")
    publisher.wait_until_said("confirmed", 100)
    publisher.kill()
    holder = Worker("hold", folder, tmp_path / "holder")
    holder.wait_until_said("took", 100)
    heir = Worker("consume", folder, tmp_path / "heir")
    holder.kill()
    held = set(holder.said("took"))
    heir.wait_until_said("acked", len(held))
    heir.kill()
    redelivered = {line.split()[1] for line in heir.log.read_text().splitlines() if line.endswith(" 1")}
    assert held <= redelivered
