"""One instance as its operator sees it: mistakes, signals, reload, health."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import trustme

from tests.support.instance import ROOT, Relay, free_port, wait_until
from tests.support.wire import Wire

CONTENT = b"Subject: hello\r\n\r\nhello\r\n"


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Relay]:
    """A relay on the embedded queue that only receives; each test starts it."""
    relay = Relay(tmp_path, f"embedded://{tmp_path / 'queue'}", verb="receive", smtp_threads=1)
    yield relay
    relay.cleanup()


def mtaq(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``mtaq`` to its end."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MTAQ_")}
    return subprocess.run(
        [sys.executable, "-m", "mtaq", *arguments],
        capture_output=True, text=True, env=environment, timeout=60, cwd=ROOT,
    )  # fmt: skip


def test_every_mistake_is_told_at_once_before_a_port_is_opened(relay: Relay) -> None:
    """A configuration with several mistakes names each with its line, and the exit status is 78."""
    relay.options |= {"smtp-prot": 25, "smtp-maxsize": "ten", "smtp-range": "10.0.0.0/33", "retry-interval": "x"}
    relay.write_configuration()
    done = mtaq("receive", "--config", str(relay.configuration))
    assert done.returncode == 78
    lines = relay.configuration.read_text().splitlines()
    for key, known in (("smtp-prot", "smtp-port"), ("smtp-maxsize", ""), ("smtp-range", ""), ("retry-interval", "")):
        number = next(number for number, line in enumerate(lines, 1) if line.startswith(f"{key}:"))
        [told] = [line for line in done.stderr.splitlines() if f"{relay.configuration}:{number}: {key}: " in line]
        assert known in told
    assert relay.greeting() == ""


def test_a_port_in_use_is_named(relay: Relay) -> None:
    """A second instance on the same port says which port, and ends with 71."""
    relay.start()
    relay.wait_ready()
    done = mtaq("receive", "--config", str(relay.configuration))
    assert done.returncode == 71
    assert str(relay.port) in done.stderr
    assert "Traceback" not in done.stderr


def test_sigterm_lets_a_transaction_finish_and_turns_others_away(relay: Relay) -> None:
    """SIGTERM: an idle client gets 421, one inside DATA its 250 and then 421; the exit status is 0."""
    relay.start()
    relay.wait_ready()
    assert relay.process is not None
    with Wire(relay.port) as idle, Wire(relay.port) as busy:
        idle.say("EHLO client.test")
        busy.say("EHLO client.test")
        busy.say("MAIL FROM:<ada@example.org>")
        busy.say("RCPT TO:<grace@example.com>")
        assert busy.say("DATA").startswith("354")
        relay.process.terminate()
        assert idle.reply().startswith("421 4.3.2")
        busy.send(CONTENT + b".\r\n")
        assert busy.reply().startswith("250-2.6.0 accepted")
        assert busy.reply().startswith("421 4.3.2")
        assert busy.reply() == ""
    assert relay.wait() == 0


def test_a_second_sigterm_ends_at_once(relay: Relay) -> None:
    """Whoever asks twice does not wait for the transactions."""
    relay.start()
    relay.wait_ready()
    assert relay.process is not None
    with Wire(relay.port) as busy:
        busy.say("EHLO client.test")
        busy.say("MAIL FROM:<ada@example.org>")
        busy.say("RCPT TO:<grace@example.com>")
        busy.say("DATA")
        relay.process.terminate()
        wait_until(lambda: relay.events("service.stopping"), "the first SIGTERM to be seen")
        relay.process.terminate()
        relay.wait(10)
    assert not relay.worker_pids("receive")


def test_reload_changes_what_can_change_and_keeps_sessions(relay: Relay) -> None:
    """``mtaq reload``: a new limit holds for new sessions, open ones live on, what needs a restart is named."""
    relay.start()
    relay.wait_ready()
    with Wire(relay.port) as before:
        assert "SIZE 104857600" in before.say("EHLO client.test")
        relay.options |= {"smtp-maxsize": "1MB", "smtp-connections-in": 7}
        relay.write_configuration()
        assert mtaq("reload", "--config", str(relay.configuration)).returncode == 0
        loaded = wait_until(lambda: [e for e in relay.events("config.loaded") if e.get("changed")], "the reload")
        assert "smtp-maxsize" in loaded[-1]["changed"]
        assert "smtp-connections-in" in loaded[-1]["needs_restart"]

        def announced() -> bool:
            with Wire(relay.port) as after:
                return "SIZE 1048576" in after.say("EHLO client.test")

        wait_until(announced, "the new size to be announced")
        assert before.say("NOOP").startswith("250")


def test_a_broken_new_configuration_changes_nothing(relay: Relay) -> None:
    """SIGHUP with mistakes in the file: they are logged, and mail goes on as before."""
    relay.start()
    relay.wait_ready()
    relay.options |= {"smtp-maxsize": "many"}
    relay.write_configuration()
    assert mtaq("reload", "--config", str(relay.configuration)).returncode == 78
    assert relay.process is not None
    relay.process.send_signal(signal.SIGHUP)
    [refused] = wait_until(lambda: relay.events("config.refused"), "the refusal to be logged")
    assert "smtp-maxsize" in refused["error"]
    with Wire(relay.port) as wire:
        assert "SIZE 104857600" in wire.say("EHLO client.test")


def test_a_killed_worker_is_replaced(relay: Relay) -> None:
    """kill -9 of the only worker: another one takes its place, on the same port."""
    relay.start()
    relay.wait_ready()
    [pid] = relay.worker_pids("receive")
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: pid not in relay.worker_pids("receive") and relay.worker_pids("receive"), "another worker")
    wait_until(lambda: relay.greeting().startswith("220"), "the port to answer")


def test_health_tells_by_its_exit_status(relay: Relay) -> None:
    """``mtaq health`` is 0 while everything works and 69 when nothing runs."""
    relay.write_configuration()
    assert mtaq("health", "--config", str(relay.configuration)).returncode == 69
    relay.start()
    relay.wait_ready()
    assert mtaq("health", "--config", str(relay.configuration)).returncode == 0


def test_secrets_do_not_stand_in_the_process_list(tmp_path: Path) -> None:
    """The password of the broker reaches the workers, and no argument of theirs."""
    address = "amqp://mtaq:Zeph1r-secret@127.0.0.1:1/"
    relay = Relay(tmp_path, address, verb="receive", smtp_threads=1)
    try:
        relay.start()
        wait_until(lambda: relay.greeting().startswith("421"), "the relay to answer")
        for pid in relay.worker_pids("receive"):
            assert b"Zeph1r" not in Path(f"/proc/{pid}/cmdline").read_bytes()
        assert "Zeph1r" not in relay.log.read_text()
    finally:
        relay.cleanup()


def test_connections_beyond_the_cap_wait_and_are_told(tmp_path: Path) -> None:
    """With a cap of 2 over two processes the third client waits, then gets 421; a freed slot serves again."""
    relay = Relay(
        tmp_path, f"embedded://{tmp_path / 'queue'}", verb="receive", smtp_connections_in=2, smtp_connections_wait=1
    )
    try:
        relay.start()
        relay.wait_ready()
        with Wire(relay.port) as first, Wire(relay.port) as second:
            assert first.greeting.startswith("220")
            assert second.greeting.startswith("220")
            with Wire(relay.port) as third:
                assert third.greeting.startswith("421 4.7.0")
        wait_until(lambda: relay.greeting().startswith("220"), "a slot to be free")
    finally:
        relay.cleanup()


def test_clients_out_of_range_are_refused(tmp_path: Path) -> None:
    """Who is not in smtp-range gets 554 5.7.1 and a closed connection; by default that is everybody."""
    relay = Relay(tmp_path, f"embedded://{tmp_path / 'queue'}", verb="receive", smtp_threads=1, smtp_range="")
    try:
        relay.start()
        relay.wait_ready()
        with Wire(relay.port) as wire:
            assert wire.greeting.startswith("554 5.7.1")
            assert wire.reply() == ""
    finally:
        relay.cleanup()


def test_a_journal_of_a_newer_version_ends_the_start(tmp_path: Path) -> None:
    """Data that this program cannot read: a sentence, and exit status 78; no worker is started again and again."""
    relay = Relay(tmp_path, f"embedded://{tmp_path / 'queue'}", verb="deliver", smtp_threads=1)
    journal = tmp_path / "data" / "journal"
    journal.mkdir(parents=True)
    with closing(sqlite3.connect(journal / "journal.db")) as database:
        database.execute("PRAGMA user_version = 99")
    try:
        relay.start()
        assert relay.wait() == 78
        assert "newer" in relay.log.read_text()
        assert "Traceback" not in relay.log.read_text()
    finally:
        relay.cleanup()


def test_a_log_that_cannot_be_opened_is_named(relay: Relay, tmp_path: Path) -> None:
    """The sentence for the operator says which file it is; the exit status is 71."""
    log = tmp_path / "absent" / "mtaq.log"
    relay.options["application-log"] = log
    relay.write_configuration()
    done = mtaq("receive", "--config", str(relay.configuration))
    assert done.returncode == 71
    assert done.stderr == f"mtaq: {log}: No such file or directory\n"


def test_a_metrics_port_in_use_is_named(relay: Relay) -> None:
    """The sentence for the operator says which port it is; the exit status is 71."""
    with socket.create_server(("127.0.0.1", relay.metrics_port)):
        relay.write_configuration()
        done = mtaq("receive", "--config", str(relay.configuration))
    assert done.returncode == 71
    assert done.stderr.splitlines()[-1].startswith(f"mtaq: cannot listen on 127.0.0.1:{relay.metrics_port}: ")


def test_a_worker_that_cannot_start_prints_no_traceback(relay: Relay) -> None:
    """A file of the run directory that cannot be opened: the worker says which one, and is tried again."""
    (relay.folder / "instance" / "slots").mkdir(parents=True)
    relay.start()
    wait_until(lambda: len(relay.events("worker.died")) > 1, "the second try")
    assert relay.stop() == 0
    text = relay.log.read_text()
    assert f"mtaq: {relay.folder}/instance/slots: Is a directory" in text
    assert "Traceback" not in text


def test_metrics_that_cannot_be_written_print_no_traceback(relay: Relay) -> None:
    """Files of metrics are opened while a worker is imported: it says which one cannot be, and is tried again."""
    relay.start()
    relay.wait_ready()
    folder = relay.folder / "instance" / "metrics-receive"
    folder.rename(folder.with_name("away"))
    [pid] = relay.worker_pids("receive")
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: 71 in [event.get("status") for event in relay.events("worker.died")], "a worker to give up")
    folder.with_name("away").rename(folder)
    wait_until(lambda: relay.greeting().startswith("220"), "a worker that has its files")
    text = relay.log.read_text()
    assert f"mtaq: {folder}/" in text
    assert "Traceback" not in text


def test_a_journal_that_cannot_be_opened_prints_no_traceback(tmp_path: Path) -> None:
    """Delivery says what is wrong with its journal, and is tried again."""
    journal = tmp_path / "data" / "journal"
    journal.mkdir(parents=True)
    relay = Relay(tmp_path, f"embedded://{tmp_path / 'queue'}", verb="deliver", smtp_threads=1)
    relay.start()
    try:
        wait_until(lambda: any(journal.iterdir()), "the journal")
        assert relay.stop() == 0
        for path in journal.iterdir():
            if path.is_file() and path.stat().st_size:
                path.write_bytes(b"no database " * 1000)
        relay.start()
        wait_until(lambda: relay.events("worker.died") or relay.process.poll(), "the worker's end")
        relay.stop()
        assert str(journal) in relay.log.read_text()
        assert "Traceback" not in relay.log.read_text()
    finally:
        relay.cleanup()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_while_it_starts(relay: Relay, signum: signal.Signals) -> None:
    """From the pid file on, SIGTERM and Ctrl-C end it in order, and SIGHUP does not end it."""
    relay.start()
    assert relay.process is not None
    wait_until((relay.folder / "instance" / "receive.pid").exists, "the pid file")
    os.killpg(relay.process.pid, signum)
    if signum is signal.SIGHUP:
        relay.wait_ready()
        assert relay.stop() == 0
    else:
        assert relay.wait() == 0
    assert "Traceback" not in relay.log.read_text()


def test_ctrl_c_does_not_reach_a_worker_that_starts(relay: Relay) -> None:
    """Ctrl-C right after a worker was started: it ends by the supervisor's word, without a traceback."""
    relay.start()
    assert relay.process is not None
    wait_until(lambda: relay.events("worker.started"), "the worker")
    os.killpg(relay.process.pid, signal.SIGINT)
    assert relay.wait() == 0
    assert "Traceback" not in relay.log.read_text()


def test_workers_of_a_killed_supervisor_leave_the_port_at_once(relay: Relay) -> None:
    """kill -9 of the supervisor: a new instance has the port while the old worker lets its client finish."""
    relay.start()
    relay.wait_ready()
    assert relay.process is not None
    [pid] = relay.worker_pids("receive")
    with Wire(relay.port) as busy:
        busy.say("EHLO client.test")
        busy.say("MAIL FROM:<ada@example.org>")
        busy.say("RCPT TO:<grace@example.com>")
        assert busy.say("DATA").startswith("354")
        relay.process.kill()
        relay.process.wait()
        wait_until(lambda: not relay.greeting(), "the port to be given up")
        relay.start()
        relay.wait_ready()
        busy.send(CONTENT + b".\r\n")
        assert busy.reply().startswith("250-2.6.0 accepted")
        assert busy.reply().startswith("421 4.3.2")
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the old worker to end")


def certificate(path: Path) -> str:
    """Write a new certificate with its key to *path*; return it as a peer sees it."""
    issued = trustme.CA().issue_cert("relay.test")
    issued.private_key_and_cert_chain_pem.write_to_path(str(path))
    return issued.cert_chain_pems[0].bytes().decode().strip()


def test_a_reload_with_the_running_certificate_gone_leaves_no_orphan(relay: Relay, tmp_path: Path) -> None:
    """The file of the old certificate is gone before the restart: the worker says so, serves on, and still obeys."""
    old, new = tmp_path / "old.pem", tmp_path / "new.pem"
    certificate(old)
    certificate(new)
    relay.options |= {"smtp-certificate": old, "smtp-key": old}
    relay.start()
    relay.wait_ready()
    assert relay.process is not None
    relay.options |= {"smtp-certificate": new, "smtp-key": new}
    relay.write_configuration()
    old.unlink()
    relay.process.send_signal(signal.SIGHUP)

    def told() -> bool:
        with Wire(relay.port) as client:
            client.say("EHLO client.test")
            assert client.say("STARTTLS").startswith("220")
        return bool(relay.events("certificate.refused"))

    wait_until(told, "the worker's word")
    [refused] = relay.events("certificate.refused")
    assert str(old) in refused["error"]
    assert relay.greeting().startswith("220")
    [pid] = relay.worker_pids("receive")
    relay.process.kill()
    relay.process.wait()
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the worker to end with its supervisor")


def test_a_reload_that_cannot_be_made_leaves_no_orphan(relay: Relay, tmp_path: Path) -> None:
    """What needs the missing file anew is refused, and all stays as it was; the worker still obeys and ends."""
    path = tmp_path / "both.pem"
    certificate(path)
    relay.options |= {"smtp-certificate": path, "smtp-key": path}
    relay.start()
    relay.wait_ready()
    assert relay.process is not None
    relay.options |= {"smtp-tls-min": "1.3", "smtp-maxsize": "1MB"}
    relay.write_configuration()
    path.unlink()
    relay.process.send_signal(signal.SIGHUP)
    [refused] = wait_until(lambda: relay.events("config.refused"), "the worker's word")
    assert str(path) in refused["error"]
    with Wire(relay.port) as wire:
        assert "SIZE 104857600" in wire.say("EHLO client.test")
        assert wire.say("STARTTLS").startswith("220")
    [pid] = relay.worker_pids("receive")
    relay.process.kill()
    relay.process.wait()
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the worker to end with its supervisor")


def test_a_renewed_certificate_is_served_after_a_reload(relay: Relay, tmp_path: Path) -> None:
    """``mtaq reload`` reads the files anew, for STARTTLS and for the secure port."""
    path, secure_port = tmp_path / "both.pem", free_port()
    certificate(path)
    relay.options |= {"smtp-certificate": path, "smtp-key": path, "smtp-secure-port": secure_port}
    relay.start()
    relay.wait_ready()
    renewed = certificate(path)
    assert mtaq("reload", "--config", str(relay.configuration)).returncode == 0

    def served() -> bool:
        return ssl.get_server_certificate(("127.0.0.1", secure_port)).strip() == renewed

    wait_until(served, "the new certificate")
