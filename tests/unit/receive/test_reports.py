"""Reports among local mail: where their copies go, how large they are, and that they are never refused."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from mtaq.model.address import Address
from mtaq.model.parcel import INBOX_TYPE, REPORT_TYPE, Parcel
from mtaq.receive import reports
from mtaq.receive.intake import Intake, IntakeOptions
from mtaq.smtp.server_session import Transaction
from tests.unit.receive.fakes import NOW, State, event_log, facts, no_evidence, policy
from tests.unit.reports.mails import AGGREGATE, aggregate_mail, dsn_mail

OURS = Address("bounces", "local.example")
VERP = Address("bounces+gone=remote.example", "local.example")
GRACE = Address("grace", "example.com")
ARCHIVE = Address("archive", "local.example")
PLAIN = b"Subject: hello\r\n\r\nhello\r\n"


class Publisher:
    """Confirms at once."""

    def __init__(self) -> None:
        self.parcels: list[tuple[str, Parcel]] = []

    async def publish(self, queue: str, parcel: Parcel, *, timeout_s: float) -> None:
        """Keep it."""
        self.parcels.append((queue, parcel))

    def routes(self) -> list[tuple[str, str, str, str | None]]:
        """Return queue, AMQP type, recipient and type of report of each."""
        found = []
        for queue, parcel in self.parcels:
            message = orjson.loads(parcel.body)
            found.append((queue, parcel.type, message["recipient"], message.get("report", {}).get("type")))
        return found


async def take(
    content: bytes,
    *recipients: Address,
    archive: str = "",
    broker_max_bytes: int | None = None,
    envelope: Address | None = None,
    **queues: Any,
) -> tuple[int, Publisher, list[dict[str, Any]]]:
    """Take a message; return the reply's code, what was published, and what was logged."""
    publisher, state = Publisher(), State()
    state.local |= {OURS, VERP, ARCHIVE}
    events, lines = event_log()
    options = IntakeOptions(**{"inbox": "inbox", "local": "local", "reports": "reports", **queues}, server_id="test",
                            broker_max_bytes=broker_max_bytes)  # fmt: skip
    intake = Intake(options, publisher=publisher, addresses=state, evidence=no_evidence(publisher), events=events,  # type: ignore[arg-type]  # it needs no state
                    clock=lambda: NOW)  # fmt: skip
    made = Transaction(reverse_path=envelope, size_bytes=None, body="8bitmime", smtputf8=False)
    made.forward_paths.extend(recipients)
    port_policy = policy(**({"smtp_archive": archive} if archive else {}))
    reply = await intake.take(made, content, facts(port_policy))
    return reply.code, publisher, lines.records


async def test_each_recipients_copy_goes_where_it_belongs() -> None:
    """The local one is a report, the other is mail on its way."""
    code, published, _ = await take(dsn_mail(), OURS, GRACE)
    assert code == 250
    assert published.routes() == [
        ("reports", REPORT_TYPE, str(OURS), "dsn"),
        ("inbox", INBOX_TYPE, str(GRACE), None),
    ]


@pytest.mark.parametrize(
    ("queues", "queue"), [({"reports": None}, "local"), ({"reports": None, "local": None}, "inbox")]
)
async def test_without_a_queue_of_their_own(queues: dict[str, None], queue: str) -> None:
    """They go where other local mail goes, as that, and with what they say."""
    _, published, _ = await take(dsn_mail(), OURS, **queues)
    assert published.routes() == [(queue, INBOX_TYPE, str(OURS), "dsn")]


async def test_a_queue_for_reports_alone() -> None:
    """Where all other mail is discarded, reports are kept."""
    _, published, _ = await take(dsn_mail(), OURS, local=None, inbox=None)
    assert published.routes() == [("reports", REPORT_TYPE, str(OURS), "dsn")]
    _, published, _ = await take(PLAIN, OURS, local=None, inbox=None)
    assert published.routes() == []


async def test_ordinary_local_mail() -> None:
    """It has no such property."""
    _, published, lines = await take(PLAIN, OURS)
    assert published.routes() == [("local", INBOX_TYPE, str(OURS), None)]
    assert [line["event"] for line in lines] == ["message.accepted"]


async def test_the_archives_copy_is_no_report() -> None:
    """An archive at a local address gets its copy where local mail goes, whatever is copied."""
    _, published, _ = await take(dsn_mail(), OURS, archive=str(ARCHIVE))
    assert published.routes() == [
        ("reports", REPORT_TYPE, str(OURS), "dsn"),
        ("local", INBOX_TYPE, str(ARCHIVE), None),
    ]
    _, published, _ = await take(dsn_mail(), GRACE, archive=str(ARCHIVE))
    assert [route[0] for route in published.routes()] == ["local", "inbox"]


async def test_whom_the_address_was_made_for() -> None:
    """With one local recipient its address may say so; with two it says nothing."""
    for recipients, named in (([VERP], "gone@remote.example"), ([VERP, OURS], None)):
        _, published, _ = await take(dsn_mail(), *recipients)
        assert orjson.loads(published.parcels[0][1].body)["report"].get("verp") == named


async def test_each_report_is_told_and_counted() -> None:
    """The log names its kind and its id."""
    before = reports.RECOGNISED.labels("dmarc")._value.get()
    _, published, lines = await take(aggregate_mail(), OURS, envelope=GRACE)
    [line] = [line for line in lines if line["event"] == "report.recognised"]
    assert (line["report"], line["reverse_path"], line["forward_path"]) == ("dmarc", str(GRACE), str(OURS))
    assert published.parcels[0][1].correlation_id == f"{line['message_id']}.1"
    assert reports.RECOGNISED.labels("dmarc")._value.get() == before + 1


async def test_an_error_of_ours_keeps_nothing_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Should reading fail, it is ordinary mail, and the log has the bug."""

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("oh")

    monkeypatch.setattr(reports, "recognise", broken)
    code, published, lines = await take(dsn_mail(), OURS)
    assert (code, published.routes()) == (250, [("local", INBOX_TYPE, str(OURS), None)])
    assert "bug" in [line["event"] for line in lines]


RECORD = AGGREGATE[AGGREGATE.index(b"<record>") : AGGREGATE.index(b"</feedback>")]
LONG = aggregate_mail(AGGREGATE.replace(RECORD, RECORD * 2000))


@pytest.mark.parametrize("room", [20, 100, 5000, 200_000])
async def test_what_is_said_never_makes_a_message_too_large(room: int) -> None:
    """Where the broker takes little more than the content, less is told of the report, or nothing."""
    most = reports.BESIDE_BYTES + (len(LONG) + 2) // 3 * 4 + room
    code, published, _ = await take(LONG, OURS, broker_max_bytes=most)
    assert code == 250
    ((queue, parcel),) = published.parcels
    assert len(parcel.body) <= most
    assert queue == ("local" if room < reports.LEAST_BYTES else "reports")
    report = orjson.loads(parcel.body).get("report", {})
    assert len(orjson.dumps(report)) <= room
    assert report.get("truncated") is (None if queue == "local" else True)


async def test_a_few_are_read_at_once() -> None:
    """Many at the same time all come through, in turn."""
    done = await asyncio.gather(*(take(LONG, OURS) for _ in range(8)))
    assert [published.routes()[0][0] for _, published, _ in done] == ["reports"] * 8
