"""Clients that break off, stall and push: reception gives every slot back and goes on serving the others."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme

from tests.support.instance import Relay, free_port, wait_until
from tests.support.wire import Wire

#: The beginning of a TLS record that never comes to its end.
HALF_A_HELLO = b"\x16\x03\x01\x02\x00"
CAP = 3


class Target(Relay):
    """A relay with two ports, three slots and short time-outs.

    Attributes:
        secure_port: TLS from the first byte.
    """

    def __init__(self, folder: Path, **options: object) -> None:
        both = folder / "both.pem"
        trustme.CA().issue_cert("relay.test").private_key_and_cert_chain_pem.write_to_path(str(both))
        self.secure_port = free_port()
        defaults: dict[str, object] = {
            "smtp_secure_port": self.secure_port, "smtp_certificate": both, "smtp_key": both, "smtp_threads": 1,
            "smtp_connections_in": CAP, "smtp_connections_wait": 1, "smtp_timeout": 2,
        }  # fmt: skip
        super().__init__(folder, f"embedded://{folder / 'queue'}", verb="receive")
        self.options |= {key.replace("_", "-"): value for key, value in (defaults | options).items()}

    def sessions_open(self) -> float:
        """Return what ``/metrics`` says."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=30) as page:
            [line] = [line for line in page.read().splitlines() if line.startswith(b"mtaq_sessions_open ")]
        return float(line.split()[1])

    def assert_all_slots_free(self) -> None:
        """As many clients as the cap allows are served at once, and nothing was logged as a fault."""
        wires: list[Wire] = []

        def fill() -> bool:
            while len(wires) < CAP:
                wire = Wire(self.port)
                if not wire.greeting.startswith("220"):
                    wire.close()
                    return False
                wires.append(wire)
            return True

        try:
            wait_until(fill, "all slots to be free", 15)
        finally:
            for wire in wires:
                wire.close()
        wait_until(lambda: self.sessions_open() == 0, "all sessions to be counted out", 15)
        faults = [event for event in self.events() if event["event"] in ("bug", "library", "worker.died")]
        assert faults == []


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Target]:
    """A relay to be attacked."""
    target = Target(tmp_path)
    try:
        target.start()
        target.wait_ready()
        yield target
    finally:
        target.cleanup()


def reset(client: socket.socket) -> None:
    """Close with RST."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def connect(port: int) -> socket.socket:
    """Connect."""
    return socket.create_connection(("127.0.0.1", port), 30)


def begin_starttls(port: int) -> socket.socket:
    """Connect and come to the point where the handshake begins."""
    client = connect(port)
    file = client.makefile("rb")
    file.readline()
    client.sendall(b"EHLO client.test\r\n")
    while file.readline()[3:4] == b"-":
        pass
    client.sendall(b"STARTTLS\r\n")
    assert file.readline().startswith(b"220")
    file.close()
    return client


ENDS: dict[str, Callable[[socket.socket], None]] = {
    "close": socket.socket.close,
    "reset": reset,
    "half-close": lambda client: client.shutdown(socket.SHUT_WR),
    "garbage": lambda client: client.sendall(b"EHLO again.test\r\n" * 9),
    "silence": lambda client: None,
}


@pytest.mark.parametrize("secure", [False, True])
def test_a_handshake_broken_off_gives_its_slot_back(target: Target, secure: bool) -> None:
    """However a client leaves a TLS handshake, its connection is forgotten and its slot free again."""
    for end in ENDS.values():
        for begun in (b"", HALF_A_HELLO):
            clients = [connect(target.secure_port) if secure else begin_starttls(target.port) for _ in range(CAP)]
            for client in clients:
                client.sendall(begun)
                end(client)
            target.assert_all_slots_free()
            for client in clients:
                client.close()
    assert target.stop() == 0
    assert "Traceback" not in target.log.read_text()


def test_clients_beyond_the_cap_get_no_handshake(target: Target) -> None:
    """On the secure port a client beyond the cap is closed without TLS, so it cannot linger without a slot."""
    held = [Wire(target.port) for _ in range(CAP)]
    with connect(target.secure_port) as client:
        client.sendall(HALF_A_HELLO)
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(100) == b""
    for wire in held:
        wire.close()
    target.assert_all_slots_free()


@pytest.mark.parametrize("where", ["greeting", "data", "bdat", "tls"])
def test_silence_is_answered_421_wherever_it_falls(target: Target, where: str) -> None:
    """After ``smtp-timeout`` of silence a client gets 421 4.4.2 and is closed, also inside content and inside TLS."""
    said = b"EHLO client.test\r\nMAIL FROM:<ada@example.org>\r\nRCPT TO:<grace@example.com>\r\n"
    client = connect(target.secure_port if where == "tls" else target.port)
    if where == "tls":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        client = context.wrap_socket(client)
    else:
        client.recv(4096, socket.MSG_PEEK)  # who speaks before the greeting is answered at once
        client.sendall({"greeting": b"", "data": said + b"DATA\r\nSubj", "bdat": said + b"BDAT 99\r\nSubj"}[where])
    heard = b""
    while block := client.recv(4096):
        heard += block
    assert heard.splitlines()[-1].startswith(b"421 4.4.2")
    client.close()
    target.assert_all_slots_free()
