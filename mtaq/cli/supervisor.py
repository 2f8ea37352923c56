"""One instance: binds the ports, becomes the configured user, starts the workers and starts them again when they die.

The supervisor carries no mail. It owns what must outlive a worker: the listening sockets, the settings, the topology of
the broker, the numbers for ``/metrics``. A worker that is killed loses nothing but the sessions it had.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import secrets
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mtaq.assembly.parts import utc_now
from mtaq.assembly.queues import prepare_queues
from mtaq.cli import exits
from mtaq.cli.logs import open_log
from mtaq.cli.questions import Questions
from mtaq.config import ConfigErrors, Settings, changed_keys, check_merged, merge_live
from mtaq.model.errors import ConfigError, TopologyMismatch
from mtaq.net.control import Control
from mtaq.net.control_socket import ControlSocket
from mtaq.net.listeners import Listener
from mtaq.net.monitor import Monitor, Page
from mtaq.telemetry import metrics
from mtaq.telemetry.events import EventLog
from mtaq.version import __version__

#: Wait before a dead worker is started again; doubled while it dies young, up to the last.
RESTART_FIRST_S = 0.2
RESTART_LAST_S = 30.0
YOUNG_S = 10.0

#: Files of a worker that are no connections: broker, logs, the loop.
SPARE_DESCRIPTORS = 100

#: How a worker ends whom a restart would not help.
FINAL = (exits.CONFIG, exits.NO_PERMISSION)

#: Workers have 30 s for their transactions; then they are killed.
STOP_S = 35.0


@dataclass
class Worker:
    """One worker process and what it last said of itself."""

    role: str
    number: int
    process: asyncio.subprocess.Process | None = None
    control: Control | None = None
    said: dict[str, Any] = field(default_factory=dict)
    restart_s: float = RESTART_FIRST_S

    @property
    def ready(self) -> bool:
        """Does it run, and does its broker answer?"""
        return bool(self.said.get("ready"))


class Supervisor:
    """Runs the workers of some roles until told to stop."""

    def __init__(
        self,
        settings: Settings,
        *,
        roles: Sequence[str],
        listeners: Sequence[Listener],
        events: EventLog,
        reload: Callable[[], Settings],
        prepare_queues: Callable[[Settings, EventLog], Awaitable[None]],
        metrics_folder: str,
    ) -> None:
        self._settings = settings
        self._listeners = listeners
        self._events = events
        self._reload = reload
        self._prepare_queues = prepare_queues
        self._metrics_folder = metrics_folder
        self._reloads = 0
        self._before: Settings | None = None  # the last reload
        self._secret = secrets.token_bytes(32)  # what workers of one role must agree on
        self._queues_ready = False
        self._stopping = asyncio.Event()
        self._force = asyncio.Event()
        self.status = 0
        self.questions = Questions()
        self.workers = [
            Worker(role, number) for role in roles for number in range(1, settings.process.smtp_threads + 1)
        ]

    async def run(self) -> int:
        """Run until SIGTERM or SIGINT; return the exit status."""
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, self._on_stop)
        loop.add_signal_handler(signal.SIGHUP, self._on_reload)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, exits.SIGNALS)  # those that came while we started are heard now
        keepers = [asyncio.create_task(self._keep(worker)) for worker in self.workers]
        preparing = asyncio.create_task(self._prepare())
        await self._stopping.wait()
        preparing.cancel()
        for listener in self._listeners:
            listener.sock.close()  # whoever connects now is refused at once, and not left waiting
        self._events.service_stopping(role="run", pid=os.getpid())
        for worker in self.workers:
            self._signal(worker, signal.SIGTERM)
        await self._wait_stopped(keepers)
        await asyncio.gather(preparing, return_exceptions=True)
        return self.status

    @property
    def ready(self) -> bool:
        """Are all workers up and their broker as well?"""
        return not self._stopping.is_set() and all(worker.ready for worker in self.workers)

    def report(self) -> dict[str, Any]:
        """Return what ``/ready`` shows."""
        return {
            "ready": self.ready,
            "workers": [
                {
                    "role": worker.role,
                    "number": worker.number,
                    "ready": worker.ready,
                    "broker": worker.said.get("broker"),
                }
                for worker in self.workers
            ],
        }

    # Signals.

    def _on_stop(self) -> None:
        if self._stopping.is_set():
            self._force.set()
        self._stopping.set()

    def _on_reload(self) -> None:
        try:
            new = self._reload()
        except ConfigErrors as errors:
            self._events.config_refused(error=str(errors))
            return
        changes, merged = changed_keys(self._settings, new), merge_live(self._settings, new)
        try:
            check_merged(merged)
        except ConfigErrors as errors:
            self._events.config_refused(error=f"needs a restart: {errors}")
            return
        self._before = self._settings
        self._use(merged)
        self._events.config_loaded(changed=", ".join(changes.live), needs_restart=", ".join(changes.restart))

    def _use(self, settings: Settings) -> None:
        self._settings = settings
        self._reloads += 1
        self._events.set_level(settings.log.log_level)
        for worker in self.workers:
            if worker.control is not None:
                worker.control.send(settings=settings.to_raw(), reload=self._reloads)

    def _take_back(self, reload: int) -> None:
        """A worker cannot use what the *reload*-th brought: all go on as before, those too that are started later."""
        if reload == self._reloads and self._before is not None:
            before, self._before = self._before, None
            self._use(before)

    @staticmethod
    def _signal(worker: Worker, signum: int) -> None:
        if worker.process is not None and worker.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                worker.process.send_signal(signum)

    async def _wait_stopped(self, keepers: Sequence[asyncio.Task[None]]) -> None:
        done: asyncio.Task[Any] = asyncio.create_task(asyncio.wait(keepers))
        force: asyncio.Task[Any] = asyncio.create_task(self._force.wait())
        await asyncio.wait({done, force}, timeout=STOP_S, return_when=asyncio.FIRST_COMPLETED)
        force.cancel()
        if not done.done():
            for worker in self.workers:
                self._signal(worker, signal.SIGKILL)
        await asyncio.gather(*keepers)

    # The queues.

    async def _prepare(self) -> None:
        """Declare what is missing, as long as it takes; workers take mail only afterwards."""
        try:
            await self._prepare_queues(self._settings, self._events)
        except (TopologyMismatch, ConfigError) as error:
            print(f"mtaq: {error}", file=sys.stderr)
            self._give_up(exits.CONFIG)
            return
        except Exception as error:  # the top of a task: what cannot be prepared must not look like waiting
            self._events.bug(error)
            self._give_up(exits.SOFTWARE)
            return
        self._queues_ready = True
        for worker in self.workers:
            if worker.control is not None:
                worker.control.send(queues="ready")

    def _give_up(self, status: int) -> None:
        self.status = status
        self._stopping.set()

    # Workers.

    async def _keep(self, worker: Worker) -> None:
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            started_at = loop.time()
            try:
                process = await self._start(worker)
            except OSError as error:  # no memory, no descriptors: there may be some later
                worker.restart_s = min(worker.restart_s * 2, RESTART_LAST_S)
                self._events.worker_died(role=worker.role, error=exits.explain(error), restart_s=worker.restart_s)
                await self._pause(worker.restart_s)
                continue
            talking = asyncio.create_task(self._listen(worker))
            if self._stopping.is_set():
                self._signal(worker, signal.SIGTERM)
            status = await process.wait()
            await talking
            worker.said = {}
            metrics.forget_process(self._metrics_folder, process.pid)
            if self._stopping.is_set():
                return
            if status in FINAL:  # the worker has said why; starting it again would not help
                self._give_up(status)
                return
            young = loop.time() - started_at < YOUNG_S
            worker.restart_s = min(worker.restart_s * 2, RESTART_LAST_S) if young else RESTART_FIRST_S
            self._events.worker_died(role=worker.role, pid=process.pid, status=status, restart_s=worker.restart_s)
            await self._pause(worker.restart_s)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    async def _start(self, worker: Worker) -> asyncio.subprocess.Process:
        ours, theirs = Control.pair()
        listeners = self._listeners if worker.role == "receive" else []
        handed_down = {listener.sock.fileno(): listener.implicit_tls for listener in listeners}
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "mtaq.cli.worker", worker.role, str(theirs),
                pass_fds=[theirs, *handed_down], stdin=asyncio.subprocess.DEVNULL,
                process_group=0,  # Ctrl-C is for us alone, also while a worker is not ready for signals
            )  # fmt: skip
        except OSError:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        control = await Control.open(ours)
        control.send(
            settings=self._settings.to_raw(),
            listeners=list(handed_down.items()),
            number=worker.number,
            secret=self._secret.hex(),
            queues="ready" if self._queues_ready else "",
        )
        worker.process, worker.control = process, control
        self._events.worker_started(role=worker.role, pid=process.pid)
        return process

    async def _listen(self, worker: Worker) -> None:
        assert worker.control is not None
        while (said := await worker.control.receive()) is not None:
            if "refused" in said:
                self._take_back(said["refused"])
            elif "answer" in said:
                self.questions.answered(worker, said)
            else:
                worker.said = said
        worker.control.close()
        worker.control = None
        self.questions.gone(worker)


async def supervise(
    settings: Settings,
    *,
    roles: Sequence[str],
    listeners: Sequence[Listener],
    reload: Callable[[], Settings],
    metrics_folder: str,
) -> int:
    """
    Run one instance in the foreground; return its exit status.

    Raises:
        OSError: A log or ``metrics-port`` cannot be opened.
    """
    events = open_log(settings, clock=utc_now)
    supervisor = Supervisor(
        settings,
        roles=roles,
        listeners=listeners,
        events=events,
        reload=reload,
        prepare_queues=prepare_queues,
        metrics_folder=metrics_folder,
    )
    monitor = open_monitor(settings, supervisor, metrics_folder)
    verb = "run" if len(roles) > 1 else {"receive": "receive", "deliver": "deliver"}[roles[0]]
    socket = ControlSocket(
        Path(settings.process.run_directory) / f"{verb}.sock",
        lambda question: supervisor.questions.answer(question, supervisor.workers),
    )
    await socket.start()
    events.service_started(role="+".join(roles), pid=os.getpid(), version=__version__)
    for warning in warnings(settings, roles):
        events.config_loaded(warnings=warning)
    try:
        return await supervisor.run()
    finally:
        await socket.close()
        if monitor is not None:
            monitor.close()


def warnings(settings: Settings, roles: Sequence[str]) -> Iterator[str]:
    """Yield what the operator should know of this start."""
    if "receive" not in roles:
        return
    if settings.queues.rabbitmq_inbox is None:
        which = "received mail" if settings.queues.rabbitmq_local is None else "mail for other than local addresses"
        yield f"rabbitmq-inbox is empty: {which} is discarded"
    descriptors, connections = resource.getrlimit(resource.RLIMIT_NOFILE)[0], settings.listen.smtp_connections
    if descriptors != resource.RLIM_INFINITY and descriptors < connections + SPARE_DESCRIPTORS:
        yield f"smtp-connections is {connections}, but a process may open only {descriptors} files (ulimit -n)"


def open_monitor(settings: Settings, supervisor: Supervisor, metrics_folder: str) -> Monitor | None:
    """Open ``metrics-port``, when there is one."""
    address = settings.process.metrics_port
    if address is None:
        return None

    def ready() -> Page:
        report = supervisor.report()
        return Page(200 if report["ready"] else 503, "application/json", json.dumps(report).encode() + b"\n")

    return Monitor(
        address.host,
        address.port,
        {
            "/live": lambda: Page(200, "text/plain; charset=utf-8", b"alive\n"),
            "/ready": ready,
            "/metrics": lambda: Page(200, metrics.CONTENT_TYPE, metrics.render(metrics_folder)),
        },
    )
