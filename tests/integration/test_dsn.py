"""Who is told what became of a message: DSN parameters passed on, and notices made, once each, by RFC 3461 and 3464."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from mtaq.model.control import ForcedError
from mtaq.model.identity import MAX_SERVER_ID
from mtaq.model.times import format_time
from mtaq.reports import recognise
from tests.support.delivery import NAMES, START, Stored, World, options, outbox_json, set_entries
from tests.support.fake_mx import OK, FakeMx, Script

DSN = {"EHLO": OK["EHLO"].replace(b"250-PIPELINING", b"250-DSN\r\n250-PIPELINING")}
NO_USER = {"RCPT": b"550 5.1.1 no such user\r\n"}
LATER = {"RCPT": b"450 4.2.0 mailbox busy\r\n"}
ALL = "SUCCESS,FAILURE,DELAY"


@asynccontextmanager
async def relay(*scripts: Script, dsn: str | None = "dsn", **changes: Any) -> AsyncIterator[tuple[World, FakeMx]]:
    """A delivery service that puts notices into the queue *dsn*, and one MX for ``example.com``."""
    names = replace(NAMES, dsn=dsn, server_id="relay1")
    async with FakeMx(*scripts) as mx, World(options=options(delivery_port=mx.port, **changes), names=names) as world:
        world.resolver.add("example.com", (10, "mx.example.com", mx.ip))
        yield world, mx


def notice(world: World, queue: str = "dsn") -> tuple[Stored, dict[str, Any]]:
    """Return the only notice in *queue*, and what its report says of the recipient."""
    [stored] = world.queues.stored[queue]
    report = recognise(stored.json["mime"].encode(), envelope="")
    assert report is not None
    [recipient] = report.to_json()["recipients"]
    return stored, recipient


# What peers are told.


async def test_what_was_asked_is_passed_on_to_a_host_that_announces_dsn():
    """RET and ENVID on MAIL, NOTIFY and ORCPT on RCPT, in xtext (RFC 3461 §4, §5.2.1)."""
    asked = {"notify": "success,Failure", "ret": "full", "orcpt": "rfc822;Bob+Box=1@example.com", "envid": "a b+c"}
    async with relay(Script(replies=DSN)) as (world, mx):
        await world.deliver(outbox_json(dsn=asked))
        assert mx.mail[0].commands == (
            "MAIL FROM:<ada@example.org> SIZE=22 RET=FULL ENVID=a+20b+2Bc",
            "RCPT TO:<bob@example.com> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;Bob+2BBox+3D1@example.com",
        )
        assert world.result("success")["dsn"] is True


async def test_an_orcpt_beyond_ascii_goes_in_ascii():
    """RFC 6533 §3: that form needs no SMTPUTF8."""
    async with relay(Script(replies=DSN)) as (world, mx):
        await world.deliver(outbox_json(dsn={"orcpt": "utf-8;jörg+x@bücher.example"}))
        assert mx.mail[0].commands[1].endswith(r" ORCPT=utf-8;j\x{F6}rg\x{2B}x@b\x{FC}cher.example")


async def test_a_host_that_does_not_announce_it_is_told_nothing():
    """Its parameters would be errors there."""
    async with relay() as (world, mx):
        await world.deliver(outbox_json(dsn={"notify": ALL, "ret": "FULL", "envid": "x", "orcpt": "rfc822;a@b"}))
        assert mx.mail[0].commands == ("MAIL FROM:<ada@example.org> SIZE=22", "RCPT TO:<bob@example.com>")


async def test_nothing_is_asked_in_the_senders_place():
    """What is configured holds for our own notices."""
    async with relay(Script(replies=DSN), dsn_notify=("FAILURE", "DELAY"), dsn_ret="FULL") as (world, mx):
        await world.deliver(outbox_json())
        assert mx.mail[0].commands == ("MAIL FROM:<ada@example.org> SIZE=22", "RCPT TO:<bob@example.com>")


# Failures.


async def test_a_failure_is_told_to_the_sender():
    """From the null reverse-path to the reverse-path, as a message to deliver, with an id of its own and no more."""
    async with relay(Script(replies=NO_USER)) as (world, _):
        dsn = {"envid": "QQ314159", "orcpt": "rfc822;robert@example.com"}
        assert await world.deliver(outbox_json(dsn=dsn, received="2026-01-02 03:00:00")) == "ack"
        stored, recipient = notice(world)
        told = stored.json
        assert (told["envelope"], told["recipient"], told["dsn"]) == ("", "ada@example.org", {"notify": "NEVER"})
        assert told["message-id"] == stored.parcel.correlation_id != "test.1"
        assert told["message-id"].startswith("relay1.")
        assert stored.parcel.type == "mtaq.dsn.v1"
        assert recipient["action"] == "failed"
        assert recipient["status"] == "5.1.1"
        assert recipient["final-recipient"] == "bob@example.com"
        assert "no such user" in recipient["diagnostic-code"]
        mime = told["mime"]
        assert "From: Mail Delivery System <MAILER-DAEMON@out.test>\r\n" in mime
        assert "Original-Envelope-Id: QQ314159\r\n" in mime
        assert "Original-Recipient: rfc822; robert@example.com\r\n" in mime
        assert "Remote-MTA: dns; mx.example.com\r\n" in mime
        assert "Arrival-Date: Fri, 02 Jan 2026 03:00:00 +0000\r\n" in mime
        assert "Subject: hi\r\n" in mime
        assert "hello" not in mime
        assert world.result("failure")["notice"] == "failure"
        assert world.history == ["record", "publish dsn", "publish failure", "publish results", "settle", "ack"]
        [line] = world.lines.of("message.returned")
        assert (line["notice"], line["reverse_path"], line["queue"]) == ("failure", "ada@example.org", "dsn")


@pytest.mark.parametrize(
    ("asked", "configured", "returned"), [("FULL", "HDRS", True), ("HDRS", "FULL", False), (None, "FULL", True)]
)
async def test_ret_says_how_much_comes_back(asked: str | None, configured: Any, returned: bool):
    """What the sender asked for, else what is configured."""
    async with relay(Script(replies=NO_USER), dsn_ret=configured) as (world, _):
        await world.deliver(outbox_json(dsn={"ret": asked}))
        assert ("hello" in notice(world)[0].json["mime"]) is returned


@pytest.mark.parametrize(
    ("message", "configured"),
    [
        ({"envelope": ""}, ("FAILURE",)),
        ({"dsn": {"notify": "NEVER"}}, ("FAILURE",)),
        ({"dsn": {"notify": "SUCCESS,DELAY"}}, ("FAILURE",)),
        ({}, ("NEVER",)),
        ({}, ("DELAY",)),
        ({"queues": {"dsn": None}}, ("FAILURE",)),
        ({"envelope": "not an address"}, ("FAILURE",)),
    ],
)
async def test_who_did_not_ask_is_told_nothing(message: dict[str, Any], configured: Any):
    """Never the null reverse-path, so there is no loop; never against NOTIFY; not where no notices are made."""
    async with relay(Script(replies=NO_USER), dsn_notify=configured) as (world, _):
        assert await world.deliver(outbox_json(**message)) == "ack"
        assert world.queues.stored["dsn"] == []
        assert "notice" not in world.result("failure")


async def test_without_a_queue_for_notices_none_are_made():
    """That is how it is installed; a message can name one, also the outbox."""
    async with relay(Script(replies=NO_USER), dsn=None) as (world, _):
        await world.deliver(outbox_json())
        assert world.queues.stored["dsn"] == []
        await world.deliver(outbox_json(queues={"dsn": "outbox"}))
        notice(world, "outbox")


async def test_a_notice_that_cannot_be_delivered_makes_none():
    """The outbox is where notices go; the one to a sender who does not exist is the last."""
    async with relay(Script(replies=NO_USER), dsn="outbox") as (world, _):
        world.resolver.mx["example.org"] = world.resolver.mx["example.com"]
        await world.deliver(outbox_json())
        [stored] = world.queues.stored.pop("outbox")
        assert await world.deliver(stored.parcel.body, headers=stored.parcel.headers) == "ack"
        assert world.queues.stored["outbox"] == []
        assert len(world.queues.stored["failure"]) == 2


async def test_an_expired_message_is_a_failure():
    """What was said last stands in the notice."""
    async with relay(Script(replies=LATER)) as (world, _):
        await world.deliver(outbox_json(maxdelivertime="2026-01-02 03:04:30"))
        stored, recipient = notice(world)
        assert (recipient["action"], recipient["status"]) == ("failed", "5.4.7")
        assert "mailbox busy" in recipient["diagnostic-code"]
        assert "not delivered before 2026-01-02 03:04 UTC" in " ".join(stored.json["mime"].split())


async def test_a_message_that_comes_out_too_late_is_a_failure_as_well():
    """Without an attempt, so the one before has the word."""
    async with relay() as (world, mx):
        before = [{"attempt": 1, "description": "mailbox busy", "result": "error"}]
        await world.deliver(outbox_json(maxdelivertime="2026-01-02 03:04:00", results=before))
        stored, recipient = notice(world)
        assert (recipient["status"], recipient.get("diagnostic-code")) == ("5.4.7", None)
        assert "mailbox busy" in " ".join(stored.json["mime"].split())
        assert mx.dialogs == []


async def test_a_failure_without_a_peer_has_our_words():
    """A domain that does not exist, a recipient that is no address, an error that an operator forces."""
    async with relay() as (world, _):
        error = ForcedError(
            id="one", created_at=START, pattern="forced.example", code=550, status="5.2.1", text="closed by hand"
        )
        set_entries(world.control, "forced_errors", error)
        for recipient, words in [
            ("bob@gone.example", "does not exist"),
            ("no address", "recipient:"),
            ("bob@forced.example", "closed by hand"),
        ]:
            world.queues.stored.clear()
            await world.deliver(outbox_json(recipient))
            stored, found = notice(world)
            assert words in " ".join(stored.json["mime"].split())
            assert found["action"] == "failed"
            assert "diagnostic-code" not in found


async def test_what_we_do_not_offer_a_host_is_not_put_into_its_mouth():
    """Its SIZE is too small; it was never asked."""
    async with relay(Script(replies={"EHLO": b"250-mx\r\n250 SIZE 20\r\n"})) as (world, _):
        await world.deliver(outbox_json())
        stored, found = notice(world)
        assert found["status"] == "5.3.4"
        assert "Diagnostic-Code" not in stored.json["mime"]


async def test_the_sender_of_notices_can_be_named():
    """``dsn-from`` stands in the header section; the reverse-path stays the null one."""
    async with relay(Script(replies=NO_USER), dsn_from="postmaster@example.net") as (world, _):
        await world.deliver(outbox_json())
        assert "<postmaster@example.net>" in notice(world)[0].json["mime"]


async def test_who_writes_beyond_ascii_gets_a_notice_to_read():
    """It is sent with SMTPUTF8."""
    async with relay(Script(replies=NO_USER)) as (world, _):
        await world.deliver(outbox_json(envelope="jörg@example.org", smtputf8=True))
        [stored] = world.queues.stored["dsn"]
        assert (stored.json["recipient"], stored.json["smtputf8"]) == ("jörg@example.org", True)


async def test_a_notice_that_is_too_large_comes_without_the_content():
    """A queue that refuses it gets a shorter one."""
    async with relay(Script(replies=NO_USER)) as (world, _):
        world.queues.most_bytes = 6000
        await world.deliver(outbox_json(dsn={"ret": "FULL"}, mime="Subject: big\r\n\r\n" + "x" * 5000))
        assert "xxx" not in notice(world)[0].json["mime"]
        assert world.queues.stored["dead"] == []


async def test_a_notice_whose_queue_is_missing_goes_to_the_dead_queue():
    """With the reason; the result is not held up by it."""
    async with relay(Script(replies=NO_USER)) as (world, _):
        world.queues.missing = {"dsn"}
        assert await world.deliver(outbox_json()) == "ack"
        [dead] = world.queues.stored["dead"]
        assert dead.json["recipient"] == "ada@example.org"
        assert "refuses the notice" in str(dead.parcel.headers["reason"])
        assert len(world.queues.stored["failure"]) == 1


# Delays.


async def test_a_delay_is_told_once():
    """After ``dsn-delay-after`` seconds of trying, to who asked; not again at the next attempt."""
    async with relay(Script(replies=LATER), dsn_delay_after=900) as (world, _):
        message: Any = outbox_json(dsn={"notify": "DELAY"})
        made = []
        for _ in range(4):
            await world.deliver(message)
            [retry] = world.queues.stored.pop("outbox")
            message = retry.json
            made.append(len(world.queues.stored["dsn"]))
            world.clock.forward(1800)
        assert made == [0, 1, 1, 1]
        stored, recipient = notice(world)
        assert (recipient["action"], recipient["status"]) == ("delayed", "4.2.0")
        until = START + timedelta(seconds=86400)
        assert f"Will-Retry-Until: {until:%a, %d %b %Y %H:%M:%S} +0000\r\n" in stored.json["mime"]
        assert [item.get("notice") for item in message["results"]] == [None, "delay", None, None]


@pytest.mark.parametrize("notify", [None, "FAILURE", "SUCCESS", "NEVER"])
async def test_a_delay_is_not_told_to_who_did_not_ask(notify: str | None):
    """The default is to tell of failures alone."""
    async with relay(Script(replies=LATER), dsn_delay_after=1) as (world, _):
        await world.deliver(outbox_json(dsn={"notify": notify}, seen=format_time(START - timedelta(hours=3))))
        assert world.queues.stored["dsn"] == []
        assert len(world.queues.stored["outbox"]) == 1


# Successes.


async def test_a_success_is_told_where_the_peer_cannot():
    """To a host without DSN the message is relayed, and that is the last notice (RFC 3461 §5.2.2)."""
    async with relay() as (world, _):
        await world.deliver(outbox_json(dsn={"notify": "SUCCESS", "ret": "FULL"}))
        stored, recipient = notice(world)
        assert (recipient["action"], recipient["status"]) == ("relayed", "2.0.0")
        assert "hello" not in stored.json["mime"]
        assert world.result("success")["notice"] == "success"


async def test_a_host_that_announces_dsn_tells_of_the_success_itself():
    """It took that over with the message; of a failure there we tell."""
    async with relay(Script(replies=DSN)) as (world, _):
        await world.deliver(outbox_json(dsn={"notify": "SUCCESS"}))
        assert world.queues.stored["dsn"] == []
    async with relay(Script(replies={**DSN, **NO_USER})) as (world, _):
        await world.deliver(outbox_json(dsn={"notify": "SUCCESS,FAILURE"}))
        assert notice(world)[1]["action"] == "failed"


# Once.


@pytest.mark.parametrize("script", [Script(), Script(replies=NO_USER), Script(replies=LATER)])
async def test_the_notice_of_one_event_is_the_same_however_often_it_is_made(script: Script):
    """After a crash between journal and ack: same body, same ids, so delivery and consumers know the second one."""
    async with relay(script, dsn_delay_after=1) as (world, _):
        message = outbox_json(dsn={"notify": ALL}, seen=format_time(START - timedelta(hours=1)))
        await world.deliver(message, message_id="m1")
        [first] = world.queues.stored["dsn"]
        for entry in world.journal.entries.values():
            entry.settled = False
        world.clock.forward(7)
        await world.deliver(message, message_id="m1", redelivered=True)
        [_, second] = world.queues.stored["dsn"]
        assert (first.parcel.message_id is not None, second.parcel) == (True, first.parcel)


async def test_of_two_copies_of_a_notice_one_is_sent():
    """Delivery gets both, and knows the second by its id."""
    async with relay(Script(replies=NO_USER), Script(), dsn="outbox", delivery_idle=0) as (world, mx):
        world.resolver.mx["example.org"] = world.resolver.mx["example.com"]
        await world.deliver(outbox_json())
        [stored] = world.queues.stored.pop("outbox")
        await mx.wait_for(lambda: mx.open == 0)
        for _ in range(2):
            parcel = stored.parcel
            assert await world.deliver(parcel.body, message_id=parcel.message_id, headers=parcel.headers) == "ack"
        [mail] = [mail for mail in mx.mail if mail.content]
        assert b"multipart/report" in mail.content
        assert mail.commands[0].startswith("MAIL FROM:<> ")


async def test_what_nothing_else_follows_from_is_settled_behind_the_notice():
    """Without any queue for results the notice alone is what must be confirmed."""
    names = replace(NAMES, results=None, success=None, failure=None, retry=None, dsn="dsn")
    async with (
        FakeMx(Script(replies=NO_USER)) as mx,
        World(options=options(delivery_port=mx.port), names=names) as world,
    ):
        world.resolver.add("example.com", (10, "mx.example.com", mx.ip))
        await world.deliver(outbox_json())
        assert world.history == ["record", "publish dsn", "settle", "ack"]


@pytest.mark.parametrize(
    "dsn",
    [
        {"notify": "SOMETIMES"},
        {"notify": "NEVER,DELAY"},
        {"notify": ["FAILURE"]},
        {"ret": "HALF"},
        {"orcpt": "bob@example.com"},
        {"orcpt": "rfc822;bob@example.com\r\nX: y"},
        {"envid": "a\nb"},
        {"envid": "x" * 101},
    ],
)
async def test_what_cannot_be_understood_is_not_guessed(dsn: dict[str, Any]):
    """It goes to the dead queue, with the reason."""
    async with relay() as (world, mx):
        await world.deliver(outbox_json(dsn=dsn))
        [dead] = world.queues.stored["dead"]
        assert str(dead.parcel.headers["reason"]).startswith("dsn.")
        assert mx.dialogs == []


async def test_ids_of_notices_are_as_long_as_others():
    """Sixty-four characters at most."""
    async with relay(Script(replies=NO_USER)) as (world, _):
        assert len(world.names.server_id) <= MAX_SERVER_ID
        await world.deliver(outbox_json())
        assert len(notice(world)[0].json["message-id"]) <= 64


async def test_a_bug_in_composing_costs_the_notice_and_nothing_else(monkeypatch: pytest.MonkeyPatch):
    """It is logged; the result is published, and the message does not come back for ever."""
    monkeypatch.setattr("mtaq.deliver.results.make_notice", lambda *_, **__: 1 / 0)
    async with relay(Script(replies=NO_USER)) as (world, _):
        assert await world.deliver(outbox_json()) == "ack"
        assert (len(world.queues.stored["failure"]), world.queues.stored["dsn"]) == (1, [])
        assert len(world.lines.of("bug")) == 1
