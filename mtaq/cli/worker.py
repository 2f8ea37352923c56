"""One worker process: ``python -m mtaq.cli.worker ROLE FD``, started by the supervisor and by nobody else.

Learns everything else over FD (``mtaq.net.control``), and tells it how the broker is. SIGTERM, or a supervisor that is
gone, stops it in order.

The services are imported inside ``main``: metrics open their files when they are declared, and what the system refuses
then ends in a sentence and an exit status like anything else that it refuses.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import sys
from typing import TYPE_CHECKING, Any

from mtaq.cli import exits
from mtaq.cli.logs import open_log
from mtaq.cli.loop import run_in_loop
from mtaq.config import Settings, merge_live
from mtaq.model.errors import BrokerError, ConfigError
from mtaq.model.parcel import BrokerState
from mtaq.net.control import Control
from mtaq.net.listeners import Listener
from mtaq.telemetry.events import EventLog

if TYPE_CHECKING:
    from mtaq.assembly.delivery import Delivery
    from mtaq.assembly.reception import Reception

WATCH_S = 0.25


def main() -> int:
    """Run until told to stop; return the exit status."""
    role, fd = sys.argv[1], int(sys.argv[2])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the supervisor decides
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        run_in_loop(work(role, fd))
    except ConfigError as error:  # what a restart does not mend, such as files of a newer version
        print(f"mtaq: {error}", file=sys.stderr)
        return exits.CONFIG
    except BrokerError as error:  # the journal's disk is full, say; there may be room when we are started again
        print(f"mtaq: {error}", file=sys.stderr)
        return exits.UNAVAILABLE
    except OSError as error:
        print(f"mtaq: {exits.explain(error)}", file=sys.stderr)
        return exits.of_os_error(error)
    return exits.OK


async def work(role: str, fd: int) -> None:
    """Be a worker of *role*: ``receive`` or ``deliver``."""
    from mtaq.assembly.parts import utc_now

    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    control = await Control.open(fd)
    first = await control.receive()
    if first is None:
        return
    settings = Settings.from_raw(first["settings"])
    events = open_log(settings, clock=utc_now)
    part = build(role, settings, first, events)
    await part.start()
    collect_rarely()
    tasks = [
        asyncio.create_task(obey(control, part, settings, first, events, stop)),
        asyncio.create_task(watch(control, part, events)),
    ]
    for task in tasks:
        task.add_done_callback(lambda task: stop.set() if failed(task, events) else None)
    await stop.wait()
    for task in tasks:
        task.cancel()
    control.send(ready=False, broker=part.broker_state.value)
    await part.stop()
    await asyncio.gather(*tasks, return_exceptions=True)
    control.close()


def collect_rarely() -> None:
    """Look for garbage that refers to itself every 10,000 objects instead of 700, and never among what is here now."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


def build(role: str, settings: Settings, first: dict[str, Any], events: EventLog) -> Reception | Delivery:
    """Build the services of *role* from the supervisor's first words."""
    from mtaq.assembly.delivery import Delivery
    from mtaq.assembly.reception import Reception

    if role == "deliver":
        return Delivery(settings, events, number=first["number"])
    listeners = [Listener.from_fd(fd, implicit_tls=implicit_tls) for fd, implicit_tls in first["listeners"]]
    return Reception(settings, listeners, events, number=first["number"], secret=bytes.fromhex(first["secret"]))


async def obey(
    control: Control, part: Reception | Delivery, settings: Settings, first: dict[str, Any], events: EventLog,
    stop: asyncio.Event,
) -> None:  # fmt: skip
    """Do what the supervisor says, until it is gone."""
    said: dict[str, Any] | None = first
    opening: asyncio.Task[None] | None = None
    try:
        while said is not None:
            if said.get("queues") == "ready" and opening is None:
                opening = asyncio.create_task(part.queues_ready())
                opening.add_done_callback(lambda task: stop.set() if failed(task, events) else None)
            if "ask" in said:
                control.send(answer=said["id"], rows=list(part.show(said["ask"])))
            if "settings" in said and said is not first:
                merged = merge_live(settings, Settings.from_raw(said["settings"]))
                if reload(part, merged, events):
                    settings = merged
                else:
                    control.send(refused=said["reload"])
            said = await control.receive()
        stop.set()
    finally:
        if opening is not None:
            opening.cancel()


def reload(part: Reception | Delivery, settings: Settings, events: EventLog) -> bool:
    """Use *settings*; when they cannot be used, because of a file that they name, say so and go on as before."""
    try:
        part.reload(settings)
    except ConfigError as error:
        events.config_refused(error=str(error))
        return False
    events.set_level(settings.log.log_level)
    return True


def failed(task: asyncio.Task[None], events: EventLog) -> bool:
    """Log why *task* failed, if it did: the supervisor starts us again."""
    error = None if task.cancelled() else task.exception()
    if error is not None:
        events.bug(error)
    return error is not None


async def watch(control: Control, part: Reception | Delivery, events: EventLog) -> None:
    """Tell supervisor and log when the broker comes and goes."""
    last: BrokerState | None = None
    lost = False
    while True:
        state = part.broker_state
        if state is not last:
            control.send(ready=state is BrokerState.UP, broker=state.value)
            if state is BrokerState.UP and lost:
                events.broker_restored()
                lost = False
            elif state is not BrokerState.UP and last is BrokerState.UP:
                events.broker_lost(reason=f"the broker is {state.value}")
                lost = True
            last = state
        await asyncio.sleep(WATCH_S)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
