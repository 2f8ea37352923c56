"""What mtaq is measured beside: Postfix's test sink, which only discards, and a Postfix of our own.

Both are Debian's programs on ports and in folders of their own; an installed Postfix service is left alone. A peer that
does not start, or does not finish, raises ``PeerFailed``.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.benchmarks.processes import Group, Groups, descendants
from tests.support.instance import free_port

#: What to install when a program is missing.
PACKAGE = "postfix"

SINK_PROGRAM = "/usr/sbin/smtp-sink"
_DAEMONS = Path("/usr/lib/postfix/sbin")
_USER = "postfix"

_START_S = 30.0
_LOOK_S = 0.01
#: Without a single new message for this long, a relay is taken to have lost some.
_STALLED_S = 60.0


class PeerFailed(Exception):
    """A peer did not start, or lost messages."""


def can_run_postfix() -> bool:
    """May a Postfix of our own be started? Its master must be root."""
    return os.geteuid() == 0 and (_DAEMONS / "master").exists()


def wait_listening(port: int, process: subprocess.Popen[bytes], told: Callable[[], str]) -> None:
    """
    Wait until *process* listens on *port*.

    Raises:
        PeerFailed: It ended, or takes too long; *told* gives its log.
    """
    deadline = time.monotonic() + _START_S
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        if process.poll() is not None or time.monotonic() > deadline:
            raise PeerFailed(f"{process.args!r} does not listen: {told()[-2000:]}")
        time.sleep(_LOOK_S)


def end(process: subprocess.Popen[bytes], *, wait_s: float = 10.0) -> None:
    """Stop a process that leads a group of its own, and whatever else is in the group."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(wait_s)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


class SmtpSink:
    """``smtp-sink``: takes every message and forgets it. On its own it is the ceiling of this load on this machine."""

    name = "smtp-sink"

    def __init__(self, folder: Path, *, sessions: int) -> None:
        self.port = free_port()
        self._counter = folder / "smtp-sink.count"
        command = [SINK_PROGRAM, "-c", "-m", str(max(256, 4 * sessions))]
        command += ["-u", _USER] if os.geteuid() == 0 else []
        with self._counter.open("wb") as output:
            self._process = subprocess.Popen(
                [*command, f"127.0.0.1:{self.port}", "1000"], stdout=output, stderr=output, start_new_session=True
            )
        self._before = 0

    def start(self) -> None:
        """Wait until it listens."""
        wait_listening(self.port, self._process, self._counter.read_text)

    def stop(self) -> None:
        """Stop it."""
        end(self._process)

    def groups(self) -> Groups:
        """Its one process."""
        return {"smtp-sink": Group((self._process.pid,))}

    def begin(self) -> None:
        """Count from here."""
        self._before = self._count()

    def wait_done(self, messages: int) -> float:
        """
        Wait until *messages* more have come; return when the last did, to a hundredth of a second.

        Raises:
            PeerFailed: Nothing has come for a minute.
        """
        last, came_at = -1, time.monotonic()
        while (count := self.collect()) < messages:
            if count != last:
                last, came_at = count, time.monotonic()
            elif time.monotonic() - came_at > _STALLED_S:
                raise PeerFailed(f"{count} of {messages} messages came to the sink")
            time.sleep(_LOOK_S)
        return time.monotonic()

    def collect(self) -> int:
        """Return how many messages have come since ``begin``."""
        return self._count() - self._before

    def _count(self) -> int:
        # It writes "sess=1 quit=1 mesg=1\r" after each message and each session.
        with self._counter.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 200))
            counts: list[bytes] = re.findall(rb"mesg=(\d+)\r", file.read())
        return int(counts[-1]) if counts else 0


#: Common to both uses. Whatever would hold Postfix back here and is not part of its promise is out of the way: no DNS,
#: no reverse names, no pause of a second when mail comes in faster than it leaves, processes that live longer. Kept is
#: what makes it safe: a message is on disk (fsync) before it is answered 250. It logs to a file, as mtaq does.
_MAIN = """\
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
maillog_file = {folder}/log
maillog_file_prefixes = {folder}
myhostname = postfix.test
mydestination =
local_recipient_maps =
alias_maps =
alias_database =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_peername_lookup = no
smtpd_tls_security_level = none
disable_dns_lookups = yes
default_process_limit = {processes}
max_use = 10000
in_flow_delay = 0s
biff = no
"""

_MASTER = """\
127.0.0.1:{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""


class Postfix:
    """A Postfix instance of our own, in one folder that its user can enter."""

    name = "postfix"

    def __init__(self, folder: Path, *, sessions: int, settings: str) -> None:
        self.port = free_port()
        self.folder = folder / "postfix"
        self._configuration = self.folder / "conf"
        self._process: subprocess.Popen[bytes] | None = None
        for name in ("conf", "queue", "data"):
            (self.folder / name).mkdir(parents=True)
        shutil.chown(self.folder / "data", _USER)
        main = _MAIN.format(folder=self.folder, processes=max(100, 4 * sessions))
        (self._configuration / "main.cf").write_text(main + settings)
        (self._configuration / "master.cf").write_text(_MASTER.format(port=self.port))

    def start(self) -> None:
        """Start it and wait until it listens."""
        with (self.folder / "output").open("wb") as output:
            self._process = subprocess.Popen(
                ["postfix", "-c", str(self._configuration), "start-fg"],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip
        wait_listening(self.port, self._process, self._told)

    def stop(self) -> None:
        """Stop it and all its processes."""
        if self._process is not None:
            started = descendants(self._process.pid)
            end(self._process)
            for pid in started:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def groups(self) -> Groups:
        """Everything below its master."""
        assert self._process is not None
        return {"postfix": Group((self._process.pid,), tree=True)}

    def queued(self, queue: str) -> int:
        """Return how many messages are in one of its queues."""
        return sum(len(files) for _, _, files in os.walk(self.folder / "queue" / queue))

    def _told(self) -> str:
        return "".join(path.read_text() for path in (self.folder / "output", self.folder / "log") if path.exists())


class PostfixIntake(Postfix):
    """Postfix that accepts and keeps: each message is put on hold, so that nothing works on it any more.

    That is the least it can do for a 250, and what a queue without a consumer is for mtaq. Nothing is deleted between
    two loads: ext4 goes around the inodes of what was deleted in the last minutes, which halves Postfix's rate.
    """

    def __init__(self, folder: Path, *, sessions: int) -> None:
        super().__init__(folder, sessions=sessions, settings="smtpd_client_restrictions = static:HOLD\n")
        self._before = 0

    def begin(self) -> None:
        """Count from here."""
        self._before = self.queued("hold")

    def wait_done(self, messages: int) -> float:
        """What was answered 250 is there."""
        return 0.0

    def collect(self) -> int:
        """Return how many messages are on hold since ``begin``."""
        return self.queued("hold") - self._before


class PostfixRelay(Postfix):
    """Postfix that passes everything on to a sink, with as many connections as there are sessions.

    It does not keep connections: handing one over through its cache takes it longer than a new one to this machine.
    """

    def __init__(self, folder: Path, *, sessions: int, sink: SmtpSink) -> None:
        settings = (
            f"relayhost = [127.0.0.1]:{sink.port}\n"
            "smtp_connection_cache_on_demand = no\n"
            f"initial_destination_concurrency = {sessions}\n"
            f"default_destination_concurrency_limit = {sessions}\n"
        )
        super().__init__(folder, sessions=sessions, settings=settings)
        self._sink = sink

    def groups(self) -> Groups:
        """Itself and the sink."""
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
