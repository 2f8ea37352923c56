"""What a result says of an attempt: every property of ``results[]``, the word for a failure, what follows from it."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trustme

from mtaq.broker.idempotency import IdempotencyKeys
from mtaq.cli.sink_texts import TEXTS
from mtaq.deliver.category import category_of_reply
from mtaq.model.control import Limits, Pool, PoolMember, Scope, Throttle
from mtaq.model.errors import BrokerUnavailable
from mtaq.model.schema import ATTEMPT
from mtaq.net.tls import client_context
from tests.support.delivery import NAMES, START, World, options, outbox_json, set_entries, surroundings
from tests.support.fake_mx import OK, FakeMx, Script

GREYLISTED = Script(replies={"RCPT": b"450 4.7.1 Greylisted, please come back in 300 seconds\r\n"})


@asynccontextmanager
async def relay(*scripts: Script, **changes: Any) -> AsyncIterator[tuple[World, FakeMx]]:
    """A delivery service, and one MX for ``example.com`` with these scripts."""
    extra = {name: changes.pop(name) for name in ("keys", "names", "surroundings") if name in changes}
    async with FakeMx(*scripts) as mx, World(options=options(delivery_port=mx.port, **changes), **extra) as world:
        world.resolver.add("example.com", (10, "mx.example.com", mx.ip))
        yield world, mx


# Every property.


def server_context(authority: trustme.CA) -> ssl.SSLContext:
    """Return TLS of a host with a certificate of *authority*."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


async def test_a_result_over_tls_and_with_a_login_has_every_property():
    """Each is there and right; ``category`` and ``notice`` belong to failures."""
    authority = trustme.CA()
    trusting = client_context(verified=True)
    authority.configure_trust(trusting)
    ehlo = OK["EHLO"].replace(b"250-PIPELINING", b"250-DSN\r\n250-AUTH PLAIN\r\n250-STARTTLS\r\n250-PIPELINING")
    script = Script(tls=server_context(authority), replies={"EHLO": ehlo, "AUTH": b"235 2.7.0 welcome\r\n"})
    async with relay(script, surroundings=surroundings(verified=trusting)) as (world, mx):
        login = {"hostname": mx.ip, "port": mx.port, "username": "mtaq", "password": "secret", "security": "verified"}
        message = outbox_json(smarthost=login)
        await world.deliver(message)
        result = world.result("success")
        assert set(result) == {row.name for row in ATTEMPT} - {"category", "notice"}
        fixed = {
            "attempt": 1, "time": "2026-01-02 03:04:05", "state": "message", "result": "accepted", "mta": "mx.test",
            "from": "127.0.0.1", "to": "127.0.0.1", "code": 250, "status": "2.0.0", "description": "queued as 42",
            "tls-policy": "verified", "authentication": "PLAIN", "messages": 1, "dsn": True,
        }  # fmt: skip
        assert {name: result[name] for name in fixed} == fixed
        assert result["cipher"]["version"].startswith("TLSv1.")
        assert (result["cipher"]["bits"] >= 128, bool(result["cipher"]["name"])) == (True, True)
        assert result["certificate"]["verified"] is True
        assert result["certificate"].keys() >= {"subject", "issuer", "notafter"}
        assert result["sent"]["data"] == len(message["mime"]) + 3  # and the final dot
        assert result["sent"]["connection"] > result["sent"]["data"]
        assert result["duration"] >= 0
        await world.deliver(message)
        again = world.queues.stored["success"][1].json["results"][0]
        assert again["messages"] == 2
        assert again["sent"]["connection"] > result["sent"]["connection"]


async def test_attempts_are_appended():
    """One item each, numbered, with the time and the address of each."""
    async with relay(Script(replies={"RCPT": b"450 4.2.0 later\r\n"}), Script(), delivery_idle=0) as (world, mx):
        await world.deliver(outbox_json(ips=["127.0.0.2"]))
        [retry] = world.queues.stored["outbox"]
        await mx.wait_for(lambda: mx.open == 0)
        world.clock.forward(600)
        await world.deliver(retry.json)
        [final] = world.queues.stored["success"]
        brief = [(each["attempt"], each["time"], each["from"], each["state"]) for each in final.json["results"]]
        assert brief == [
            (1, "2026-01-02 03:04:05", "127.0.0.2", "rcptto"),
            (2, "2026-01-02 03:14:05", "127.0.0.2", "message"),
        ]


@pytest.mark.parametrize(
    "name", [name for name in TEXTS if TEXTS[name].stage in ("connect", "mail", "rcpt", "message")]
)
async def test_what_large_receivers_say_ends_where_and_how_it_should(name: str):
    """A 4yz is tried again, a 5yz is not; the word is that of the text, whatever the stage."""
    text = TEXTS[name]
    stage = {"connect": "banner", "mail": "MAIL", "rcpt": "RCPT", "message": "content"}[text.stage]
    async with relay(Script(replies={stage: text.reply.encode()})) as (world, _):
        await world.deliver(outbox_json())
        result = world.result("retry" if text.reply.is_transient else "failure")
        word = category_of_reply(text.reply.code, text.reply.status, text.reply.text)
        assert (result["code"], result.get("status"), result["category"]) == (text.reply.code, text.reply.status, word)
        [line] = world.lines.of("delivery.deferred" if text.reply.is_transient else "delivery.failed")
        assert line["concerns"] in ("message", "recipient", "host", "site")


# Greylisting.


async def test_a_greylisted_message_comes_back_from_the_same_address():
    """Whatever chance says: the host remembers who asked."""
    addresses = tuple(f"127.0.0.{number}" for number in range(2, 10))
    async with relay(GREYLISTED, Script(), delivery_idle=0, smtp_default_ips=addresses) as (world, mx):
        for _ in range(6):
            mx.scripts[:] = [*([Script()] * len(mx.dialogs)), GREYLISTED, Script()]
            await world.deliver(outbox_json())
            [retry] = world.queues.stored.pop("outbox")
            await mx.wait_for(lambda: mx.open == 0)
            [greylisted] = retry.json["results"]
            assert greylisted["category"] == "greylist"
            await world.deliver({**retry.json, "nextattempt": None})
            assert mx.mail[-1].client_ip == greylisted["from"]
            await mx.wait_for(lambda: mx.open == 0)
        assert len({mail.client_ip for mail in mx.mail}) > 1


async def test_a_greylisted_message_of_a_pool_comes_back_from_the_same_member():
    """Unless it is no member any more."""
    async with relay() as (world, mx):
        members = tuple(PoolMember(f"127.0.0.{number}") for number in range(2, 10))
        set_entries(world.control, "pools", Pool(id="p", created_at=START, name="bulk", members=members))
        for source, expected in [("127.0.0.7", {"127.0.0.7"}), ("127.0.0.99", {member.ip for member in members})]:
            before = [{"attempt": 1, "category": "greylist", "from": source}]
            await world.deliver(outbox_json(pool="bulk", results=before))
            assert mx.mail[-1].client_ip in expected


# Keys.


@asynccontextmanager
async def keyed(folder: Path, *scripts: Script, **changes: Any) -> AsyncIterator[tuple[World, FakeMx]]:
    """A relay that keeps idempotency keys in *folder*."""
    keys = IdempotencyKeys(folder)
    async with relay(*scripts, keys=keys, **changes) as (world, mx):
        yield world, mx
    await keys.close()


def order(
    message_id: str | None = "one", recipient: str = "bob@example.com", key: str = "invoice 4711"
) -> dict[str, Any]:
    """Return a message with a key."""
    message = {**outbox_json(recipient), "idempotency-key": key, "message-id": message_id}
    return {name: value for name, value in message.items() if value is not None}


async def test_of_two_messages_with_one_key_the_first_is_sent(tmp_path: Path):
    """The other ends as process/invalid and names the first; its sender is told nothing, for the mail went."""
    names = replace(NAMES, dsn="dsn")
    async with keyed(tmp_path, names=names) as (world, mx):
        await world.deliver(order("one"))
        await world.deliver(order("two"))
        assert len(mx.mail) == 1
        result = world.result("failure")
        assert (result["state"], result["result"], result["category"]) == ("process", "invalid", "other")
        assert "message one " in result["description"]
        assert world.queues.stored["dsn"] == []


async def test_another_recipient_or_another_key_is_another_matter(tmp_path: Path):
    """Both count; the domain in any case."""
    async with keyed(tmp_path) as (world, mx):
        for message in (order("one"), order("two", "eve@example.com"), order("three", key="invoice 4712")):
            await world.deliver(message)
        assert len(mx.mail) == 3
        await world.deliver(order("four", "bob@EXAMPLE.com"))
        assert len(mx.mail) == 3


async def test_retries_of_the_claimant_are_not_affected(tmp_path: Path):
    """Nor is the same message when it is handed out again."""
    async with keyed(tmp_path, Script(replies={"RCPT": b"450 4.2.0 later\r\n"}), Script(), delivery_idle=0) as (
        world,
        mx,
    ):
        await world.deliver(order("one"))
        [retry] = world.queues.stored["outbox"]
        await mx.wait_for(lambda: mx.open == 0)
        world.clock.forward(600)
        await world.deliver(retry.json)
        await world.deliver(order("one"), redelivered=True)
        assert [len(mx.mail), world.queues.stored["failure"]] == [3, []]


async def test_equal_json_without_ids_is_sent_once(tmp_path: Path):
    """A script that publishes again because it is not sure: with and without an AMQP message_id."""
    async with keyed(tmp_path) as (world, mx):
        for message_id in ("m1", "m2", "", ""):
            await world.deliver(order(None), message_id=message_id)
        assert len(mx.mail) == 1
        assert "without message-id" in world.queues.stored["failure"][-1].json["results"][0]["description"]


async def test_a_message_without_ids_that_is_handed_out_again_is_sent(tmp_path: Path):
    """Whoever had it died with the key claimed: that was itself."""
    keys = IdempotencyKeys(tmp_path)
    async with relay(Script(drop=frozenset({"banner"})), keys=keys) as (world, _):
        await world.deliver(order(None), message_id="")
    async with relay(keys=keys) as (world, mx):
        await world.deliver(order(None), message_id="", redelivered=True)
        assert len(mx.mail) == 1
    await keys.close()


@pytest.mark.parametrize("message_id", ["m1", ""])
async def test_a_parked_claimant_stays_the_claimant(tmp_path: Path, message_id: str):
    """Its turn under a limit comes later; by then its AMQP message_id may be another."""
    async with keyed(tmp_path, smtp_sink_address="127.0.0.1", smtp_sink_port=1) as (world, mx):
        world.service.reload(options(smtp_sink_address="127.0.0.1", smtp_sink_port=mx.port))
        limits = Limits(messages_per_minute=1.0)
        entry = Throttle(id="t", created_at=START, scope=Scope(domain="example.com"), limits=limits)
        set_entries(world.control, "throttles", entry)
        await world.deliver(order("first", key="another"))
        await world.deliver(order(None), message_id=message_id)
        [parked] = world.queues.stored.pop("outbox")
        set_entries(world.control, "throttles")
        world.clock.forward(parked.delay_s)
        await world.deliver(
            parked.parcel.body, message_id=parked.parcel.message_id, headers=dict(parked.parcel.headers)
        )
        assert len(mx.mail) == 2


async def test_a_key_is_free_again_after_its_time(tmp_path: Path):
    """``idempotency-ttl`` counts from the claim."""
    now = [1e9]
    keys = IdempotencyKeys(tmp_path, clock=lambda: now[0])
    async with relay(keys=keys, idempotency_ttl=100) as (world, mx):
        await world.deliver(order("one"))
        now[0] += 99
        await world.deliver(order("two"))
        now[0] += 2
        await world.deliver(order("three"))
        assert len(mx.mail) == 2
    await keys.close()


async def test_nothing_is_sent_while_keys_cannot_be_asked(tmp_path: Path):
    """It waits until they can."""

    class Failing:
        def __init__(self) -> None:
            self.failures = 3

        async def claim(self, key: bytes, owner: str, *, ttl_s: int) -> str:
            if self.failures:
                self.failures -= 1
                raise BrokerUnavailable("disk full")
            return owner

    async with relay(keys=Failing()) as (world, mx):
        await world.deliver(order())
        assert (len(mx.mail), world.slept) == (1, [0.5] * 3)


async def test_messages_without_a_key_cost_nothing(tmp_path: Path):
    """Not even a file."""
    folder = tmp_path / "keys"
    async with keyed(folder) as (world, mx):
        await world.deliver(outbox_json())
        assert (len(mx.mail), folder.exists()) == (1, False)


# Addresses.


@pytest.mark.parametrize(
    ("option", "message", "status"),
    [
        ("validate_recipient", {"recipient": "bob..smith@example.com"}, "5.1.3"),
        ("validate_envelope", {"envelope": "ada..l@example.org"}, "5.1.7"),
    ],
)
async def test_loose_takes_what_strict_does_not(option: str, message: dict[str, str], status: str):
    """An address is judged before anything is looked up; what could end a line is refused by both."""
    async with relay() as (world, mx):
        await world.deliver({**outbox_json(), **message})
        result = world.result("failure")
        assert (result["state"], result["result"], result["status"]) == ("process", "invalid", status)
        world.service.reload(options(delivery_port=mx.port, **{option: "loose"}))
        await world.deliver({**outbox_json(), **message})
        assert len(mx.mail) == 1
        [(name, value)] = message.items()
        await world.deliver({**outbox_json(), name: value.replace("..", "\r\n")})
        assert [len(mx.mail), len(world.queues.stored["failure"])] == [1, 2]


async def test_content_beyond_ascii_goes_unchanged_to_a_host_without_8bitmime():
    """As everybody does it; a host with it is told."""
    async with relay(Script(replies={"EHLO": b"250 mx\r\n"}), Script()) as (world, mx):
        await world.deliver(outbox_json(mime="Subject: hi\r\n\r\nGrüße\r\n"))
        assert mx.mail[0].commands[0] == "MAIL FROM:<ada@example.org>"
        assert mx.mail[0].content == "Subject: hi\r\n\r\nGrüße\r\n".encode()
