"""One delivery process without a supervisor: ``python -m tests.support.delivery_worker CONFIGURATION NUMBER``.

As many of them as are wanted share an instance, however few processors there are.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
from pathlib import Path

from mtaq.assembly.delivery import Delivery
from mtaq.assembly.parts import utc_now
from mtaq.cli.logs import open_log
from mtaq.config.loading import load

ROOT = Path(__file__).resolve().parents[2]


class DeliveryProcess:
    """The test's end of such a process."""

    def __init__(self, configuration: Path, number: int) -> None:
        self.log = configuration.with_suffix(f".{number}.log")
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.delivery_worker", str(configuration), str(number)],
                cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log,
            )  # fmt: skip

    def stop(self) -> None:
        """End it in order."""
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(20)
        self.process.kill()
        self.process.wait()


async def main() -> None:
    """Deliver until SIGTERM."""
    settings = load(path=sys.argv[1], environ={}, overrides=())
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    delivery = Delivery(settings, open_log(settings, clock=utc_now), number=int(sys.argv[2]))
    await delivery.start()
    await delivery.queues_ready()
    await stop.wait()
    await delivery.stop()


if __name__ == "__main__":
    asyncio.run(main())
