"""What reception holds in memory: a few copies of a large message while it is stored, next to nothing for who is idle.

Measured as the kernel counts it, in the worker processes.
"""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.benchmarks.processes import memory_bytes
from tests.support.instance import Relay, wait_until
from tests.support.queues import fresh_name
from tests.support.rabbitmq import RabbitNode

pytestmark = [pytest.mark.slow, pytest.mark.rabbitmq]

MB = 2**20
SIZE_BYTES = 50 * MB
CONNECTIONS = 1000

LINE = b"x" * 78 + b"\r\n"
TEXT = LINE * (SIZE_BYTES // len(LINE))
CASES = (
    ("ASCII", TEXT, 1),
    ("one emoji", "\N{SLIGHTLY SMILING FACE}".encode() + b"\r\n" + TEXT, 1),
    ("not UTF-8", (b"\xe4" * 78 + b"\r\n") * (SIZE_BYTES // len(LINE)), 1),
    ("dots to remove", (b".." + b"x" * 76 + b"\r\n") * (SIZE_BYTES // len(LINE)), 1),
    ("three recipients", TEXT, 3),
)


@pytest.fixture
def relay(rabbitmq: RabbitNode, tmp_path: Path) -> Iterator[Relay]:
    """Reception alone, not yet started, with an inbox of its own."""
    inbox = fresh_name("inbox")
    relay = Relay(
        tmp_path,
        rabbitmq.address,
        verb="receive",
        rabbitmq_inbox=inbox,
        rabbitmq_maxsize="128MB",
        smtp_connections=2000,
        smtp_connections_per_ip=2000,
    )
    yield relay
    relay.cleanup()
    rabbitmq.ctl("delete_queue", inbox)


class Client:
    """A session of few words."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self._replies = self._socket.makefile("rb")
        assert self._reply().startswith(b"220")
        assert self.say(b"EHLO client.test").startswith(b"250")

    def say(self, command: bytes) -> bytes:
        """Send a command and return the last line of its reply."""
        self._socket.sendall(command + b"\r\n")
        return self._reply()

    def send(self, content: bytes, *, recipients: int = 1) -> None:
        """Send a message and have it accepted."""
        assert self.say(b"MAIL FROM:<a@example.org> BODY=8BITMIME").startswith(b"250")
        for number in range(recipients):
            assert self.say(b"RCPT TO:<b%d@example.com>" % number).startswith(b"250")
        assert self.say(b"DATA").startswith(b"354")
        self._socket.sendall(content)
        assert self.say(b".").startswith(b"250")

    def close(self) -> None:
        """Go without a word."""
        self._replies.close()
        self._socket.close()

    def _reply(self) -> bytes:
        while (line := self._replies.readline())[3:4] == b"-":
            pass
        return line


def test_a_message_of_50_mb_takes_less_than_five_times_its_size(relay: Relay) -> None:
    """Whatever it consists of, and nothing of it is kept when it has been stored."""
    relay.options["smtp-threads"] = 1
    relay.start()
    relay.wait_ready()
    (pid,) = relay.worker_pids("receive")
    client = Client(relay.port)
    client.send(LINE)
    before = memory_bytes(pid, "VmRSS")
    for name, content, recipients in CASES:
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak begins anew
        client.send(content, recipients=recipients)
        assert memory_bytes(pid, "VmHWM") - before < 5 * SIZE_BYTES, name
        # Less than one copy: the allocator keeps some for the next one.
        wait_until(lambda: memory_bytes(pid, "VmRSS") - before < SIZE_BYTES, f"the memory of {name}", 10)
    client.close()


def test_a_thousand_idle_connections_take_less_than_50_mb(relay: Relay) -> None:
    """All receiving processes together, each client greeted and introduced."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    relay.start()
    relay.wait_ready()
    pids = relay.worker_pids("receive")
    with ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2 * CONNECTIONS), hard))
        before = sum(memory_bytes(pid, "VmRSS") for pid in pids)
        for _ in range(CONNECTIONS):
            stack.callback(Client(relay.port).close)
        assert sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids) > CONNECTIONS
        assert sum(memory_bytes(pid, "VmRSS") for pid in pids) - before < 50 * MB
