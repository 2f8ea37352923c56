"""A private RabbitMQ node: own folders, ports, cookie and port mapper; whatever else runs on the machine is left alone.

Used by the fixtures of the test suite, by the scripts and by the benchmarks, and from a shell::

    python -m tests.support.rabbitmq start --dir DIRECTORY   # prints the address, runs until SIGTERM
    python -m tests.support.rabbitmq exec -- COMMAND ...     # COMMAND sees RABBITMQ_TEST_ADDRESS, RABBITMQ_TEST_DIR

The server is Debian's ``rabbitmq-server``, started directly and not as a service, so it needs no particular user.
A node that does not come up raises ``RuntimeError`` with the end of its log.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.support.ports import free_port

_BIN = Path("/usr/lib/rabbitmq/bin")
_NOTE = "node.json"

#: What to install when ``is_installed()`` says no.
PACKAGE = "rabbitmq-server"


def is_installed() -> bool:
    """Is there a RabbitMQ server to start?"""
    return (_BIN / "rabbitmq-server").exists() and shutil.which("epmd") is not None


class RabbitNode:
    """One node in one directory. Its ports are kept, unless somebody else has taken one before it is started anew."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory.absolute()
        self._server: subprocess.Popen[bytes] | None = None
        self._epmd: subprocess.Popen[bytes] | None = None
        self._ports = _ports_of(self.directory)

    @classmethod
    def attach(cls, directory: Path) -> RabbitNode:
        """Command a node that another process started: ``ctl`` and the alarm work, ``stop`` does nothing."""
        if not (directory / _NOTE).exists():
            raise RuntimeError(f"no RabbitMQ node was started in {directory}")
        return cls(directory)

    @property
    def address(self) -> str:
        """The node's ``rabbitmq-address``."""
        return f"amqp://guest:guest@127.0.0.1:{self._ports['amqp']}/"

    @property
    def port(self) -> int:
        """The AMQP port on 127.0.0.1."""
        return self._ports["amqp"]

    def start(self, *, timeout_s: float = 60) -> None:
        """Start the node and wait until it takes connections."""
        if self._epmd is None and not all(_is_free(port) for port in self._ports.values()):
            self._ports = _choose_ports(self.directory)
        _write_settings(self.directory, self._ports)
        if self._epmd is None:
            self._epmd = self._spawn(["epmd", "-port", str(self._ports["epmd"]), "-address", "127.0.0.1"])
        self._server = self._spawn([str(_BIN / "rabbitmq-server")])
        deadline = time.monotonic() + timeout_s
        while not _listens(self.port):
            if self._server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"RabbitMQ did not start:\n{self._log_tail()}")
            time.sleep(0.05)

    def stop(self, *, timeout_s: float = 30) -> None:
        """Stop the node as an operator would; kill it when that takes longer than *timeout_s*. Twice is harmless."""
        if self._server is not None:
            self._server.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._server.wait(timeout_s)
            self.kill_9()
        if self._epmd is not None:
            self._epmd.kill()
            self._epmd.wait()
            self._epmd = None

    def kill_9(self) -> None:
        """End the node without warning: the Erlang machine and everything that it started."""
        if self._server is not None:
            self._signal(signal.SIGKILL)
            self._server.wait()
            self._server = None

    def freeze(self, on: bool) -> None:
        """Stop the node's processes where they are, connections open, or let them go on."""
        self._signal(signal.SIGSTOP if on else signal.SIGCONT)

    def restart(self) -> None:
        """Stop the node (unless it is dead already) and start it again on the same folders and ports."""
        if self._server is not None:
            self._server.terminate()
            self._server.wait(30)
            self._server = None
        self.start()

    def set_memory_alarm(self, on: bool) -> None:
        """Raise or clear the alarm that makes the node block whoever publishes."""
        self.ctl("set_vm_memory_high_watermark", "0.0000001" if on else "0.6")

    def ctl(self, *args: str, timeout_s: float = 60) -> str:
        """Run ``rabbitmqctl`` against this node and return what it prints."""
        done = subprocess.run(
            [str(_BIN / "rabbitmqctl"), "--quiet", *args],
            env=self._environment(),
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
        if done.returncode != 0:
            raise RuntimeError(f"rabbitmqctl {' '.join(args)}: {done.stdout}{done.stderr}")
        return done.stdout

    def _signal(self, number: signal.Signals) -> None:
        assert self._server is not None, "not started here"
        for pid in [*_descendants(self._server.pid), self._server.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _spawn(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        with (self.directory / "output.log").open("ab") as output:
            return subprocess.Popen(
                command,
                env=self._environment(),
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def _environment(self) -> dict[str, str]:
        kept = {key: os.environ[key] for key in ("PATH", "LANG", "TMPDIR") if key in os.environ}
        return kept | {
            "LC_ALL": "C.UTF-8",
            "HOME": str(self.directory),
            "ERL_EPMD_PORT": str(self._ports["epmd"]),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": "test@localhost",
            "RABBITMQ_DIST_PORT": str(self._ports["dist"]),
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_CONF_ENV_FILE": str(self.directory / "rabbitmq-env.conf"),
            "RABBITMQ_CONFIG_FILE": str(self.directory / "rabbitmq"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self.directory / "advanced"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.directory / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(self.directory / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.directory / "log"),
            "RABBITMQ_PID_FILE": str(self.directory / "pid"),
            # Idle Erlang schedulers would otherwise spin and take the processor from what is being tested.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+sbwt none +sbwtdcpu none +sbwtdio none"
            " -kernel inet_dist_use_interface {127,0,0,1}",
        }

    def _log_tail(self) -> str:
        output = self.directory / "output.log"
        return output.read_text(errors="replace")[-3000:] if output.exists() else ""


def _ports_of(directory: Path) -> dict[str, int]:
    note = directory / _NOTE
    if note.exists():
        ports: dict[str, int] = json.loads(note.read_text())
        return ports
    return _choose_ports(directory)


def _choose_ports(directory: Path) -> dict[str, int]:
    directory.mkdir(parents=True, exist_ok=True)
    ports = {name: free_port() for name in ("amqp", "dist", "epmd")}
    (directory / _NOTE).write_text(json.dumps(ports))
    return ports


def _is_free(port: int) -> bool:
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _write_settings(directory: Path, ports: dict[str, int]) -> None:
    (directory / "rabbitmq-env.conf").touch()
    (directory / "enabled_plugins").write_text("[].\n")
    (directory / "rabbitmq.conf").write_text(
        f"listeners.tcp.1 = 127.0.0.1:{ports['amqp']}\n"
        "disk_free_limit.absolute = 1MB\n"
        "vm_memory_high_watermark.relative = 0.6\n"
        "log.file.level = warning\n"
    )


def _listens(port: int) -> bool:
    """Does a broker answer? A bad protocol header makes it say which protocol it speaks (AMQP 0-9-1 §4.2.2)."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as peer:
            peer.settimeout(5)
            peer.sendall(b"AMQP\x00\x00\x00\x00")
            return peer.recv(8).startswith(b"AMQP")
    except OSError:
        return False


def _descendants(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found, todo = [], [pid]
    while todo:
        found += (new := children.get(todo.pop(), []))
        todo += new
    return found


@contextlib.contextmanager
def running_node(directory: Path | None = None) -> Iterator[RabbitNode]:
    """Give a started node and stop it afterwards; without *directory*, in a temporary one that is removed."""
    with contextlib.ExitStack() as stack:
        if directory is None:
            directory = Path(
                stack.enter_context(tempfile.TemporaryDirectory(prefix="rabbitmq-", ignore_cleanup_errors=True))
            )
        node = RabbitNode(directory)
        stack.callback(node.stop)
        node.start()
        yield node


def _stop_on_sigterm() -> None:
    def leave(_signal: int, _frame: object) -> None:
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, leave)


def _run_command(command: Sequence[str]) -> int:
    with running_node() as node:
        environment = os.environ | {"RABBITMQ_TEST_ADDRESS": node.address, "RABBITMQ_TEST_DIR": str(node.directory)}
        with subprocess.Popen(command, env=environment) as running:
            try:
                return running.wait()
            except SystemExit:  # pytest takes down its fixtures, nodes among them, on SIGINT only
                running.send_signal(signal.SIGINT)
                raise


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status of ``exec`` is that of its command."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.support.rabbitmq", description=(__doc__ or "").split("\n")[0]
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("start", help="run a node until SIGTERM").add_argument("--dir", type=Path, required=True)
    verbs.add_parser("exec", help="run COMMAND beside a node").add_argument("command", nargs="+")
    chosen = parser.parse_args(arguments)
    if not is_installed():
        print(f"install {PACKAGE} first", file=sys.stderr)
        return 69
    _stop_on_sigterm()
    if chosen.verb == "exec":
        return _run_command(chosen.command)
    with running_node(chosen.dir) as node:
        print(node.address, flush=True)
        while True:
            signal.pause()


if __name__ == "__main__":
    raise SystemExit(main())
