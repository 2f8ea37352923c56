"""No message is acked before what follows from it is safe, none is sent twice, and each comes to an outcome."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import orjson
import pytest

from mtaq.broker.claims import Claims
from mtaq.broker.journal import Journal
from mtaq.deliver.report import REDELIVERED
from mtaq.model.errors import BrokerUnavailable, NoSuchDomain, ResolverTimeout, TopologyMismatch
from mtaq.model.parcel import BrokerState
from mtaq.model.times import format_time
from tests.support.delivery import NAMES, START, World, options, outbox_json
from tests.support.fake_mx import FakeMx, Script


@asynccontextmanager
async def relay(*scripts: Script, **changes) -> AsyncIterator[tuple[World, FakeMx]]:
    """A delivery service, and one MX for ``example.com`` with these scripts."""
    world_changes = {name: changes.pop(name) for name in ("names", "declare", "journal", "claims") if name in changes}
    async with (
        FakeMx(*scripts) as mx,
        World(options=options(delivery_port=mx.port, **changes), **world_changes) as world,
    ):
        world.resolver.add("example.com", (10, "mx.example.com", mx.ip))
        yield world, mx


TRANSIENT = Script(replies={"RCPT": b"450 4.2.0 later\r\n"})
PERMANENT = Script(replies={"RCPT": b"550 5.1.1 no\r\n"})


# The order of safety.


@pytest.mark.parametrize(
    ("script", "history"),
    [
        (Script(), ["record", "publish success", "publish results", "settle", "ack"]),
        (PERMANENT, ["record", "publish failure", "publish results", "settle", "ack"]),
        (TRANSIENT, ["record", "publish outbox", "publish retry", "settle", "ack"]),
    ],
    ids=["delivered", "failed", "deferred"],
)
async def test_journal_then_results_then_ack(script, history):
    """The outbox message is acked only after its outcome is on disk and what follows is confirmed."""
    async with relay(script) as (world, _):
        await world.deliver(outbox_json())
        assert world.history == history


async def test_nothing_is_acked_while_the_broker_is_away():
    """The results are published again and again; the ack waits for them, and nothing is sent twice."""
    async with relay() as (world, mx):
        world.queues.down = True
        consumed = world.queues.hand_out(outbox_json())
        await mx.wait_for(lambda: mx.mail)
        while len(world.slept) < 10:
            await asyncio.sleep(0.001)
        assert world.history == ["record"]
        assert world.slept[:7] == [0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 30.0]
        world.queues.down = False
        assert await consumed.outcome() == "ack"
        assert world.history == ["record", "publish success", "publish results", "settle", "ack"]
        assert len(mx.mail) == 1


async def test_nothing_is_published_before_the_journal_has_it():
    """A journal that cannot be written holds everything up, and is tried again."""
    async with relay() as (world, mx):
        world.journal.failures = [BrokerUnavailable("disk full")] * 3
        await world.deliver(outbox_json())
        assert world.slept == [0.5, 1.0, 2.0]
        assert world.history == ["record", "publish success", "publish results", "settle", "ack"]
        assert len(mx.mail) == 1


async def test_no_attempt_begins_while_the_journal_cannot_be_written():
    """What is sent then would be sent again after a restart; it goes out when the disk has room again."""
    async with relay() as (world, mx):
        world.journal.state = BrokerState.DOWN
        consumed = world.queues.hand_out(outbox_json())
        while len(world.slept) < 10:
            await asyncio.sleep(0.001)
        assert mx.dialogs == []
        world.journal.state = BrokerState.UP
        assert await consumed.outcome() == "ack"
        assert len(mx.mail) == 1


async def test_who_waits_for_the_journal_is_given_back_when_stopping():
    """Nothing was begun."""
    async with relay() as (world, mx):
        world.journal.state = BrokerState.DOWN
        consumed = world.queues.hand_out(outbox_json())
        while not world.slept:
            await asyncio.sleep(0.001)
        await world.service.stop(grace_s=20)
        assert consumed.settled.result() == "requeue"
        assert mx.dialogs == []


async def test_the_journal_has_it_before_anything_else_is_done():
    """A bug in the reporting comes too late to have the mail sent again."""
    async with relay() as (world, mx):
        message, report = outbox_json(), world.service._reporter.report
        world.service._reporter.report = lambda *_: 1 / 0
        assert await world.deliver(message, message_id="m1") == "requeue"
        world.service._reporter.report = report
        assert await world.deliver(message, message_id="m1", redelivered=True) == "ack"
        assert len(mx.mail) == 1
        assert len(world.queues.stored["success"]) == 1


# Once, and only once.


async def test_a_redelivered_message_that_was_settled_is_only_acked():
    """The ack was lost; everything else was done."""
    async with relay() as (world, mx):
        message = outbox_json()
        await world.deliver(message, message_id="m1")
        del world.history[:]
        assert await world.deliver(message, message_id="m1", redelivered=True) == "ack"
        assert world.history == ["ack"]
        assert len(mx.mail) == 1
        [line] = world.lines.of("delivery.duplicate")
        assert line["outcome"] == "delivered"


@pytest.mark.parametrize("script", [Script(), TRANSIENT, PERMANENT])
async def test_what_follows_is_done_again_exactly_so(script):
    """After a crash between journal and ack the same messages are published, with the same identity; none is sent."""
    async with relay(script) as (world, mx):
        message = outbox_json()
        await world.deliver(message, message_id="m1")
        first, dialogs = dict(world.queues.stored), [list(dialog) for dialog in mx.dialogs]
        for entry in world.journal.entries.values():
            entry.settled = False
        world.queues.stored.clear()
        world.clock.forward(60)
        del world.history[:]
        assert await world.deliver(message, message_id="m1", redelivered=True) == "ack"
        assert {queue: [stored.parcel for stored in queued] for queue, queued in world.queues.stored.items()} == {
            queue: [stored.parcel for stored in queued] for queue, queued in first.items()
        }
        assert "record" not in world.history
        assert world.history[-2:] == ["settle", "ack"]
        assert [dialog for dialog in mx.dialogs if "DATA" in dialog] == [d for d in dialogs if "DATA" in d]


async def test_of_two_retry_copies_one_is_sent():
    """A crash may leave two copies with the same identity in the outbox; the second is recognised."""
    async with relay(TRANSIENT, Script(), delivery_idle=0) as (world, mx):
        await world.deliver(outbox_json())
        [retry] = world.queues.stored["outbox"]
        world.clock.forward(retry.delay_s)
        for _ in range(2):
            assert await world.deliver(retry.parcel.body, message_id=retry.parcel.message_id) == "ack"
        assert [dialog.count("DATA") for dialog in mx.dialogs] == [1, 1]
        assert len(world.lines.of("delivery.duplicate")) == 1


async def test_a_copy_that_comes_while_the_first_is_under_way_waits_for_its_end():
    """The broker was lost in between: the redelivered copy is not sent, and both are settled."""
    async with relay() as (world, mx):
        mx.gate.clear()
        first = world.queues.hand_out(outbox_json(), message_id="m1")
        await mx.wait_for(lambda: mx.dialogs and mx.dialogs[0][-1:] == ["DATA"])
        second = world.queues.hand_out(outbox_json(), message_id="m1", redelivered=True)
        while len(world.slept) < 3:
            await asyncio.sleep(0.001)
        assert not second.settled.done()
        mx.gate.set()
        assert [await first.outcome(), await second.outcome()] == ["ack", "ack"]
        assert len(mx.mail) == 1
        assert world.claims.held == set()


async def test_of_two_processes_one_sends(tmp_path: Path):
    """They share journal and claims, and the broker gave the message to both: the other one waits for the end."""
    async with AsyncExitStack() as stack:
        mx = await stack.enter_async_context(FakeMx())
        worlds = []
        for _ in range(2):
            journal, claims = Journal(tmp_path), Claims(tmp_path / "claims")
            await journal.start()
            stack.push_async_callback(journal.close)
            stack.callback(claims.close)
            world = World(options=options(delivery_port=mx.port), journal=journal, claims=claims)
            world.resolver.add("example.com", (10, "mx.example.com", mx.ip))
            worlds.append(await stack.enter_async_context(world))
        mx.gate.clear()
        one, other = worlds
        first = one.queues.hand_out(outbox_json(), message_id="m1")
        await mx.wait_for(lambda: mx.dialogs and mx.dialogs[0][-1:] == ["DATA"])
        second = other.queues.hand_out(outbox_json(), message_id="m1", redelivered=True)
        while len(other.slept) < 3:
            await asyncio.sleep(0.001)
        mx.gate.set()
        assert [await first.outcome(), await second.outcome()] == ["ack", "ack"]
        assert (len(mx.dialogs), len(mx.mail)) == (1, 1)
        assert len(other.lines.of("delivery.duplicate")) == 1


async def test_two_publishes_of_equal_json_are_two_messages():
    """They differ by their AMQP message_id, and without one as well."""
    async with relay() as (world, mx):
        for message_id in (None, None, "", ""):
            await world.deliver(outbox_json(), message_id=message_id)
        both = [world.queues.hand_out(outbox_json(), message_id="") for _ in range(2)]
        for consumed in both:
            assert await consumed.outcome() == "ack"
        assert len(mx.mail) == 6
        assert world.journal.asked == 0


async def test_a_script_that_published_again_says_so():
    """The header ``redelivered`` makes delivery ask the journal."""
    async with relay() as (world, mx):
        for _ in range(2):
            await world.deliver(outbox_json(), message_id="m1", headers={"redelivered": True})
        assert len(mx.mail) == 1


async def test_the_first_copy_may_come_after_the_one_that_says_so():
    """A broker that was killed hands out two publishes of one message in any order; the first says nothing."""
    async with relay() as (world, mx):
        await world.deliver(outbox_json(), message_id="m1", headers={"redelivered": True})
        await world.deliver(outbox_json(), message_id="m1")
        assert len(mx.mail) == 1
        assert len(world.lines.of("delivery.duplicate")) == 1


async def test_a_message_in_other_hands_for_long_is_sent_away_for_a_while():
    """It keeps its identity and says that it may have been dealt with; until then it took up a place here."""
    async with relay() as (world, mx):
        take, world.claims.take = world.claims.take, lambda key: False
        assert await world.deliver(outbox_json(), message_id="m1", headers={"traceparent": "t"}) == "ack"
        assert world.history == ["publish outbox", "ack"]
        [away] = world.queues.stored["outbox"]
        assert (away.delay_s, away.json, away.parcel.message_id) == (60, outbox_json(), "m1")
        assert away.parcel.headers == {"traceparent": "t", "redelivered": True}
        world.claims.take = take
        for _ in range(2):
            await world.deliver(away.parcel.body, message_id="m1", headers=dict(away.parcel.headers))
        assert len(mx.mail) == 1


async def test_without_an_identity_a_message_in_other_hands_waits():
    """Sent away, or given back, it could be taken for the other one and never be sent."""
    async with relay() as (world, mx):
        take, world.claims.take = world.claims.take, lambda key: False
        consumed = world.queues.hand_out(outbox_json(), message_id="")
        while len(world.slept) < 200:
            await asyncio.sleep(0.001)
        assert not consumed.settled.done()
        world.claims.take = take
        assert await consumed.outcome() == "ack"
        assert len(mx.mail) == 1


async def test_who_waits_for_a_claim_on_a_lost_connection_goes_away():
    """The broker hands the message out again: each loss of the connection would add one that waits."""
    async with relay() as (world, _):
        world.claims.take = lambda key: False
        consumed = world.queues.hand_out(outbox_json(), message_id="m1")
        while len(world.slept) < 3:
            await asyncio.sleep(0.001)
        consumed.is_stale = True
        assert await consumed.outcome() == "requeue"


async def test_with_the_real_journal_across_a_restart(tmp_path: Path):
    """What one process recorded, the next one recognises."""
    message = outbox_json()
    async with FakeMx() as mx:
        for number in range(2):
            journal, claims = Journal(tmp_path), Claims(tmp_path / "claims")
            await journal.start()
            async with World(options=options(delivery_port=mx.port), journal=journal, claims=claims) as world:
                world.resolver.add("example.com", (10, "mx.example.com", mx.ip))
                assert await world.deliver(message, message_id="m1", redelivered=number > 0) == "ack"
            await journal.close()
            claims.close()
        assert len(mx.mail) == 1


# Every message comes to an outcome.


async def test_a_deferred_message_goes_back_with_its_history():
    """The retry copy keeps every property, and knows when it was first seen and when it is next tried."""
    async with relay(TRANSIENT) as (world, _):
        message = outbox_json(
            tags=["x"], strange={"a": [1]}, nextattempt={"note": "kept"}, results=[{"attempt": 1, "state": "dns"}]
        )
        await world.deliver(message, headers={"traceparent": "00-1-2-03", "x-death": "no"})
        [retry] = world.queues.stored["outbox"]
        assert retry.delay_s == 600
        assert retry.parcel.type == "mtaq.outbox.v1"
        assert retry.parcel.headers == {"traceparent": "00-1-2-03", "parked-site": "mx.example.com"}
        assert (retry.parcel.priority, retry.parcel.correlation_id) == (3, "test.1")
        body = retry.json
        assert body["nextattempt"] == {"note": "kept", "time": "2026-01-02 03:14:05"}
        assert body["seen"] == "2026-01-02 03:04:05"
        assert [item["attempt"] for item in body["results"]] == [1, 2]
        assert {**body, "results": 0, "nextattempt": 0, "seen": 0} == {
            **message, "results": 0, "nextattempt": 0, "seen": 0,
        }  # fmt: skip
        copy = world.queues.stored["retry"][0].json
        assert copy["results"] == body["results"]
        assert "mime" not in copy


async def test_a_message_is_tried_until_its_time_is_over():
    """The waits are the configured ones; the last attempt fails when the next would come too late."""
    async with relay(TRANSIENT, retry_interval=(600, 3600), max_delivertime=10_000) as (world, _):
        body, message_id, waits = orjson.dumps(outbox_json()), None, []
        while True:
            await world.deliver(body, message_id=message_id)
            if not world.queues.stored["outbox"]:
                break
            retry = world.queues.stored["outbox"].pop()
            waits.append(retry.delay_s)
            world.clock.forward(retry.delay_s)
            body, message_id = retry.parcel.body, retry.parcel.message_id
        assert waits == [600, 3600, 3600]
        [failure] = world.queues.stored["failure"]
        assert [item["attempt"] for item in failure.json["results"]] == [1, 2, 3, 4]
        assert failure.json["results"][-1]["code"] == 450


@pytest.mark.parametrize(
    ("properties", "queue", "attempts"),
    [
        ({"maxattempts": 1}, "failure", 1),
        ({"maxattempts": 2}, "retry", 1),
        ({"retries": [7]}, "retry", 1),
        ({"maxdelivertime": format_time(START + timedelta(minutes=9))}, "failure", 1),
        ({"maxdelivertime": format_time(START)}, "failure", 0),
    ],
)
async def test_a_message_may_have_its_own_limits(properties, queue, attempts):
    """``maxattempts``, ``retries`` and ``maxdelivertime`` go before the configuration."""
    async with relay(TRANSIENT) as (world, mx):
        await world.deliver(outbox_json(**properties))
        result = world.result(queue)
        assert len(mx.dialogs) == attempts
        if not attempts:
            assert (result["state"], result["result"]) == ("process", "timeout")
        if "retries" in properties:
            assert world.queues.stored["outbox"][0].delay_s == 7


async def test_a_message_that_is_not_due_is_parked():
    """It goes back to the outbox as it is, confirmed before the ack; that is no attempt and no result."""
    async with relay() as (world, mx):
        message = outbox_json(nextattempt={"time": format_time(START + timedelta(days=40))})
        await world.deliver(message)
        assert world.history == ["publish outbox", "ack"]
        [parked] = world.queues.stored["outbox"]
        assert parked.json == message
        assert parked.delay_s == timedelta(days=40).total_seconds()
        world.clock.forward(parked.delay_s)
        for _ in range(2):  # a crash between publish and ack leaves two
            await world.deliver(
                parked.parcel.body, message_id=parked.parcel.message_id, headers=dict(parked.parcel.headers)
            )
        assert len(mx.mail) == 1


async def test_copies_of_a_parked_message_are_one_message_on_whatever_trips():
    """One of them may come out early and be parked again: it keeps its identity, and one is sent."""
    async with relay() as (world, mx):
        message = outbox_json(nextattempt={"time": format_time(START + timedelta(seconds=100))})
        await world.deliver(message, message_id="m1")
        await world.deliver(message, message_id="m1", redelivered=True)  # the ack of the first was lost
        one, other = world.queues.stored.pop("outbox")
        world.clock.forward(98)
        await world.deliver(one.parcel.body, message_id=one.parcel.message_id, headers=dict(one.parcel.headers))
        [again] = world.queues.stored["outbox"]
        assert again.delay_s == 2
        world.clock.forward(2)
        for parcel in (other.parcel, again.parcel):
            assert parcel.message_id == "m1"
            await world.deliver(parcel.body, message_id=parcel.message_id, headers=dict(parcel.headers))
        assert len(mx.mail) == 1


async def test_equal_messages_without_identity_are_both_sent_when_they_were_parked():
    """Two publishes of one JSON, both meant."""
    async with relay() as (world, mx):
        message = outbox_json(nextattempt={"time": format_time(START + timedelta(seconds=100))})
        for _ in range(2):
            await world.deliver(message, message_id="")
        world.clock.forward(100)
        for stored in world.queues.stored.pop("outbox"):
            parcel = stored.parcel
            await world.deliver(parcel.body, message_id=parcel.message_id, headers=dict(parcel.headers))
        assert len(mx.mail) == 2


async def test_a_message_that_cannot_be_parked_goes_to_the_dead_queue():
    """After some offers, with the reason; a full outbox would otherwise be kept full by who holds what is in it."""
    async with relay() as (world, mx):
        world.queues.missing = {"outbox"}
        message = outbox_json(nextattempt={"time": format_time(START + timedelta(days=1))})
        assert await world.deliver(message) == "ack"
        [dead] = world.queues.stored["dead"]
        assert dead.json == message
        assert "not due yet" in dead.parcel.headers["reason"]
        assert mx.dialogs == []


async def test_a_message_in_other_hands_that_cannot_be_sent_away_is_given_back():
    """It is not lost, and not taken for dead: somebody is working on it."""
    async with relay() as (world, _):
        world.claims.take = lambda key: False
        world.queues.missing = {"outbox"}
        assert await world.deliver(outbox_json(), message_id="m1") == "requeue"


@pytest.mark.parametrize(
    ("answer", "queue", "expected"),
    [
        (NoSuchDomain("no such domain"), "failure", ("dns", "error", 550, "5.1.2")),
        (NoSuchDomain("null", null_mx=True), "failure", ("dns", "error", 556, "5.1.10")),
        (ResolverTimeout("silence"), "retry", ("dns", "timeout", 451, "4.4.3")),
    ],
)
async def test_dns_decides(answer, queue, expected):
    """No such domain is final, silence is not."""
    async with relay() as (world, _):
        world.resolver.mx["example.com"] = answer
        await world.deliver(outbox_json())
        result = world.result(queue)
        assert (result["state"], result["result"], result["code"], result["status"]) == expected


@pytest.mark.parametrize(
    ("properties", "options_changed", "queue"),
    [
        ({"recipient": "nobody"}, {}, "failure"),
        ({"recipient": "a b@example.com"}, {}, "failure"),
        ({"recipient": "a b@example.com"}, {"validate_recipient": "loose"}, "success"),
        ({"recipient": "a\r\nRCPT TO:<b>@example.com"}, {"validate_recipient": "loose"}, "failure"),
        ({"envelope": "nobody"}, {}, "failure"),
        ({"envelope": ".a@example.org"}, {}, "failure"),
        ({"envelope": ".a@example.org"}, {"validate_envelope": "loose"}, "success"),
        ({"envelope": ""}, {}, "success"),
    ],
)
async def test_addresses_are_checked_before_sending(properties, options_changed, queue):
    """A bad one is a result, not a dead message."""
    async with relay(**options_changed) as (world, _):
        await world.deliver(outbox_json(**properties))
        result = world.result(queue)
        if queue == "failure":
            assert (result["state"], result["result"]) == ("process", "invalid")


@pytest.mark.parametrize(
    "body",
    [
        b"not JSON",
        b"[]",
        b"{}",
        b'{"recipient": "bob@example.com"}',
        b'{"recipient": "bob@example.com", "mime": 1}',
        orjson.dumps(outbox_json(headers={"dance": "x"})),
        orjson.dumps(outbox_json(headers={"prepend": {"X": "a\r\nb"}})),
        orjson.dumps(outbox_json(queues={"success": "outbox"})),
        orjson.dumps(outbox_json(queues={"success": "outbox.delay.3"})),
        orjson.dumps(outbox_json(queues={"results": "amq.rabbitmq.trace"})),
        orjson.dumps(outbox_json())[:-1] + b',"deep":' + b"[" * 300 + b"]" * 300 + b"}",
        orjson.dumps(outbox_json())[:-1] + b',"results":[' + b"[" * 300 + b"]" * 300 + b"]}",
    ],
)
async def test_what_cannot_be_understood_goes_to_the_dead_queue(body):
    """As it came, with the reason; confirmed before the ack."""
    async with relay() as (world, mx):
        await world.deliver(body)
        [dead] = world.queues.stored["dead"]
        assert dead.parcel.body == body
        assert dead.parcel.headers["reason"]
        assert world.history == ["publish dead", "ack"]
        assert len(world.lines.of("outbox.dead")) == 1
        assert mx.dialogs == []


async def test_what_breaks_the_decoder_is_dead_and_a_bug(monkeypatch):
    """It would break it every time; nobody's place is taken by it for ever."""
    monkeypatch.setattr("mtaq.deliver.service.understand", lambda *_: 1 / 0)
    async with relay() as (world, _):
        assert await world.deliver(outbox_json()) == "ack"
        assert "ZeroDivisionError" in world.queues.stored["dead"][0].parcel.headers["reason"]
        assert len(world.lines.of("bug")) == 1


async def test_a_bug_defers_and_is_logged():
    """Unclassified means transient: whatever a stage throws, the message comes again."""
    async with relay() as (world, mx):
        world.resolver.mx["example.com"] = ZeroDivisionError("surprise")
        await world.deliver(outbox_json())
        result = world.result("retry")
        assert (result["state"], result["result"], result["code"], result["status"]) == (
            "process",
            "error",
            451,
            "4.3.0",
        )
        assert "surprise" in world.lines.of("bug")[0]["error"]
        assert "surprise" not in str(result)
        world.resolver.add("example.com", (10, "mx.example.com", mx.ip))
        await world.deliver(outbox_json())
        assert len(mx.mail) == 1


async def test_a_bug_while_connecting_defers():
    """The same where a connection's own task met it."""
    async with relay() as (world, _):
        world.resolver.ips["mx.example.com"] = ZeroDivisionError("surprise")
        consumed = [world.queues.hand_out(outbox_json(f"user{n}@example.com")) for n in range(3)]
        for message in consumed:
            assert await message.outcome() == "ack"
        assert len(world.queues.stored["retry"]) == 3


async def test_a_bug_in_the_results_gives_the_message_back():
    """It is not lost and it does not spin."""
    async with relay() as (world, _):
        world.journal.failures = [ZeroDivisionError("surprise")]
        assert await world.deliver(outbox_json()) == "requeue"
        assert world.slept == [30.0]
        assert world.claims.held == set()


@pytest.mark.parametrize(("stage", "outcome"), [("RCPT", "not-sent"), ("content", "unknown")])
async def test_what_may_have_been_sent_is_told_from_what_was_not(stage: str, outcome: str):
    """Killed before the content nothing is in doubt; killed behind it a second mail is possible, logged and counted."""
    count = REDELIVERED.labels(outcome)
    before = count._value.get()
    async with relay(Script(stall=frozenset({stage})), Script()) as (dying, mx):
        dying.queues.hand_out(outbox_json(), message_id="m1")
        await mx.wait_for(lambda: mx.mail if stage == "content" else mx.dialogs and mx.dialogs[0][-1][:4] == "RCPT")
        async with World(options=dying.options) as world:
            world.resolver.add("example.com", (10, "mx.example.com", mx.ip))
            world.claims.sending |= dying.claims.sending
            assert await world.deliver(outbox_json(), message_id="m1", redelivered=True) == "ack"
            assert len(world.lines.of("delivery.uncertain")) == (outcome == "unknown")
            assert world.claims.sending == set()
    assert count._value.get() - before == 1


async def test_what_the_journal_knows_is_not_uncertain():
    """Killed between the journal and anything else."""
    async with relay() as (world, mx):
        await world.deliver(outbox_json(), message_id="m1")
        world.claims.sending |= set(world.journal.entries)
        await world.deliver(outbox_json(), message_id="m1", redelivered=True)
        assert (len(mx.mail), world.lines.of("delivery.uncertain"), world.claims.sending) == (1, [], set())


# Where results go.


@pytest.mark.parametrize(
    ("queues", "expected"),
    [
        ({}, {"success", "results"}),
        ({"success": None}, {"results"}),
        ({"results": None}, {"success"}),
        ({"success": "mine", "results": "all"}, {"mine", "all"}),
        ({"failure": "mine", "retry": "mine"}, {"success", "results"}),
    ],
)
async def test_a_message_may_choose_its_queues(queues, expected):
    """A name is an override, null is off, absent is as configured."""
    async with relay() as (world, _):
        await world.deliver(outbox_json(queues=queues))
        assert set(world.queues.stored) == expected


async def test_no_queues_configured_no_results():
    """Then there is nothing between journal and ack."""
    async with relay(names=replace(NAMES, results=None, success=None, failure=None, retry=None)) as (world, _):
        await world.deliver(outbox_json())
        assert world.history == ["record", "ack"]
        assert [entry.settled for entry in world.journal.entries.values()] == [True]


async def test_a_missing_queue_is_declared():
    """When ``rabbitmq-declare`` allows."""
    async with relay(declare=True) as (world, _):
        world.queues.missing = {"mine"}
        await world.deliver(outbox_json(queues={"success": "mine"}))
        assert world.queues.declared == ["mine"]
        assert len(world.queues.stored["mine"]) == 1


async def test_a_missing_queue_that_may_not_be_declared_makes_the_result_dead():
    """The result is kept with the reason, and the message is acked."""
    async with relay() as (world, _):
        world.queues.missing = {"mine"}
        await world.deliver(outbox_json(queues={"success": "mine"}))
        [dead] = world.queues.stored["dead"]
        assert dead.json["results"][0]["code"] == 250
        assert "mine" in dead.parcel.headers["reason"]
        assert world.history == ["record", "publish dead", "publish results", "settle", "ack"]


async def test_a_queue_that_cannot_be_declared_makes_the_result_dead():
    """A name that no queue can have, or another type of queue."""
    async with relay(declare=True) as (world, _):
        world.queues.missing = {"mine"}
        world.queues.not_declared = [TopologyMismatch("no such name")]
        await world.deliver(outbox_json(queues={"success": "mine"}))
        assert "no such name" in world.queues.stored["dead"][0].parcel.headers["reason"]


async def test_a_broker_lost_while_declaring_does_not_make_the_result_dead():
    """It is declared later."""
    async with relay(declare=True) as (world, _):
        world.queues.missing = {"mine"}
        world.queues.not_declared = [BrokerUnavailable("away")] * 3
        await world.deliver(outbox_json(queues={"success": "mine"}))
        assert len(world.queues.stored["mine"]) == 1
        assert world.queues.stored["dead"] == []


async def test_a_retry_copy_that_is_refused_for_long_goes_to_the_dead_queue():
    """With its history and the reason; nothing is lost, and its place is free for others."""
    async with relay(TRANSIENT) as (world, mx):
        world.queues.missing = {"outbox"}
        assert await world.deliver(outbox_json(), message_id="m1") == "ack"
        [dead] = world.queues.stored["dead"]
        assert dead.json["results"][0]["code"] == 450
        assert dead.json["mime"] == outbox_json()["mime"]
        assert dead.json["nextattempt"]["time"]
        assert "no queue outbox" in dead.parcel.headers["reason"]
        assert len(world.slept) == 9
        assert world.history == ["record", "publish dead", "publish retry", "settle", "ack"]
        assert "no queue outbox" in world.lines.of("outbox.dead")[0]["reason"]
        assert len(mx.dialogs) == 1


async def test_a_retry_copy_is_offered_again_before_its_refusal_is_believed():
    """A queue that is full for a minute is no reason to give up."""
    async with relay(TRANSIENT) as (world, _):
        world.queues.missing = {"outbox"}
        consumed = world.queues.hand_out(outbox_json())
        while len(world.slept) < 5:
            await asyncio.sleep(0.001)
        world.queues.missing.clear()
        assert await consumed.outcome() == "ack"
        assert len(world.queues.stored["outbox"]) == 1
        assert world.queues.stored["dead"] == []


async def test_a_retry_copy_that_is_too_large_leaves_the_message_as_it_came():
    """Its history made it so; the dead queue would refuse it likewise, so it gets what the outbox held."""
    async with relay(TRANSIENT) as (world, _):
        message = outbox_json()
        world.queues.most_bytes = len(orjson.dumps(message))
        assert await world.deliver(message) == "ack"
        [dead] = world.queues.stored["dead"]
        assert dead.json == message
        assert "deferred" in dead.parcel.headers["reason"]
        assert world.slept == []


@pytest.mark.parametrize("keepmime", [True, False])
async def test_a_result_that_is_too_large_comes_without_what_is_large(keepmime):
    """Content and ``extracted`` are left out of it; it is not lost and holds nothing up."""
    async with relay() as (world, _):
        message = outbox_json(keepmime=keepmime, mime="Subject: " + "x" * 5000 + "\r\n\r\n")
        world.queues.most_bytes = 5000
        assert await world.deliver(message) == "ack"
        result = world.queues.stored["success"][0].json
        assert result["results"][0]["code"] == 250
        assert not {"mime", "extracted"} & result.keys()
        assert len(world.queues.stored["results"]) == 1
        assert world.slept == []


async def test_a_result_that_nothing_makes_small_enough_leaves_the_message_as_it_came():
    """The reason says that it was delivered."""
    async with relay() as (world, mx):
        message = outbox_json(large="x" * 5000)
        world.queues.most_bytes = len(orjson.dumps(message))
        assert await world.deliver(message) == "ack"
        [dead] = world.queues.stored["dead"]
        assert dead.json == message
        assert "delivered, but queue success" in dead.parcel.headers["reason"]
        assert "delivered, but queue results" in dead.parcel.headers["reason"]
        assert len(mx.mail) == 1


async def test_while_the_dead_queue_refuses_the_message_stays():
    """It is said, and offered again and again; nothing is acked."""
    async with relay() as (world, _):
        world.queues.missing = {"dead"}
        consumed = world.queues.hand_out(b"not JSON")
        while len(world.slept) < 20:
            await asyncio.sleep(0.001)
        assert not consumed.settled.done()
        assert "no queue dead" in world.lines.of("delivery.held")[0]["reason"]
        world.queues.missing.clear()
        assert await consumed.outcome() == "ack"
        assert len(world.queues.stored["dead"]) == 1


async def test_a_message_id_longer_than_amqp_allows_is_cut_on_the_result():
    """In the JSON it is whole."""
    async with relay() as (world, _):
        message = outbox_json()
        message["message-id"] = "ü" * 200
        assert await world.deliver(message) == "ack"
        [stored] = world.queues.stored["success"]
        assert stored.parcel.correlation_id == "ü" * 127
        assert stored.json["message-id"] == "ü" * 200


async def test_keepmime_keeps_the_content_in_the_result():
    """Text as text, other content as base64."""
    async with relay() as (world, _):
        await world.deliver(outbox_json(keepmime=True))
        assert world.queues.stored["success"][0].json["mime"] == outbox_json()["mime"]


async def test_one_line_tells_each_outcome():
    """Event names and fields are the vocabulary's."""
    async with relay(TRANSIENT, Script(), delivery_idle=0) as (world, mx):
        await world.deliver(outbox_json())
        await mx.wait_for(lambda: mx.open == 0)
        await world.deliver(outbox_json())
        [deferred], [delivered] = world.lines.of("delivery.deferred"), world.lines.of("delivery.delivered")
        assert (deferred["reply_code"], deferred["state"], deferred["site"]) == (450, "rcptto", "mx.example.com")
        assert deferred["next_attempt_at"] == START + timedelta(seconds=600)
        assert (delivered["forward_path"], delivered["mx_host"]) == ("bob@example.com", "mx.example.com")
        assert (delivered["message_id"], delivered["remote_ip"]) == ("test.1", "127.0.0.1")
