"""Counting handshakes, and publishing a day's reports."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from mtaq.deliver import tls_tally
from mtaq.deliver.tls_reports import LAST_AFTER_S, Destination, TlsReports
from mtaq.deliver.tls_session import Judged, ResultType, TlsSession
from mtaq.deliver.tls_tally import TlsTally, read_counts
from mtaq.model.codec import decode_outbox
from mtaq.model.dns import DnsAnswer, Found, Question
from mtaq.reports import recognise
from mtaq.reports.tlsrpt_compose import Submitter
from mtaq.telemetry.events import EventLog
from tests.support.delivery import Clock, FakeQueues, Lines

STS = Judged("sts", ("version: STSv1", "mode: testing"), ("mx.a.test",))
DAY = "2026-01-02"


class Instance:
    """The processes of an instance, and DNS."""

    def __init__(self, folder: Path, *, sends: bool = False) -> None:
        self.folder = folder / "tls-reports"
        self.clock = Clock()
        self.clock.now = datetime(2026, 1, 2, 12, tzinfo=UTC)
        self.lines = Lines()
        self.queues = FakeQueues([])
        self.records: dict[str, DnsAnswer] = {}
        self.asked: list[str] = []
        self.sends = sends
        self.wants("a.test")

    def wants(self, domain: str, rua: str = "") -> None:
        """Have the owner of *domain* want reports."""
        record = f"v=TLSRPTv1; rua={rua or f'mailto:tls@{domain}'}".encode()
        self.records[f"_smtp._tls.{domain}"] = DnsAnswer(Found.RECORDS, ((record,),))

    async def ask(self, question: Question) -> DnsAnswer:
        """DNS."""
        self.asked.append(question.name)
        return self.records.get(question.name, DnsAnswer(Found.NO_NAME))

    def process(self, number: str) -> TlsReports:
        """Start one."""
        where = Destination(
            queue="tls", sends=self.sends, submitter=Submitter(name="out.test", contact="pm@out.test"), server_id="s1"
        )
        return TlsReports(
            self.folder,
            TlsTally(self.folder, number, ask=self.ask, clock=self.clock),
            where,
            queues=self.queues,
            ask=self.ask,
            events=EventLog(self.lines, node="test", clock=self.clock, level="debug"),
            clock=self.clock,
            rng=random.Random(1),
        )

    def next_day(self) -> None:
        """Go on to where yesterday's reports are due."""
        self.clock.now = datetime(2026, 1, 3, tzinfo=UTC) + timedelta(seconds=LAST_AFTER_S)

    @property
    def published(self) -> list[dict[str, Any]]:
        """Messages in the queue."""
        return [stored.json for stored in self.queues.stored["tls"]]


def session(failure: ResultType | None = None, judged: Judged = STS, **facts: str) -> TlsSession:
    """A handshake."""
    return TlsSession(judged=judged, mx_host="mx.a.test", failure=failure, **facts)


@pytest.fixture
def instance(tmp_path: Path) -> Instance:
    """Where one domain wants reports."""
    return Instance(tmp_path)


async def test_the_processes_of_an_instance_make_one_report(instance):
    """Whoever is first publishes what all have counted; the others find nothing to do."""
    one, two = instance.process("1"), instance.process("2")
    for process in (one, two):
        process.tally.count("a.test", session())
        process.tally.count("a.test", session("certificate-expired", remote_ip="192.0.2.9"))
        await process.work()
    assert instance.published == []
    instance.next_day()
    await one.work()
    await two.work()
    [message] = instance.published
    [policy] = message["tls-report"]["policies"]
    assert policy["summary"] == {"total-successful-session-count": 2, "total-failure-session-count": 2}
    assert policy["failure-details"] == [
        {
            "result-type": "certificate-expired",
            "receiving-mx-hostname": "mx.a.test",
            "receiving-ip": "192.0.2.9",
            "failed-session-count": 2,
        }
    ]
    assert policy["policy"]["mx-host"] == ["mx.a.test"]
    assert [path.name for path in instance.folder.iterdir()] == ["lock"]


async def test_a_report_is_a_message(instance):
    """Delivery takes it as it is, and it is recognised where it arrives; its own failures are reported to nobody."""
    process = instance.process("1")
    process.tally.count("a.test", session())
    await process.work()
    instance.next_day()
    await process.work()
    [stored] = instance.queues.stored["tls"]
    message = decode_outbox(stored.parcel.body)
    assert (message.recipient, message.envelope, message.message_id) == ("tls@a.test", "", stored.json["message-id"])
    assert stored.parcel.type == "mtaq.outbox.v1"
    read = recognise(message.content, envelope="")
    assert read is not None
    assert read.properties["tls-report"] == stored.json["tls-report"]
    assert instance.lines.of("tls.reported") == [
        {"at": instance.clock.now, "event": "tls.reported", "level": "info", "node": "test", "domain": "a.test",
         "queue": "tls"},
    ]  # fmt: skip


async def test_only_who_wants_reports_is_counted(instance):
    """Others are forgotten when the numbers are written; who cannot be asked is asked again."""
    process = instance.process("1")
    instance.records["_smtp._tls.c.test"] = DnsAnswer(Found.FAILED)
    for domain in ("a.test", "b.test", "c.test"):
        process.tally.count(domain, session())
    await process.work()
    assert set(read_counts(instance.folder.glob("*.json"))) == {"a.test"}
    instance.wants("c.test")
    await process.work()
    assert set(read_counts(instance.folder.glob("*.json"))) == {"a.test", "c.test"}
    assert instance.asked.count("_smtp._tls.a.test") == instance.asked.count("_smtp._tls.b.test") == 1


async def test_who_wants_none_any_more_gets_none(instance):
    """The record is looked at once more before a report is made."""
    process = instance.process("1")
    process.tally.count("a.test", session())
    await process.work()
    instance.records.clear()
    instance.next_day()
    await process.work()
    assert instance.published == []
    assert list(instance.folder.glob("20*")) == []


async def test_a_restart_goes_on_counting(instance):
    """What was written stays, and is added to."""
    for _ in range(3):
        process = instance.process("1")
        await process.tally.load()
        process.tally.count("a.test", session())
        await process.stop()
    [counts] = read_counts(instance.folder.glob("*.json")).values()
    assert counts[STS].successes == 3


async def test_a_day_is_its_own(instance):
    """What is counted after midnight is in the next day's report."""
    process = instance.process("1")
    process.tally.count("a.test", session())
    await process.work()
    instance.next_day()
    process.tally.count("a.test", session())
    await process.work()
    [message] = instance.published
    assert message["tls-report"]["date-range"]["start-datetime"] == f"{DAY}T00:00:00Z"
    instance.clock.forward(86_400)
    await process.work()
    assert len(instance.published) == 2


async def test_an_absent_broker_delays_and_repeats_nothing(instance):
    """Each domain's report is published once, when that is possible; after three days it is dropped."""
    instance.wants("b.test")
    process = instance.process("1")
    for domain in ("a.test", "b.test"):
        process.tally.count(domain, session())
    await process.work()
    instance.next_day()
    instance.queues.down = True
    await process.work()
    assert instance.lines.of("tls.report_held")[0]["domain"] == "a.test"
    instance.queues.down = False
    instance.records["_smtp._tls.b.test"] = DnsAnswer(Found.FAILED)
    await process.work()
    await process.work()
    assert [message["recipient"] for message in instance.published] == ["tls@a.test"]
    restarted = instance.process("1")
    instance.wants("b.test")
    await restarted.work()
    assert [message["recipient"] for message in instance.published] == ["tls@a.test", "tls@b.test"]


async def test_what_cannot_be_published_is_dropped_some_day(instance):
    """A queue that is not there must not fill the disk."""
    process = instance.process("1")
    process.tally.count("a.test", session())
    await process.work()
    instance.queues.missing.add("tls")
    instance.next_day()
    await process.work()
    assert list(instance.folder.glob("20*")) != []
    instance.clock.forward(3 * 86_400)
    await process.work()
    assert list(instance.folder.glob("20*")) == []


@pytest.mark.parametrize(("sends", "expected"), [(True, ["tls@a.test"]), (False, ["tls@a.test", "https://a.test/t"])])
async def test_destinations_that_are_no_addresses_are_for_scripts(tmp_path, sends, expected):
    """The outbox gets what can be sent, without the report beside it; any other queue gets everything."""
    instance = Instance(tmp_path, sends=sends)
    instance.wants("a.test", "mailto:tls@a.test,https://a.test/t")
    process = instance.process("1")
    process.tally.count("a.test", session())
    await process.work()
    instance.next_day()
    await process.work()
    assert [message.get("recipient") or message["rua"] for message in instance.published] == expected
    assert all(("tls-report" in message) is not sends for message in instance.published)


async def test_policies_that_cannot_be_had_are_reported(instance):
    """Of MTA-STS, with the reason."""
    process = instance.process("1")
    process.tally.count_policy("a.test", "sts-policy-fetch-error", "404")
    await process.work()
    [counts] = read_counts(instance.folder.glob("*.json")).values()
    [(failing, times)] = counts[Judged("sts")].failures.items()
    assert (failing.result_type, failing.reason, times) == ("sts-policy-fetch-error", "404", 1)


async def test_counts_are_bounded(instance, monkeypatch):
    """Policies and kinds of failures beyond what is kept are dropped, and counted as that."""
    monkeypatch.setattr(tls_tally, "MAX_POLICIES", 2)
    monkeypatch.setattr(tls_tally, "MAX_FAILURES", 2)
    before = tls_tally.DROPPED._value.get()
    process = instance.process("1")
    for number in range(4):
        process.tally.count("a.test", session("validation-failure", reason=str(number)))
        process.tally.count(f"{number}.test", session())
    assert tls_tally.DROPPED._value.get() - before == 2 + 3
    await process.work()
    process.tally.count("b.test", session())
    assert tls_tally.DROPPED._value.get() - before == 2 + 3


async def test_a_file_that_cannot_be_read_says_nothing(instance):
    """Another version's, or half a disk's; one that cannot be written is written the next time."""
    process = instance.process("1")
    process.tally.count("a.test", session())
    await process.work()
    [path] = instance.folder.glob("*.json")
    whole = path.read_text()
    for broken in ("", "{}", whole.replace('"format": 1', '"format": 2'), "nonsense", '{"format": 1}\n[1]'):
        path.write_text(broken)
        assert read_counts([path]) == {}
    blocked = instance.process("2")
    instance.folder.joinpath(f"{DAY}.2.unfinished").mkdir()
    blocked.tally.count("a.test", session())
    await blocked.work()
    assert instance.lines.of("tls.report_held")
    instance.folder.joinpath(f"{DAY}.2.unfinished").rmdir()
    await blocked.work()
    assert set(read_counts(instance.folder.glob("*.2.json"))) == {"a.test"}
