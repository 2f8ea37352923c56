"""Every ``x-mq-*`` field: what it changes, seen at the mail host or in the queues.

A table with a case for every field there is; one that is added fails here until its effect is shown. All of it goes by
SMTP through one relay to ``mtaq sink``. ``test_message_properties`` does the same for the JSON of the outbox.
"""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mtaq.client.sync import connect as connect_queues
from mtaq.model.times import format_time
from mtaq.receive.properties import FIELDS
from tests.support.instance import ROOT, Relay
from tests.support.running_sink import RunningSink
from tests.support.wire import Wire


class Passage:
    """What became of all that was sent through the relay: by recipient's local part.

    Attributes:
        notes: Of the sink.
        others: Of the other sink, which is a smarthost.
        contents: At the sink.
        results: JSON of the queue of results.
        queues: The same of every other queue that a field names, by queue.
        retries: Copies of transient results.
    """

    def __init__(self) -> None:
        self.notes: dict[str, dict[str, Any]] = {}
        self.others: dict[str, dict[str, Any]] = {}
        self.contents: list[bytes] = []
        self.results: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        self.retries: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        self.queues: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)

    @property
    def delayed_until(self) -> str:
        """When the delayed one was to go, by its own JSON."""
        return str(self.results["delayed"][0]["nextattempt"]["time"])

    def last(self, name: str) -> dict[str, Any]:
        """Return the last attempt of the only message to *name*."""
        [result] = self.results[name]
        attempt: dict[str, Any] = result["results"][-1]
        return attempt


Check = Callable[[Passage], bool]

#: Field → what is sent (other fields with it, if it needs them) and what must be seen.
ORDERS: dict[str, tuple[Mapping[str, str], Check]] = {
    "envelope": ({}, lambda seen: seen.notes["envelope"]["reverse-path"] == "joan@example.org"),
    "ip": ({}, lambda seen: seen.notes["ip"]["remote-ip"] == "127.0.0.5"),
    "pool": ({}, lambda seen: seen.notes["pool"]["remote-ip"] == "127.0.0.6"),
    "tag": ({}, lambda seen: seen.results["tag"][0]["tags"] == ["spring"]),
    "delayed": ({}, lambda seen: _second(seen.notes["delayed"]["time"]) >= _second(seen.delayed_until)),
    "maxdelivertime": ({}, lambda seen: "not delivered before" in seen.last("maxdelivertime")["description"]),
    "maxattempts": ({}, lambda seen: seen.last("maxattempts")["description"].startswith("not delivered in 1 attempt")),
    "retries": ({"maxattempts": "2"}, lambda seen: seen.last("retries")["attempt"] == 2),
    "idempotency-key": ({}, lambda seen: sorted(
        item["results"][-1]["result"] for item in seen.results["idempotency-key"]) == ["accepted", "invalid"]),
    "inlinecss": ({}, lambda seen: seen.results["inlinecss"][0]["inlinecss"] is True),
    "keepmime": ({}, lambda seen: "Subject: hi" in seen.results["keepmime"][0]["mime"]),
    "priority": ({}, lambda seen: seen.results["priority"][0]["priority"] == 9),
    "security": ({}, lambda seen: seen.retries["security"][0]["results"][0]["state"] == "starttls"),
    "results-queue": ({}, lambda seen: _is_about("results-queue", seen.queues["mine.results"])),
    "success-queue": ({}, lambda seen: _is_about("success-queue", seen.queues["mine.success"])),
    "failure-queue": ({}, lambda seen: _is_about("failure-queue", seen.queues["mine.failure"])),
    "retry-queue": ({}, lambda seen: _is_about("retry-queue", seen.queues["mine.retry"])),
    "dsn-queue": ({}, lambda seen: "dsn-queue@example.com" in seen.queues["mine.dsn"][0]["mime"]),
    "smarthost-hostname": ({"smarthost-port": "OTHER"}, lambda seen: "smarthost-hostname" in seen.others),
    "smarthost-port": ({"smarthost-hostname": "127.0.0.1"}, lambda seen: "smarthost-port" in seen.others),
    "smarthost-username": (
        {"smarthost-hostname": "127.0.0.1", "smarthost-port": "OTHER", "smarthost-password": "secret"},
        lambda seen: seen.others["smarthost-username"]["user"] == "ada"),
    "smarthost-password": (
        {"smarthost-hostname": "127.0.0.1", "smarthost-port": "OTHER", "smarthost-username": "ada"},
        lambda seen: seen.others["smarthost-password"]["user"] == "ada"),
    "dsn-notify": ({}, lambda seen: _recipient(seen, "dsn-notify")["notify"] == ["DELAY"]),
    "dsn-ret": ({}, lambda seen: _asked(seen, "dsn-ret")["ret"] == "FULL"),
    "dsn-orcpt": ({}, lambda seen: _recipient(seen, "dsn-orcpt")["orcpt"] == "rfc822;robert@example.com"),
    "dsn-envid": ({}, lambda seen: _asked(seen, "dsn-envid")["envid"] == "q-1"),
    "order-id": ({}, lambda seen: seen.results["order-id"][0]["order-id"] == "A-1001"),
}  # fmt: skip

VALUES = {
    "envelope": "joan@example.org", "ip": "127.0.0.5", "pool": "bulk", "tag": "spring", "maxdelivertime": "5",
    "maxattempts": "1", "retries": "1", "idempotency-key": "invoice 4711", "inlinecss": "yes", "keepmime": "yes",
    "priority": "9", "security": "required", "results-queue": "mine.results", "success-queue": "mine.success",
    "failure-queue": "mine.failure", "retry-queue": "mine.retry", "dsn-queue": "mine.dsn",
    "smarthost-hostname": "127.0.0.1", "smarthost-port": "OTHER", "smarthost-username": "ada",
    "smarthost-password": "secret", "dsn-notify": "DELAY", "dsn-ret": "FULL", "dsn-orcpt": "robert@example.com",
    "dsn-envid": "q-1", "order-id": "A-1001",
}  # fmt: skip

SCRIPT = """
rcpt to=maxdelivertime@*: 451 4.2.0 later
rcpt to=maxattempts@*: 451 4.2.0 later
rcpt to=retry-queue@*: 451 4.2.0 later
rcpt to=retries@*: 451 4.2.0 later
rcpt to=failure-queue@*: 550 5.1.1 no such user
rcpt to=dsn-queue@*: 550 5.1.1 no such user
"""


def _second(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC, microsecond=0)


def _is_about(name: str, messages: Sequence[Mapping[str, Any]]) -> bool:
    return [message["recipient"] for message in messages] == [f"{name}@example.com"]


def _asked(seen: Passage, name: str) -> dict[str, Any]:
    asked: dict[str, Any] = seen.notes[name]["dsn"]
    return asked


def _recipient(seen: Passage, name: str) -> dict[str, Any]:
    asked: dict[str, Any] = _asked(seen, name)["recipients"][f"{name}@example.com"]
    return asked


def test_every_field_has_a_case() -> None:
    """And one that is in no table stands for all others."""
    assert set(ORDERS) == {*FIELDS, "order-id"}
    assert set(ORDERS) == {*VALUES, "delayed"}


@pytest.fixture(scope="module")
def passage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Passage]:
    """Send a message for each field through a relay, and return what became of them."""
    folder = tmp_path_factory.mktemp("fields")
    (folder / "sink").mkdir()
    (folder / "other").mkdir()
    sink = RunningSink(folder / "sink", script=SCRIPT)
    other = RunningSink(folder / "other", script="certificate: self-signed\nlogin: ada:secret")
    address = f"embedded://{folder / 'queue'}"
    relay = Relay(
        folder, address, smtp_threads=1, rabbitmq_inbox="outbox", rabbitmq_results="results", rabbitmq_retry="retry",
        smarthost="127.0.0.1", smarthost_port=sink.port, retry_interval="3600", retry_jitter=0,
    )  # fmt: skip
    try:
        relay.write_configuration()
        command = [sys.executable, "-m", "mtaq", "pool", "add", "bulk", "127.0.0.6", "--config"]
        subprocess.run([*command, str(relay.configuration)], cwd=ROOT, check=True, capture_output=True, timeout=60)
        relay.start()
        relay.wait_ready()
        _send_all(relay.port, str(other.port))
        yield _seen(address, sink, other)
    finally:
        relay.cleanup()
        sink.stop()
        other.stop()


def _send_all(port: int, other: str) -> None:
    values = VALUES | {"delayed": format_time(datetime.now(UTC) + timedelta(seconds=4))}
    for name, (company, _) in ORDERS.items():
        for _ in range(2 if name == "idempotency-key" else 1):
            fields = {name: values[name], **company}
            header = "".join(f"X-MQ-{field}: {value.replace('OTHER', other)}\r\n" for field, value in fields.items())
            with Wire(port) as wire:
                wire.send(b"EHLO client.test\r\n")
                wire.reply()
                recipient = f"RCPT TO:<{name}@example.com>\r\n"
                for line in ("MAIL FROM:<ada@example.org>\r\n", recipient, "DATA\r\n"):
                    wire.send(line.encode())
                    wire.reply()
                wire.send(f"{header}Subject: hi\r\n\r\nhello\r\n.\r\n".encode())
                assert wire.reply().startswith("250")


def _seen(address: str, sink: RunningSink, other: RunningSink) -> Passage:
    seen = Passage()
    #: Those that end in a queue of their own, or wait for an hour.
    elsewhere = {"results-queue", "security", "retry-queue"}
    names = (set(ORDERS) | {"idempotency-key"}) - elsewhere
    with connect_queues(address) as queues:
        wanted = len(names) + 1
        taking = queues.consume("results")
        for _ in range(wanted):
            _put(seen.results, taking)
        taking = queues.consume("retry")
        while not (seen.retries["security"] and seen.retries["retries"]):
            _put(seen.retries, taking)
        for queue in ("mine.results", "mine.success", "mine.failure", "mine.retry", "mine.dsn"):
            with next(iter(queues.consume(queue))) as message:
                seen.queues[queue].append(dict(message))
    for notes, running in ((seen.notes, sink), (seen.others, other)):
        notes |= {note["forward-paths"][0].partition("@")[0]: note for note in running.notes()}
    seen.contents = sink.contents()
    return seen


def _put(where: Mapping[str, list[dict[str, Any]]], taking: Any) -> None:
    with next(iter(taking)) as message:
        where[message["recipient"].partition("@")[0]].append(dict(message))


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ORDERS)
def test_fields(name: str, passage: Passage) -> None:
    """Each changes what the mail host sees, or what is published; no host sees the field itself."""
    assert ORDERS[name][1](passage)
    assert not any(b"x-mq-" in content.lower() for content in passage.contents)
