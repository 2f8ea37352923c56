"""Looking at a running instance and moving its waiting mail, as operators do: show, flush, requeue, queue, inject."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mtaq.net.control_socket import ask
from tests.support.instance import ROOT, Relay, Sink, wait_until
from tests.support.queues import fresh_name

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


class Whole:
    """A relay whose mail goes to a sink, and the verbs of its operator."""

    def __init__(self, folder: Path, address: str) -> None:
        name = fresh_name("show")
        self.sink = Sink(folder)
        self.relay = Relay(
            folder, address, smtp_sink_address="127.0.0.1", smtp_sink_port=self.sink.port, smtp_threads=1,
            rabbitmq_outbox=name, rabbitmq_inbox=f"{name}.in", rabbitmq_dead=f"{name}.dead", retry_interval="3000",
            application_log=f"stderr,{folder / 'mtaq.log'}", log_format="json", rabbitmq_results=f"{name}.results",
        )  # fmt: skip

    def run(self, *arguments: str, status: int = 0, text: str = "") -> str:
        """Run a verb and return what it prints."""
        command = [sys.executable, "-m", "mtaq", *arguments, "--config", str(self.relay.configuration)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=90, input=text)
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout

    def ask(self, *arguments: str, status: int = 0) -> Any:
        """Run a verb and return the JSON that it prints."""
        return json.loads(self.run(*arguments, "--json", status=status))

    def inject(self, recipient: str, **properties: object) -> None:
        """Put a message into the outbox."""
        message = {
            "message-id": f"id-{recipient}", "envelope": "a@example.org", "recipient": recipient,
            "mime": "Subject: x\r\n\r\nhello\r\n", **properties,
        }  # fmt: skip
        self.run("inject", "-", text=json.dumps(message))

    def waiting(self) -> int:
        """How many messages lie in the delay queues?"""
        rows = self.ask("queue", "list")
        return int(next(row["waiting"] for row in rows if row["queue"] == self.relay.options["rabbitmq-outbox"]))

    def arrived(self) -> list[str]:
        """Recipients at the sink."""
        return sorted(path for note in self.sink.notes() for path in note["forward-paths"])


@pytest.fixture(scope="module", params=["embedded", pytest.param("rabbitmq", marks=pytest.mark.rabbitmq)])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    folder = tmp_path_factory.mktemp("show")
    address = f"embedded://{folder / 'queue'}"
    if request.param == "rabbitmq":
        address = request.getfixturevalue("rabbitmq").address
    whole = Whole(folder, address)
    try:
        whole.sink.start()
        whole.relay.start()
        whole.relay.wait_ready()
        yield whole
    finally:
        whole.relay.cleanup()
        whole.sink.cleanup()


def test_resumed_mail_comes_by_itself(whole: Whole) -> None:
    """What a pause held comes within seconds when the pause is ended, and nothing else does."""
    whole.run("pause", "add", "--domain", "paused.example")
    whole.run("pause", "add", "--domain", "other.example")
    whole.inject("one@paused.example")
    whole.inject("two@other.example")
    wait_until(lambda: whole.waiting() == 2, "both to wait")
    parked = whole.ask("show", "sites", "--parked")
    assert sum(row.get("parked", {}).get("pause", 0) for row in parked) == 2
    whole.run("resume", "--domain", "paused.example")
    wait_until(lambda: "one@paused.example" in whole.arrived(), "the mail that was paused")
    assert "two@other.example" not in whole.arrived()
    whole.run("resume", "--domain", "other.example")
    wait_until(lambda: "two@other.example" in whole.arrived(), "the rest")


def test_raised_limit(whole: Whole) -> None:
    """What waits for its turn under a limit comes within seconds when the limit is raised."""
    whole.run("throttle", "add", "--domain", "slow.example", "--messages", "1/h")
    for number in range(6):
        whole.inject(f"n{number}@slow.example")
    wait_until(lambda: whole.waiting() >= 4, "messages to wait for their turns")
    whole.run("throttle", "add", "--domain", "slow.example", "--messages", "6000")
    wait_until(lambda: sum("slow.example" in path for path in whole.arrived()) == 6, "all of them")


def test_flush(whole: Whole) -> None:
    """Deferred mail is attempted at once when it is flushed by domain or id; scheduled mail is not."""
    whole.run("force-error", "add", "late.example", "--code", "450", "--text", "later")
    for number in range(3):
        whole.inject(f"n{number}@late.example")
    whole.inject("scheduled@late.example", nextattempt={"time": "2036-01-01 00:00:00"})
    wait_until(lambda: whole.waiting() == 4, "all to wait")
    whole.run("force-error", "remove", *[each["id"] for each in whole.ask("force-error", "list")])
    assert whole.ask("flush", "--id", "id-n0@late.example")["flushed"] == 1
    assert whole.ask("flush", "--domain", "nobody.example")["flushed"] == 0
    wait_until(lambda: "n0@late.example" in whole.arrived(), "the one that was named")
    assert whole.ask("flush", "--domain", "*.example") == {"looked-at": 3, "flushed": 2, "refused": 0}
    wait_until(lambda: sum("late.example" in path for path in whole.arrived()) == 3, "the others")
    assert whole.ask("flush", "--cause", "scheduled")["flushed"] == 1
    wait_until(lambda: "scheduled@late.example" in whole.arrived(), "the one that had time")


def test_flush_says_what_it_needs(whole: Whole) -> None:
    """Nothing is flushed when nothing is asked for."""
    whole.run("flush", status=64)
    whole.run("flush", "--all", "--domain", "x.example", status=64)


def test_show_queues(whole: Whole) -> None:
    """Every queue is listed with what lies in it."""
    rows = {row["queue"]: row for row in whole.ask("show", "queues")}
    outbox = str(whole.relay.options["rabbitmq-outbox"])
    assert rows[outbox]["ready"] == 0
    assert rows[outbox]["consumers"] >= 1
    assert set(rows) >= {outbox, f"{outbox}.in", f"{outbox}.dead", f"{outbox}.results"}
    assert outbox in whole.run("show", "queues")


def test_show_connections(whole: Whole) -> None:
    """A client that is connected is shown with both addresses."""
    import socket

    with socket.create_connection(("127.0.0.1", whole.relay.port), timeout=5) as client:
        client.recv(1000)
        client.sendall(b"EHLO client.test\r\n")
        client.recv(4000)
        (row,) = [row for row in whole.ask("show", "connections") if row["direction"] == "in"]
        assert (row["remote"], row["local"]) == ("127.0.0.1", f"127.0.0.1:{whole.relay.port}")
        assert (row["host"], row["state"], row["messages"]) == ("client.test", "idle", 0)
        assert "client.test" in whole.run("show", "connections")


def test_show_sites(whole: Whole) -> None:
    """A site that a connection is open to is shown with its limits."""
    whole.run("throttle", "add", "--domain", "seen.example", "--connections", "3")
    whole.inject("one@seen.example")
    wait_until(lambda: "one@seen.example" in whole.arrived(), "the message")

    def row() -> dict[str, Any] | None:
        rows = [row for row in whole.ask("show", "sites") if row.get("site") == "seen.example"]
        if not rows:
            whole.inject("again@seen.example")
        return rows[0] if rows else None

    found = wait_until(row, "the site")
    assert found["limits"] == {"connections": 3}
    assert found["paused"] is False


def test_requeue(whole: Whole) -> None:
    """What lies in the queue of dead letters goes back to the outbox without its reason, if it matches."""
    outbox = str(whole.relay.options["rabbitmq-outbox"])
    bad = {"recipient": "x@dead.example", "envelope": "a@example.org"}  # without content
    for tag in ("a", "a", "b"):
        publish(whole, {**bad, "tag": tag})
    wait_until(lambda: depth(whole, f"{outbox}.dead") == 3, "three dead letters")
    peeked = whole.run("queue", "peek", f"{outbox}.dead", "--limit", "1")
    assert '"reason"' in peeked
    assert whole.ask("requeue", "--match", "tag=b", "--dry-run")["requeued"] == 1
    assert whole.ask("requeue", "--match", "tag=c")["requeued"] == 0
    assert depth(whole, f"{outbox}.dead") == 3
    assert whole.ask("requeue", "--match", "tag=a", "--limit", "1") == {
        "looked-at": 3, "requeued": 1, "refused": 0, "dry-run": False,
    }  # fmt: skip
    wait_until(lambda: depth(whole, f"{outbox}.dead") == 3, "the message to be refused anew")
    whole.run("requeue", "--from", outbox, status=64)


def publish(whole: Whole, message: dict[str, object]) -> None:
    """Put anything into the outbox."""
    import asyncio

    from mtaq.client import connect

    async def work() -> None:
        async with connect(str(whole.relay.options["rabbitmq-address"])) as queues:
            await queues.publish(str(whole.relay.options["rabbitmq-outbox"]), message)

    asyncio.run(work())


def depth(whole: Whole, queue: str) -> int:
    """How much lies in *queue*?"""
    return int(next(row["ready"] for row in whole.ask("queue", "list") if row["queue"] == queue))


def test_inject_refuses(whole: Whole) -> None:
    """What delivery could not understand does not get into the outbox."""
    whole.run("inject", "-", text="{", status=65)
    whole.run("inject", "-", text='{"envelope": ""}', status=65)
    whole.run("inject", "/nonexistent", status=66)


async def test_control_socket(whole: Whole) -> None:
    """The socket is its owner's alone, and whatever is asked gets an answer."""
    path = whole.relay.folder / "instance" / "run.sock"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "error" in await ask(path, show="secrets")
    assert "error" in await ask(path, something=1)
    assert "error" in await ask(path, show="x" * 100_000)


def test_trace(whole: Whole) -> None:
    """All attempts of a message are told, and where it waits now; an unknown one is status 1."""
    whole.run("force-error", "add", "traced.example", "--code", "450", "--text", "try later")
    whole.inject("one@traced.example")
    wait_until(lambda: whole.waiting() >= 1, "it to wait")
    told = whole.run("trace", "id-one@traced.example", "--queues")
    assert "delivery.deferred" in told
    assert "now: id-one@traced.example for one@traced.example lies in" in told
    whole.run("suppress", "add", "one@traced.example")
    found = whole.ask("trace", "id-one@traced.example", "--queues")
    assert found["suppressed"] == ["one@traced.example"]
    assert [wait["cause"] for wait in found["waits"]] == ["retry"]
    whole.run("trace", "nothing-like-this", status=1)


def test_nothing_runs(tmp_path: Path) -> None:
    """Without an instance the live views say so."""
    command = [sys.executable, "-m", "mtaq", "show", "sites", f"--run-directory={tmp_path}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 69
    assert "nothing runs" in done.stderr
