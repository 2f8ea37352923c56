"""Whole programs for tests: a relay instance and a sink, started as an operator starts them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.support.ports import free_port as free_port

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 60.0


def wait_until(condition: Any, what: str, deadline_s: float = DEADLINE_S) -> Any:
    """Return the first true value of *condition*; fail the test when there is none in time."""
    deadline = time.monotonic() + deadline_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {deadline_s:g} s for {what}")
        time.sleep(0.05)


class Program:
    """One program of mtaq, its output in a file."""

    def __init__(self, folder: Path, name: str, *arguments: str) -> None:
        self.name = name
        self.arguments = arguments
        self.log = folder / f"{name}.log"
        self.python = [sys.executable]
        self.environment: dict[str, str] = {}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MTAQ_")}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.python, "-m", "mtaq", *self.arguments], stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                cwd=ROOT, env=environment | self.environment, start_new_session=True,
            )  # fmt: skip

    def stop(self) -> int:
        """Ask it to stop, and return its exit status."""
        assert self.process is not None
        self.process.terminate()
        return self.wait()

    def wait(self, timeout_s: float = DEADLINE_S) -> int:
        """Wait for its end and return its exit status."""
        assert self.process is not None
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise AssertionError(f"{self.name} does not end; its log:\n{self.log.read_text()[-4000:]}") from None

    def cleanup(self) -> None:
        """Leave nothing running, whatever happened."""
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Relay(Program):
    """``mtaq run`` (or another verb) with a configuration of its own."""

    def __init__(
        self, folder: Path, address: str, *, verb: str = "run", name: str = "relay", **options: object
    ) -> None:
        self.folder = folder
        self.port = free_port()
        self.metrics_port = free_port()
        self.configuration = folder / f"{name}.conf"
        self.options: dict[str, object] = {
            "smtp-ip": "127.0.0.1",
            "smtp-port": self.port,
            "smtp-range": "127.0.0.0/8",
            "smtp-hostname": "relay.test",
            "smtp-threads": 2,
            "server-id": "test",
            "rabbitmq-address": address,
            "data-directory": folder / "data",
            "run-directory": folder / "instance",
            "metrics-port": self.metrics_port,
        } | {key.replace("_", "-"): value for key, value in options.items()}
        super().__init__(folder, name, verb, "--config", str(self.configuration))

    def write_configuration(self) -> None:
        """Write the options to the configuration file."""
        self.configuration.write_text("".join(f"{key}: {value}\n" for key, value in self.options.items()))

    def start(self) -> None:
        """Write the configuration and start."""
        self.write_configuration()
        super().start()

    def greeting(self) -> str:
        """Return the first line a client is told now, or nothing."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=5) as client:
            return client.recv(1000).decode()
        return ""

    def wait_ready(self) -> None:
        """Wait until mail is taken and all workers have a broker."""

        def ready() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, f"{self.name} ended:\n{self.log.read_text()[-4000:]}"
            return self.health()

        wait_until(ready, "the relay to be ready: " + str(self.log))

    def health(self) -> bool:
        """Ask ``/ready``."""
        request = b"GET /ready HTTP/1.0\r\n\r\n"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.metrics_port), 5) as client:
            client.sendall(request)
            return b" 200 " in client.recv(100)
        return False

    def events(self, name: str = "") -> list[dict[str, Any]]:
        """Return the log's events, or those called *name*."""
        found = []
        for line in self.log.read_text(errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                event = json.loads(line)
                if not name or event.get("event") == name:
                    found.append(event)
        return found

    def worker_pids(self, role: str) -> list[int]:
        """Return the process ids of the living workers of *role*."""
        pids = [event["pid"] for event in self.events("worker.started") if event["role"] == role]
        return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


class Sink(Program):
    """``mtaq sink``, noting every message it takes."""

    def __init__(self, folder: Path, *arguments: str, keep: bool = True) -> None:
        self.port = free_port()
        self.noted = folder / "sink.jsonl"
        self.maildir = folder / "sink"
        keeping = ["--maildir", str(self.maildir)] if keep else ["--discard"]
        super().__init__(
            folder, "sink", "sink", "--listen", f"127.0.0.1:{self.port}", "--log", str(self.noted), *keeping, *arguments
        )

    def start(self) -> None:
        """Start, and wait until it listens."""
        super().start()

        def listens() -> bool:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return True
            return False

        wait_until(listens, "the sink to listen")

    def notes(self) -> list[dict[str, Any]]:
        """Return what it noted, a message each; a line being written is left out."""
        if not self.noted.exists():
            return []
        text = self.noted.read_text()
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    def contents(self) -> list[bytes]:
        """Return the content of every message it keeps."""
        folder = self.maildir / "new"
        return [path.read_bytes() for path in sorted(folder.iterdir())] if folder.exists() else []
