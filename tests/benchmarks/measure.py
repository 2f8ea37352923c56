"""One measurement: a load on one server, what it took, and what it cost whom."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Protocol

from tests.benchmarks.load import Case, send
from tests.benchmarks.processes import Groups, cpu_s, forget_peaks, machine_time, peak_bytes

#: A server is at rest when its processes use less than this share of a core.
_REST_SHARE = 0.1
_REST_LOOK_S = 0.2
_REST_LOOKS = 3
_REST_DEADLINE_S = 30.0


class Server(Protocol):
    """What is measured; it runs all the time, idle while another one is loaded."""

    name: str
    port: int

    def groups(self) -> Groups:
        """Return the processes that work for it, under the names of the report."""

    def begin(self) -> None:
        """Note what there is before the load."""

    def wait_done(self, messages: int) -> float:
        """Wait until *messages* messages are where they should be, and return when the last came (monotonic)."""

    def collect(self) -> int:
        """Return how many messages there are since ``begin``; what is in the way of the next load is removed."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """One load on one server.

    Attributes:
        arrived: Messages counted at the end; more than *messages* when some came twice.
        seconds: From the first connection to the last 250 (intake), or to the last message at the sink (relay).
        cpu_us: Processor time per message of each group of processes meanwhile, in microseconds.
        cpu_after_us: Likewise from then until all were at rest again.
        peak_bytes: Peak memory of each group.
        other_share: Share of the machine that was used by anything else: the kernel's threads, and strangers.
        stolen_share: Share of the machine that its host took away.
    """

    server: str
    case: Case
    messages: int
    arrived: int
    seconds: float
    cpu_us: dict[str, float]
    cpu_after_us: dict[str, float]
    peak_bytes: dict[str, int]
    other_share: float
    stolen_share: float

    @property
    def per_s(self) -> float:
        """Messages a second."""
        return self.messages / self.seconds


def measure(server: Server, case: Case, messages: int) -> Measurement:
    """
    Load *server* with *messages* messages, from rest to rest.

    Raises:
        LoadFailed: A message was not answered 250.
    """
    server.begin()
    groups = server.groups()
    forget_peaks(groups.values())
    machine, before = machine_time(), _used(groups)
    sent = send(server.port, case, messages)
    ended = server.wait_done(messages)
    used, machine_after = _used(groups), machine_time()
    seconds = max(ended, sent.began + sent.seconds) - sent.began
    peaks = {name: peak_bytes(group) for name, group in groups.items()}
    wait_rest(groups)
    rested = _used(groups)
    arrived = server.collect()
    os.sync()  # what one server left to be written must not slow down the next
    wait_rest(groups)
    cpu = {name: used[name] - before[name] for name in groups} | {"smtp-source": sent.cpu_s}
    available_s = seconds * (os.cpu_count() or 1)
    return Measurement(
        server=server.name,
        case=case,
        messages=messages,
        arrived=arrived,
        seconds=seconds,
        cpu_us=_per_message(cpu, messages),
        cpu_after_us=_per_message({name: rested[name] - used[name] for name in groups}, messages),
        peak_bytes=peaks | {"smtp-source": sent.peak_bytes},
        other_share=max(0.0, machine_after.busy - machine.busy - sum(cpu.values())) / available_s,
        stolen_share=(machine_after.stolen - machine.stolen) / available_s,
    )


def _used(groups: Groups) -> dict[str, float]:
    return {name: cpu_s(group) for name, group in groups.items()}


def _per_message(seconds: dict[str, float], messages: int) -> dict[str, float]:
    return {name: round(used / messages * 1e6, 1) for name, used in seconds.items()}


def wait_rest(groups: Groups) -> None:
    """Wait until *groups* hardly work any more; half a minute at most."""
    deadline = time.monotonic() + _REST_DEADLINE_S
    quiet, last = 0, sum(_used(groups).values())
    while quiet < _REST_LOOKS and time.monotonic() < deadline:
        time.sleep(_REST_LOOK_S)
        now = sum(_used(groups).values())
        quiet = quiet + 1 if now - last < _REST_SHARE * _REST_LOOK_S else 0
        last = now
