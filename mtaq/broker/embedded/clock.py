"""The queue's own time: what delays are measured by.

Within one boot of the host it advances evenly, whatever is done to the wall clock, and is the same in every process;
after a reboot it is set to the wall clock anew. So a delay is a duration, and survives both.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path


def uptime_s() -> float:
    """Return the seconds since the host was started, suspension included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot_id() -> str:
    """Return a name of this boot of the host."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


class QueueClock:
    """Tells the queue's time once ``set_by`` was called."""

    def __init__(self, uptime: Callable[[], float] = uptime_s) -> None:
        self._uptime = uptime
        self._wall_minus_uptime = 0.0

    def set_by(self, connection: sqlite3.Connection) -> None:
        """Agree with the other processes, inside a transaction: the first one after a boot sets the clock."""
        boot = boot_id()
        row = connection.execute("SELECT wall_minus_uptime FROM clock WHERE boot = ?", (boot,)).fetchone()
        if row is None:
            row = (time.time() - self._uptime(),)
            connection.execute("DELETE FROM clock")
            connection.execute("INSERT INTO clock VALUES (?, ?)", (boot, *row))
        self._wall_minus_uptime = row[0]

    def now(self) -> float:
        """Return the seconds since 1970 by this clock."""
        return self._uptime() + self._wall_minus_uptime
