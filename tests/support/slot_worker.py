"""One process among several that want slots: told what to do by lines on its input, or let loose.

``python -m tests.support.slot_worker PATH TOTAL SIDE CAP``; each line of input is a JSON list, a verb and its
arguments, and is answered by a line of JSON. The times of a trace are taken inside of what they describe: after a
slot was taken, before it is given back.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, cast

from mtaq.net.slots import _CLAIM_LOCKS, _CLAIMS, _CROWD, _SEATS, Side, Slots

ROOT = Path(__file__).resolve().parents[2]

Trace = list[tuple[float, float, int]]
"""From when to when a slot was held, and which."""


class SlotProcess:
    """The test's end of such a process."""

    def __init__(self, path: Path, total: int, side: Side = "in", cap: int | None = None) -> None:
        arguments = [sys.executable, "-m", "tests.support.slot_worker", str(path), str(total), side, json.dumps(cap)]
        self.process = subprocess.Popen(
            arguments, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )  # fmt: skip

    def begin(self, verb: str, *arguments: Any) -> None:
        """Tell it what to do."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([verb, *arguments]) + "\n")
        self.process.stdin.flush()

    def result(self) -> Any:
        """Return its answer."""
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def do(self, verb: str, *arguments: Any) -> Any:
        """Tell it, and return its answer."""
        self.begin(verb, *arguments)
        return self.result()

    def kill(self) -> None:
        """``kill -9``, and wait for its end."""
        self.process.kill()
        self.process.communicate()


class Worker:
    """What the process does."""

    def __init__(self, slots: Slots) -> None:
        self.slots = slots

    def take(self, wanted: int) -> int:
        """Take up to *wanted* slots; return how many there were."""
        return sum(self.slots.take() is not None for _ in range(wanted))

    def claim(self, client_ip: str, cap: int, wanted: int) -> int:
        """Take and claim *wanted* slots for a client; return how many it was allowed."""
        held = [self.slots.take() for _ in range(wanted)]
        return sum(slot is not None and self.slots.claim(slot, client_ip, cap) for slot in held)

    def claim_for(self, counter: str, cap: int, wanted: int) -> int:
        """Take and claim *wanted* slots for a counter; return how many it was allowed."""
        held = [self.slots.take() for _ in range(wanted)]
        return sum(slot is not None and self.slots.claim_for(slot, counter.encode(), cap) for slot in held)

    def lock_all_claims(self) -> None:
        """Stand still with the locks that serialize claims."""
        for number in range(_CLAIM_LOCKS):
            assert self.slots._file.try_lock(_CLAIMS + number)

    def leave_no_seat(self) -> None:
        """Take all seats."""
        for seat in range(1, _CROWD):
            assert self.slots._file.try_lock(_SEATS + seat)

    def storm(self, steps: int, most: int, seed: int) -> Trace:
        """Take and give back at random, never more than *most* at once."""
        rng, trace = random.Random(seed), Trace()
        held: list[tuple[float, int]] = []
        for step in range(steps):
            pause(step)
            if held and rng.random() < len(held) / most / 2:
                since, slot = held.pop(rng.randrange(len(held)))
                trace.append((since, time.monotonic(), slot))
                self.slots.release(slot)
            elif (taken := self.slots.take()) is not None:
                held.append((time.monotonic(), taken))
        return trace + [(since, time.monotonic(), slot) for since, slot in held]

    def claims(self, steps: int, client_ip: str, cap: int, seed: int) -> Trace:
        """Have connections of one client come and go at random; trace those that it was allowed."""
        rng, trace = random.Random(seed), Trace()
        held: list[tuple[float, int]] = []
        for step in range(steps):
            pause(step)
            if held and rng.random() < 0.5:
                since, slot = held.pop(rng.randrange(len(held)))
                trace.append((since, time.monotonic(), slot))
                self.slots.release(slot)
                continue
            slot = cast(int, self.slots.take())
            if self.slots.claim(slot, client_ip, cap):
                held.append((time.monotonic(), slot))
            else:
                self.slots.release(slot)
        return trace + [(since, time.monotonic(), slot) for since, slot in held]


def pause(step: int) -> None:
    """Let others run in between, after every few steps in a row."""
    if step % 8 == 0:
        time.sleep(0.0001)


def most_at_once(*traces: Trace) -> int:
    """Return how many slots were held at once, at most."""
    changes = sorted(change for trace in traces for since, until, _ in trace for change in ((since, 1), (until, -1)))
    most = now = 0
    for _, change in changes:
        now += change
        most = max(most, now)
    return most


if __name__ == "__main__":
    path, total, side, cap = sys.argv[1:]
    worker = Worker(Slots(Path(path), int(total), side=cast(Side, side), cap=json.loads(cap)))
    for line in sys.stdin:
        verb, *arguments = json.loads(line)
        print(json.dumps(getattr(worker, verb)(*arguments)), flush=True)
