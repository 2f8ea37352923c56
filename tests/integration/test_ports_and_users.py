"""Ports with TLS, programs apart, another user, mail by MX: the relay as it is run for real."""

from __future__ import annotations

import os
import smtplib
import ssl
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import trustme

from tests.support.instance import Relay, Sink, free_port, wait_until
from tests.support.wire import Wire

CONTENT = b"Subject: hello\r\n\r\nhello\r\n"


@pytest.fixture
def programs() -> Iterator[ExitStack]:
    """Stops what a test started."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users can look into; pytest's own are closed to them whenever somebody starts it."""
    with tempfile.TemporaryDirectory(prefix="mtaq-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def start(programs: ExitStack, program: Relay | Sink) -> None:
    """Start a program that the test's end stops."""
    programs.callback(program.cleanup)
    program.start()


def test_starttls_and_a_secure_port(programs: ExitStack, tmp_path: Path) -> None:
    """With a certificate STARTTLS is offered, the secure port speaks TLS at once, and the JSON says how it came."""
    authority = trustme.CA()
    issued = authority.issue_cert("relay.test")
    issued.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    for blob in issued.cert_chain_pems:
        blob.write_to_path(str(tmp_path / "chain.pem"), append=True)
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    secure_port, sink = free_port(), Sink(tmp_path)
    relay = Relay(
        tmp_path, f"embedded://{tmp_path / 'queue'}", smtp_secure_port=secure_port, rabbitmq_inbox="outbox",
        smtp_certificate=tmp_path / "chain.pem", smtp_key=tmp_path / "key.pem", smtp_threads=1,
        smtp_sink_address="127.0.0.1", smtp_sink_port=sink.port,
    )  # fmt: skip
    start(programs, sink)
    start(programs, relay)
    relay.wait_ready()
    # What the library resolves a name to is not the matter here: the certificate's name is.
    with smtplib.SMTP("127.0.0.1", relay.port, timeout=30) as client:
        client._host = "relay.test"
        client.starttls(context=trust)
        assert "starttls" not in client.esmtp_features
        client.sendmail("ada@example.org", ["one@example.com"], CONTENT)
    with smtplib.SMTP_SSL("127.0.0.1", secure_port, timeout=30, context=without_name(trust)) as client:
        client.sendmail("ada@example.org", ["two@example.com"], CONTENT)
    wait_until(lambda: len(sink.notes()) == 2, "both messages")
    for content in sink.contents():
        assert b"with ESMTPS" in content

    def versions() -> list[str]:
        return [event["tls_version"] for event in relay.events("session.closed") if event["session_messages"]]

    wait_until(lambda: versions() == ["TLSv1.3", "TLSv1.3"], "both sessions to be told of")


def without_name(trust: ssl.SSLContext) -> ssl.SSLContext:
    """The same trust, for a connection to an address."""
    trust.check_hostname = False
    return trust


def test_a_secure_port_closes_on_strangers_without_a_handshake(programs: ExitStack, tmp_path: Path) -> None:
    """Who may not connect gets no TLS handshake."""
    trustme.CA().issue_cert("relay.test").private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "both.pem"))
    secure_port = free_port()
    relay = Relay(
        tmp_path, f"embedded://{tmp_path / 'queue'}", verb="receive", smtp_secure_port=secure_port, smtp_threads=1,
        smtp_certificate=tmp_path / "both.pem", smtp_key=tmp_path / "both.pem",
        **{f"smtp_range@{secure_port}": "10.0.0.0/8"},
    )  # fmt: skip
    start(programs, relay)
    relay.wait_ready()
    with Wire(secure_port) as wire:
        assert wire.greeting == ""


def test_receive_and_deliver_are_programs_of_their_own(programs: ExitStack, tmp_path: Path) -> None:
    """Two instances that share nothing but the queue relay a message."""
    address, sink = f"embedded://{tmp_path / 'queue'}", Sink(tmp_path)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    receive = Relay(tmp_path / "a", address, verb="receive", rabbitmq_inbox="outbox")
    deliver = Relay(
        tmp_path / "b", address, verb="deliver", rabbitmq_inbox="outbox",
        smtp_sink_address="127.0.0.1", smtp_sink_port=sink.port,
    )  # fmt: skip
    for program in (sink, receive, deliver):
        start(programs, program)
    receive.wait_ready()
    deliver.wait_ready()
    with Wire(receive.port) as wire:
        wire.say("EHLO client.test")
        wire.say("MAIL FROM:<ada@example.org>")
        wire.say("RCPT TO:<grace@example.com>")
        assert wire.data(CONTENT).startswith("250")
    wait_until(lambda: len(sink.notes()) == 1, "the message")
    assert deliver.greeting() == ""
    assert receive.stop() == 0
    assert deliver.stop() == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_the_user_is_dropped_to_and_ports_survive_a_worker(programs: ExitStack, open_folder: Path) -> None:
    """With ``user`` no process stays root, and a worker that is replaced still has its port."""
    queue = open_folder / "queue"
    queue.mkdir()
    os.chown(queue, 65534, 65534)
    relay = Relay(open_folder, f"embedded://{queue}", verb="receive", user="nobody", smtp_threads=1)
    relay.python, relay.environment = python_for_everybody()
    start(programs, relay)
    relay.wait_ready()
    assert relay.process is not None
    for pid in (relay.process.pid, *relay.worker_pids("receive")):
        uids = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("Uid:"))
        assert set(uids.split()[1:]) == {"65534"}
    [pid] = relay.worker_pids("receive")
    os.kill(pid, 9)
    wait_until(lambda: pid not in relay.worker_pids("receive") and relay.greeting().startswith("220"), "a new worker")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_run_directory_with_files_of_another_user_ends_the_instance(programs: ExitStack, open_folder: Path) -> None:
    """What the user may not open is named, without a traceback, and the exit status is 77: a restart would not help."""
    slots = open_folder / "instance" / "slots"
    slots.parent.mkdir()
    slots.touch(0o600)
    relay = Relay(open_folder, "amqp://127.0.0.1:1/", verb="receive", user="nobody", smtp_threads=1)
    relay.python, relay.environment = python_for_everybody()
    start(programs, relay)
    assert relay.wait() == 77
    assert f"mtaq: {slots}: Permission denied" in relay.log.read_text()
    assert "Traceback" not in relay.log.read_text()


def python_for_everybody() -> tuple[list[str], dict[str, str]]:
    """Return an interpreter that other users can run too, and the environment in which it finds our packages."""
    if all(parent.stat().st_mode & 0o005 == 0o005 for parent in Path(sys.executable).resolve().parents):
        return [sys.executable], {}
    system = f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"
    if not Path(system).exists():
        pytest.skip(f"{sys.executable} is for its owner alone, and there is no {system}")
    return [system], {"PYTHONPATH": ":".join(path for path in sys.path if path.endswith("site-packages"))}
