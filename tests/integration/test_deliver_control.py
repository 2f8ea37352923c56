"""What operators order at run time, as mail hosts and queues see it."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest

from mtaq.model.control import (
    FloodPattern,
    ForcedError,
    Limits,
    Pause,
    Pool,
    PoolMember,
    ReplyPattern,
    ResponsePattern,
    RewriteRule,
    Scope,
    Suppression,
    Throttle,
    WarmUp,
)
from tests.support.delivery import START, World, options, outbox_json, set_entries
from tests.support.fake_mx import FakeMx, Script

BASICS: Any = {"id": "one", "created_at": START}


class Scene:
    """A relay whose outbox leads to one mail host by the sink."""

    def __init__(self, *scripts: Script, **changes: Any) -> None:
        self.mx = FakeMx(*scripts)
        self._changes = changes

    async def __aenter__(self) -> tuple[World, FakeMx]:
        await self.mx.__aenter__()
        sink = {"smtp_sink_address": "127.0.0.1", "smtp_sink_port": self.mx.port}
        self.world = World(options=options(**sink, **self._changes))
        await self.world.__aenter__()
        return self.world, self.mx

    async def __aexit__(self, *_: object) -> None:
        await self.world.__aexit__()
        await self.mx.__aexit__()


def parked(world: World) -> Any:
    """The only message that waits in the delay queues, and its headers."""
    [stored] = world.queues.stored["outbox"]
    return stored, stored.parcel.headers


async def test_a_suppressed_recipient_gets_nothing():
    """The result says that it is suppressed, and why."""
    async with Scene() as (world, mx):
        entry = Suppression(pattern="bob@example.com", reason="asked to be left alone", created_at=START)
        world.control.suppressions.change([entry], [])
        await world.deliver(outbox_json())
        item = world.result("failure")
        assert (item["state"], item["result"], item["code"]) == ("suppression", "error", 550)
        assert item["description"] == "asked to be left alone"
        assert mx.dialogs == []


@pytest.mark.parametrize(("code", "queue"), [(550, "failure"), (450, "retry")])
async def test_a_forced_error_stands_for_a_mail_host(code, queue):
    """A 4yz is tried again, a 5yz is not."""
    async with Scene() as (world, mx):
        entry = ForcedError(**BASICS, pattern="example.com", code=code, status=f"{code // 100}.2.1", text="full")
        set_entries(world.control, "forced_errors", entry)
        await world.deliver(outbox_json())
        item = world.result(queue)
        assert (item["state"], item["result"], item["code"], item["description"]) == ("process", "error", code, "full")
        assert mx.dialogs == []


async def test_a_rewritten_message_goes_elsewhere_and_its_result_is_about_the_original():
    """The rules hold for one attempt."""
    async with Scene() as (world, mx):
        rule = RewriteRule(
            **BASICS, position=1, kind="wildcard", recipient="*@example.com", new_recipient="\\1@example.net"
        )
        set_entries(world.control, "rewrite_rules", rule)
        await world.deliver(outbox_json())
        assert mx.mail[0].commands[1] == "RCPT TO:<bob@example.net>"
        [success] = world.queues.stored["success"]
        assert success.json["recipient"] == "bob@example.com"


@pytest.mark.parametrize(
    "rule", [{"new_recipient": "no address"}, {"properties": {"retries": "soon"}}, {"properties": {"ips": [1]}}]
)
async def test_a_rule_that_makes_nonsense_delays(rule):
    """It is the operator's mistake, and no reason to return mail."""
    async with Scene() as (world, mx):
        entry = RewriteRule(**BASICS, position=1, kind="wildcard", recipient="*", **rule)
        set_entries(world.control, "rewrite_rules", entry)
        await world.deliver(outbox_json())
        assert world.result("retry")["state"] == "rewrite"
        assert mx.dialogs == []


@pytest.mark.parametrize(
    ("pause", "reason"),
    [
        ({"scope": Scope()}, "everything"),
        ({"scope": Scope(domain="example.com")}, "its domain"),
        ({"scope": Scope(site="example.com")}, "its site"),
        ({"scope": Scope(), "tag": "news"}, "its tag"),
        ({"scope": Scope(), "sender_domain": "example.org"}, "its sender"),
    ],
)
async def test_paused_mail_waits_outside_and_is_no_attempt(pause, reason):
    """Until the pause is over, and what sweeps it forward finds out where it belongs."""
    async with Scene() as (world, mx):
        set_entries(world.control, "pauses", Pause(**BASICS, **pause, expires_at=START + timedelta(seconds=300)))
        await world.deliver(outbox_json(tags=["news"]))
        stored, headers = parked(world)
        assert 300 < stored.delay_s < 332
        assert (headers["parked-reason"], headers["parked-site"]) == ("pause", "example.com")
        assert "results" not in stored.json
        assert mx.dialogs == []
        assert world.queues.stored["retry"] == []


async def test_a_pause_without_an_end_is_looked_at_again():
    """Within bounded time, and the life of the message began with its first pick-up."""
    async with Scene(max_delivertime=700) as (world, _):
        set_entries(world.control, "pauses", Pause(**BASICS, scope=Scope()))
        await world.deliver(outbox_json())
        stored, headers = parked(world)
        assert 540 <= stored.delay_s <= 660
        world.clock.forward(stored.delay_s)
        world.queues.stored["outbox"].clear()
        await world.deliver(outbox_json(), headers=headers)
        again, headers = parked(world)
        assert again.delay_s == pytest.approx(700 - stored.delay_s, abs=1)
        world.clock.forward(again.delay_s)
        await world.deliver(outbox_json(), headers=headers)
        assert (world.result("failure")["state"], world.result("failure")["result"]) == ("process", "timeout")


async def test_a_message_that_waits_when_a_pause_comes_is_sent_away():
    """And what is on its way finishes."""
    async with Scene(delivery_connections_per_site=1) as (world, mx):
        mx.gate.clear()
        running = world.queues.hand_out(outbox_json("a@example.com"))
        await mx.wait_for(lambda: mx.dialogs and "DATA" in mx.dialogs[0])
        waiting = world.queues.hand_out(outbox_json("b@example.com"))
        set_entries(world.control, "pauses", Pause(**BASICS, scope=Scope(domain="example.com")))
        assert await waiting.outcome() == "ack"
        assert parked(world)[0].json["recipient"] == "b@example.com"
        mx.gate.set()
        assert await running.outcome() == "ack"
        assert len(mx.mail) == 1


async def test_a_throttled_message_waits_for_its_turn_outside():
    """The first goes, the others come back one interval apart; who comes back goes, with its first pick-up known."""
    async with Scene() as (world, mx):
        scope = Scope(domain="example.com")
        set_entries(world.control, "throttles", Throttle(**BASICS, scope=scope, limits=Limits(messages_per_minute=6)))
        await world.deliver(outbox_json())
        for _ in range(3):
            await world.deliver(outbox_json())
        waits = [stored.delay_s for stored in world.queues.stored["outbox"]]
        assert [round(wait, 0) for wait in waits] == [10, 20, 30]
        assert len(mx.mail) == 1
        headers = world.queues.stored["outbox"][0].parcel.headers
        assert headers["parked-reason"] == "throttle"
        assert len(world.lines.of("delivery.parked")) == 3
        assert len(world.lines.of("delivery.throttled")) == 1
        set_entries(world.control, "throttles")
        world.clock.forward(10)
        await world.deliver(outbox_json(), headers=headers)
        assert len(mx.mail) == 2
        assert "parked" not in str(world.queues.stored["success"][-1].parcel.headers)


async def test_a_flood_pattern_pauses_the_way_that_answered():
    """The message that met it is deferred as usual, the next one waits; it is told and counted."""
    async with Scene(Script(replies={"MAIL": b"421 4.7.0 too many messages from you\r\n"})) as (world, mx):
        pattern = FloodPattern(**BASICS, position=1, reply=ReplyPattern(code="421", text="too many"), pause_s=600)
        set_entries(world.control, "flood_patterns", pattern)
        await world.deliver(outbox_json())
        assert world.result("retry")["code"] == 421
        world.queues.stored["outbox"].clear()
        await world.deliver(outbox_json())
        _, headers = parked(world)
        assert headers["parked-reason"] == "pause"
        assert len(mx.dialogs) == 1
        assert [line["pattern"] for line in world.lines.of("delivery.flood")] == ["one"]


async def test_a_response_pattern_makes_a_failure_final_or_not():
    """And says when; tags and properties go with the message from then on."""
    async with Scene(Script(replies={"RCPT": b"550 5.7.1 greylisted, come back\r\n"})) as (world, _):
        pattern = ResponsePattern(
            **BASICS, position=1, reply=ReplyPattern(code="5", text="greylisted"), action="retry", delay_s=77,
            add_tags=("grey",), properties={"maxattempts": 9, "order": None},
        )  # fmt: skip
        set_entries(world.control, "response_patterns", pattern)
        await world.deliver(outbox_json(tags=["news"], order="A-1"))
        [again], [copy] = world.queues.stored["outbox"], world.queues.stored["retry"]
        assert again.delay_s == 77
        for message in (again.json, copy.json):
            assert (message["tags"], message["maxattempts"]) == (["news", "grey"], 9)
            assert "order" not in message
        assert world.result("retry")["code"] == 550


@pytest.mark.parametrize(
    "properties", [{"retries": "soon"}, {"queues": {"results": "outbox"}}], ids=["form", "its own outbox"]
)
async def test_a_response_pattern_cannot_spoil_a_message(properties):
    """What would make it unreadable, or an order of its result, is left out and told."""
    async with Scene(Script(replies={"RCPT": b"450 4.7.1 later\r\n"})) as (world, _):
        pattern = ResponsePattern(**BASICS, position=1, reply=ReplyPattern(), action="fail", properties=properties)
        set_entries(world.control, "response_patterns", pattern)
        await world.deliver(outbox_json())
        [failure] = world.queues.stored["failure"]
        assert next(iter(properties)) not in failure.json
        assert len(world.lines.of("delivery.unchanged")) == 1


async def test_another_source_may_do_better():
    """At once, in the same attempt."""
    refusing = Script(replies={"RCPT": b"550 5.7.1 your address is listed\r\n"})
    async with Scene(refusing, Script()) as (world, mx):
        pattern = ResponsePattern(**BASICS, position=1, reply=ReplyPattern(text="listed"), action="other-source")
        set_entries(world.control, "response_patterns", pattern)
        await world.deliver(outbox_json(ips=["127.0.0.2", "127.0.0.3"]))
        assert len(mx.dialogs) == 2
        assert world.result("success")["from"] == mx.mail[-1].client_ip
        assert world.result("success")["attempt"] == 1


async def test_a_pool_names_the_sources():
    """Those of the state; a pool that is not there delays the message."""
    async with Scene(smtp_default_ips=("127.0.0.9",)) as (world, mx):
        set_entries(world.control, "pools", Pool(**BASICS, name="bulk", members=(PoolMember("127.0.0.2"),)))
        await world.deliver(outbox_json(pool="bulk"))
        await world.deliver(outbox_json())
        assert [mail.client_ip for mail in mx.mail] == ["127.0.0.2", "127.0.0.9"]
        await world.deliver(outbox_json(pool="other"))
        assert (world.result("retry")["state"], world.result("retry")["code"]) == ("bind", 451)


async def test_a_new_source_has_so_many_messages_a_day():
    """Then another member of the pool is used, and when all have had theirs it is for tomorrow."""
    async with Scene() as (world, mx):
        members = (PoolMember("127.0.0.2"), PoolMember("127.0.0.3"))
        set_entries(world.control, "pools", Pool(**BASICS, name="new", members=members))
        warm_up = WarmUp(**BASICS, scope=Scope(pool="new"), starts_on=date(2026, 1, 1), steps=(1, 2, 100))
        set_entries(world.control, "warm_ups", warm_up)
        for _ in range(5):
            await world.deliver(outbox_json(pool="new"))
        assert sorted(mail.client_ip for mail in mx.mail) == ["127.0.0.2"] * 2 + ["127.0.0.3"] * 2
        stored, headers = parked(world)
        assert headers["parked-reason"] == "warm-up"
        until_tomorrow_s = 86400 - (3 * 3600 + 4 * 60 + 5)
        assert until_tomorrow_s <= stored.delay_s <= until_tomorrow_s + 8 * 3600


async def test_a_paused_source_leaves_the_others():
    """Only when all of them are paused the message waits."""
    async with Scene() as (world, mx):
        set_entries(world.control, "pauses", Pause(**BASICS, scope=Scope(source="127.0.0.2")))
        for _ in range(3):
            await world.deliver(outbox_json(ips=["127.0.0.2", "127.0.0.3"]))
        assert {mail.client_ip for mail in mx.mail} == {"127.0.0.3"}
        await world.deliver(outbox_json(ips=["127.0.0.2"]))
        assert parked(world)[1]["parked-source"] == "127.0.0.2"
