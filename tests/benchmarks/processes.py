"""What processes cost, read from /proc: processor time, memory at its peak, and how busy the machine was beside.

A process that ends while it is watched is not lost: its time is its parent's children's time, so a tree is counted as
a whole. Nothing raises on a process that is gone.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Group:
    """Processes that are counted together.

    Attributes:
        pids: Process ids.
        tree: Count what they start as well, also what has ended since.
    """

    pids: tuple[int, ...]
    tree: bool = False

    def members(self) -> set[int]:
        """Return the ids of the living processes."""
        found = set(self.pids)
        if self.tree:
            found.update(*(descendants(pid) for pid in self.pids))
        return found


Groups = Mapping[str, Group]


def descendants(pid: int) -> set[int]:
    """Return the ids of everything that *pid* started, and what they started, that still lives."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (stat := _stat(int(entry))):
            children.setdefault(int(stat[1]), []).append(int(entry))
    found: set[int] = set()
    todo = [pid]
    while todo:
        new = children.get(todo.pop(), [])
        found.update(new)
        todo += new
    return found


def cpu_s(group: Group) -> float:
    """Return the processor seconds that *group* has used so far, user and system."""
    ticks = 0
    for pid in group.members():
        stat = _stat(pid)
        if stat:
            # Fields 14-17 of proc(5): utime, stime, and those of children that were waited for.
            ticks += sum(map(int, stat[11:15] if group.tree else stat[11:13]))
    return ticks / _TICKS_PER_S


def forget_peaks(groups: Iterable[Group]) -> None:
    """Begin to note the peak memory of every member anew."""
    for group in groups:
        for pid in group.members():
            with contextlib.suppress(OSError):
                Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_bytes(group: Group) -> int:
    """Return the peaks of *group*'s members, added up; memory that they share counts once for each."""
    return sum(memory_bytes(pid, "VmHWM") for pid in group.members())


def memory_bytes(pid: int, field: str) -> int:
    """Return a field of ``/proc/PID/status``: ``VmRSS``, ``VmHWM``; 0 when the process is gone."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
    return 0


@dataclass(frozen=True, slots=True)
class MachineTime:
    """Seconds since the machine started, all cores together.

    Attributes:
        busy: Spent on anything at all.
        stolen: Taken away by the host of a virtual machine.
    """

    busy: float
    stolen: float


def machine_time() -> MachineTime:
    """Return the counters of this moment."""
    with Path("/proc/stat").open() as file:
        user, nice, system, _idle, _iowait, irq, softirq, stolen = map(int, file.readline().split()[1:9])
    return MachineTime((user + nice + system + irq + softirq) / _TICKS_PER_S, stolen / _TICKS_PER_S)


def _stat(pid: int) -> list[str]:
    """Return the fields of ``/proc/PID/stat`` behind the name, or nothing."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return []
