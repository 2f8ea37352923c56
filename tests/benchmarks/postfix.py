"""A Postfix of our own, on a port and in a folder of its own; an installed Postfix service is left alone."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from pathlib import Path

from tests.benchmarks.peers import USER, SmtpSink, end, wait_listening
from tests.benchmarks.processes import Group, Groups, descendants
from tests.support.instance import free_port

_DAEMONS = Path("/usr/lib/postfix/sbin")

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
discard unix - - n - - discard
retry unix - - n - - error
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""


def can_run_postfix() -> bool:
    """May a Postfix of our own be started? Its master must be root."""
    return os.geteuid() == 0 and (_DAEMONS / "master").exists()


class Postfix:
    """A Postfix instance of our own, in one folder that its user can enter."""

    name = "postfix"

    def __init__(self, folder: Path, *, sessions: int, settings: str) -> None:
        self.port = free_port()
        self.folder = folder / self.name
        self.log = self.folder / "log"
        self._configuration = self.folder / "conf"
        self._process: subprocess.Popen[bytes] | None = None
        for name in ("conf", "queue", "data"):
            (self.folder / name).mkdir(parents=True)
        shutil.chown(self.folder / "data", USER)
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

    def _told(self) -> str:
        return "".join(path.read_text() for path in (self.folder / "output", self.log) if path.exists())


class PostfixHold(Postfix):
    """Postfix that accepts and keeps: each message is put on hold, so that nothing works on it any more.

    That is the least it can do for a 250, and what a queue without a consumer is for mtaq. Nothing is deleted between
    two loads: ext4 goes around the inodes of what was deleted in the last minutes, which halves Postfix's rate.
    """

    name = "postfix-hold"

    def __init__(self, folder: Path, *, sessions: int) -> None:
        super().__init__(folder, sessions=sessions, settings="smtpd_client_restrictions = static:HOLD\n")
        self._before = 0

    def begin(self) -> None:
        """Count from here."""
        self._before = self._count()

    def wait_done(self, messages: int) -> float:
        """What was answered 250 is there."""
        return 0.0

    def collect(self) -> int:
        """Return how many messages are on hold since ``begin``."""
        return self._count() - self._before

    def _count(self) -> int:
        return sum(len(files) for _, _, files in os.walk(self.folder / "queue" / "hold"))


class PostfixDiscard(Postfix):
    """Postfix that accepts and works on its queue, with the least work there is: everything is discarded."""

    def __init__(self, folder: Path, *, sessions: int) -> None:
        super().__init__(folder, sessions=sessions, settings="default_transport = discard\n")
        self._offset = 0

    def begin(self) -> None:
        """Count from here."""
        self._offset = self.log.stat().st_size if self.log.exists() else 0

    def wait_done(self, messages: int) -> float:
        """What was answered 250 is there."""
        return 0.0

    def collect(self) -> int:
        """Return how many messages were discarded since ``begin``, as its log says."""
        with self.log.open("rb") as log:
            log.seek(self._offset)
            return sum(b" status=sent (" in line for line in log)


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
