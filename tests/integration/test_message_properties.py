"""Every property that a message of the outbox can have: what it changes, seen at the mail host.

A table with a case for every name there is: a property that is added to the schema fails here until its effect is
shown. The mail host is ``mtaq sink``, the queues are in memory. ``test_message_fields`` does the same for ``x-mq-*``.
"""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mtaq.broker.idempotency import IdempotencyKeys
from mtaq.model.control import Pool, PoolMember
from mtaq.model.schema import OUTBOX
from mtaq.model.schema_forms import Property
from mtaq.model.times import format_time
from mtaq.net.tls import client_context
from tests.support.delivery import NAMES, START, World, options, outbox_json, set_entries, surroundings
from tests.support.keys import ed25519_pem, rsa_pem
from tests.support.running_sink import SinkHere, scripted

# The JSON of the outbox.


class Scene:
    """A delivery service whose mail all goes to one sink.

    Attributes:
        world: The service.
        sink: The host.
    """

    def __init__(self, world: World, sink: SinkHere) -> None:
        self.world = world
        self.sink = sink

    async def deliver(self, **properties: Any) -> tuple[dict[str, Any], bytes]:
        """Deliver one message; return the sink's note on it, and its content."""
        message = {**outbox_json(), **{name.replace("_", "-"): value for name, value in properties.items()}}
        assert await self.world.deliver({name: value for name, value in message.items() if value is not None}) == "ack"
        return self.sink.notes()[-1], self.sink.contents()[-1]

    async def outcome(self, queue: str, **properties: Any) -> dict[str, Any]:
        """Deliver one message that the sink may refuse; return the last attempt's result in *queue*."""
        with_dashes = {name.replace("_", "-"): value for name, value in properties.items()}
        assert await self.world.deliver(outbox_json() | with_dashes) == "ack"
        result: dict[str, Any] = self.world.queues.stored[queue][-1].json["results"][-1]
        return result


@asynccontextmanager
async def scene(folder: Path, script: str = "", **changes: Any) -> AsyncIterator[Scene]:
    """Serve a sink with *script*, and deliver to it."""
    async with scripted(folder, script) as sink:
        keys = IdempotencyKeys(folder / "keys")
        usual = {"smarthost": "127.0.0.1", "smarthost_port": sink.port}
        names = replace(NAMES, dsn="notices", server_id="relay1")
        around = surroundings(verified=client_context(verified=True))
        async with World(options=options(**usual, **changes), names=names, keys=keys, surroundings=around) as world:
            yield Scene(world, sink)
        await keys.close()


Case = Callable[[Path], Awaitable[None]]
CASES: dict[str, Case] = {}

LATER = "rcpt: 451 4.2.0 later"
NO = "rcpt: 550 5.1.1 no such user"


def case(*names: str) -> Callable[[Case], Case]:
    """Enter a function as the case of these properties."""

    def enter(function: Case) -> Case:
        for name in names:
            assert name not in CASES
            CASES[name] = function
        return function

    return enter


@case("recipient", "envelope", "mime")
async def _envelope_and_content(folder: Path) -> None:
    async with scene(folder) as here:
        note, content = await here.deliver(recipient="eve@example.net", envelope="joan@example.org", mime="A: b\n\nc\n")
        assert (note["reverse-path"], note["forward-paths"]) == ("joan@example.org", ["eve@example.net"])
        assert content == b"A: b\r\n\r\nc\r\n"
        note, _ = await here.deliver(envelope="")
        assert note["reverse-path"] == ""


@case("mime-base64")
async def _content_in_base64(folder: Path) -> None:
    async with scene(folder) as here:
        octets = b"Subject: hi\r\n\r\n\xff\xfe\r\n"
        _, content = await here.deliver(mime=None, mime_base64=base64.b64encode(octets).decode())
        assert content == octets


@case("message-id")
async def _id(folder: Path) -> None:
    async with scene(folder) as here:
        await here.deliver(message_id="order-1")
        [stored] = here.world.queues.stored["success"]
        assert (stored.json["message-id"], stored.parcel.correlation_id) == ("order-1", "order-1")


@case("ips")
async def _source(folder: Path) -> None:
    async with scene(folder, smtp_default_ips=("127.0.0.8",)) as here:
        assert (await here.deliver(ips=["127.0.0.5"]))[0]["remote-ip"] == "127.0.0.5"
        assert (await here.deliver())[0]["remote-ip"] == "127.0.0.8"


@case("connection")
async def _where_it_came_in(folder: Path) -> None:
    async with scene(folder, smtp_default_ips=("127.0.0.8",)) as here:
        wish = {"ips": ["198.51.100.1"], "connection": {"local-ip": "198.51.100.1"}}
        assert (await here.deliver(**wish))[0]["remote-ip"] == "127.0.0.8"


@case("pool")
async def _pool(folder: Path) -> None:
    async with scene(folder) as here:
        bulk = Pool(id="bulk", created_at=START, name="bulk", members=(PoolMember("127.0.0.6"),))
        set_entries(here.world.control, "pools", bulk)
        assert (await here.deliver(pool="bulk"))[0]["remote-ip"] == "127.0.0.6"


@case("tags")
async def _tags(folder: Path) -> None:
    async with scene(folder) as here:
        await here.deliver(tags=["spring", "bulk"])
        assert here.world.queues.stored["success"][0].json["tags"] == ["spring", "bulk"]


@case("nextattempt.time", "delayed")
async def _later(folder: Path) -> None:
    async with scene(folder) as here:
        later = format_time(START + timedelta(hours=1))
        for properties in ({"nextattempt": {"time": later}}, {"delayed": later}):
            await here.world.deliver(outbox_json(**properties))
            assert here.sink.notes() == []
            [parked] = here.world.queues.stored.pop("outbox")
            assert parked.delay_s == 3600
        here.world.clock.forward(3600)
        await here.world.deliver(parked.parcel.body, message_id=parked.parcel.message_id)
        assert len(here.sink.notes()) == 1


@case("maxdelivertime")
async def _deadline(folder: Path) -> None:
    async with scene(folder, LATER) as here:
        soon = format_time(START + timedelta(seconds=10))
        result = await here.outcome("failure", maxdelivertime=soon)
        assert (result["code"], "not delivered before" in result["description"]) == (451, True)
        expired = await here.outcome("failure", maxdelivertime=format_time(START))
        assert (expired["state"], expired["result"]) == ("process", "timeout")


@case("maxattempts")
async def _attempts(folder: Path) -> None:
    async with scene(folder, LATER) as here:
        assert (await here.outcome("failure", maxattempts=1))["attempt"] == 1


@case("retries")
async def _intervals(folder: Path) -> None:
    async with scene(folder, LATER) as here:
        await here.outcome("retry", retries=[77])
        assert here.world.queues.stored["outbox"][0].delay_s == 77


@case("seen")
async def _life(folder: Path) -> None:
    async with scene(folder) as here:
        result = await here.outcome("failure", seen=format_time(START - timedelta(days=2)))
        assert (result["state"], result["result"]) == ("process", "timeout")


@case("results")
async def _history(folder: Path) -> None:
    async with scene(folder) as here:
        before = {"attempt": 1, "category": "greylist", "from": "127.0.0.7"}
        note, _ = await here.deliver(results=[before], ips=["127.0.0.5", "127.0.0.6", "127.0.0.7"])
        results = here.world.queues.stored["success"][0].json["results"]
        assert [results[0], results[1]["attempt"], note["remote-ip"]] == [before, 2, "127.0.0.7"]


@case("priority")
async def _priority(folder: Path) -> None:
    async with scene(folder) as here:
        await here.deliver(priority=9)
        assert here.world.queues.stored["success"][0].json["priority"] == 9


@case("security")
async def _encryption(folder: Path) -> None:
    async with scene(folder, "certificate: self-signed") as here:
        assert (await here.deliver(security="optional"))[0]["tls"] is None
        assert (await here.deliver(security="required"))[0]["tls"]["version"] == "TLSv1.3"
        assert (await here.outcome("retry", security="verified"))["state"] == "starttls"


@case(
    "smarthost.hostname", "smarthost.port", "smarthost.username", "smarthost.password", "smarthost.security"
)  # fmt: skip
async def _smarthost(folder: Path) -> None:
    async with (
        scripted(folder / "other", "certificate: self-signed\nlogin: ada:secret") as other,
        scene(folder) as here,
    ):
        named = {"hostname": "127.0.0.1", "port": other.port, "security": "optional"}
        await here.world.deliver(outbox_json(smarthost=named))
        assert [(note["forward-paths"], note["tls"]) for note in other.notes()] == [(["bob@example.com"], None)]
        login = {"hostname": "127.0.0.1", "port": other.port, "username": "ada", "password": "secret"}
        await here.world.deliver(outbox_json(smarthost=login))
        assert (other.notes()[1]["user"], other.notes()[1]["tls"] is not None) == ("ada", True)
        assert here.world.queues.stored["success"][1].json["smarthost"]["password"] == "***"
        assert (await here.outcome("retry", smarthost=login | {"password": "wrong"}))["state"] == "auth"
        assert (await here.outcome("retry", smarthost=named | {"security": "verified"}))["state"] == "starttls"
        assert here.sink.notes() == []


@case("queues.results", "queues.success")
async def _queues_of_success(folder: Path) -> None:
    async with scene(folder) as here:
        await here.deliver(queues={"results": "mine", "success": None})
        assert set(here.world.queues.stored) == {"mine"}


@case("queues.failure", "queues.dsn")
async def _queues_of_failure(folder: Path) -> None:
    async with scene(folder, NO) as here:
        await here.outcome("mine", queues={"failure": "mine", "results": None, "dsn": "told"})
        assert set(here.world.queues.stored) == {"mine", "told"}


@case("queues.retry")
async def _queue_of_retries(folder: Path) -> None:
    async with scene(folder, LATER) as here:
        assert (await here.outcome("mine", queues={"retry": "mine"}))["code"] == 451


@case("headers.remove", "headers.replace", "headers.update", "headers.prepend", "headers.append")
async def _edits(folder: Path) -> None:
    async with scene(folder) as here:
        edits = {
            "remove": "X-Gone", "replace": {"X-Set": "new"}, "update": {"X-There": "updated", "X-Not": "no"},
            "prepend": {"X-First": "1"}, "append": {"X-Last": ["2", "3"]},
        }  # fmt: skip
        mime = "X-Gone: a\r\nX-Set: old\r\nX-There: b\r\n\r\nbody\r\n"
        _, content = await here.deliver(mime=mime, headers=edits)
        assert content == (
            b"X-First: 1\r\nX-Set: new\r\nX-There: updated\r\nX-Last: 2\r\nX-Last: 3\r\n\r\nbody\r\n"
        )  # fmt: skip


@case("keepmime")
async def _kept_content(folder: Path) -> None:
    async with scene(folder) as here:
        await here.deliver(keepmime=True)
        assert here.world.queues.stored["success"][0].json["mime"] == outbox_json()["mime"]


@case("body")
async def _body_type(folder: Path) -> None:
    async with scene(folder) as here:
        note, _ = await here.deliver(body="8bitmime")
        assert note["body"] == "8bitmime"
        note, content = await here.deliver(body="binarymime", mime="A: b\r\n\r\na\nb\rc\0")
        assert (note["body"], content) == ("binarymime", b"A: b\r\n\r\na\nb\rc\0")


@case("smtputf8")
async def _utf8(folder: Path) -> None:
    async with scene(folder) as here:
        header = "Subject: Grüße\r\n\r\nbody\r\n"
        assert [(await here.deliver(mime=header, smtputf8=asked))[0]["smtputf8"] for asked in (True, False)] == [
            True,
            False,
        ]


@case("requiretls")
async def _tls_on_the_way(folder: Path) -> None:
    async with scene(folder) as here:
        result = await here.outcome("failure", requiretls=True)
        assert (result["state"], result["category"]) == ("starttls", "tls")


@case("dsn.notify", "dsn.ret", "dsn.orcpt", "dsn.envid")
async def _notices(folder: Path) -> None:
    asked = {"notify": "SUCCESS,FAILURE", "ret": "FULL", "orcpt": "rfc822;robert@example.com", "envid": "q-1"}
    async with scene(folder) as here:
        told = (await here.deliver(dsn=asked))[0]["dsn"]
        assert (told["ret"], told["envid"]) == ("FULL", "q-1")
        assert told["recipients"]["bob@example.com"] == {
            "notify": ["SUCCESS", "FAILURE"], "orcpt": "rfc822;robert@example.com",
        }  # fmt: skip
    async with scene(folder, NO) as here:
        await here.outcome("failure", dsn=asked)
        await here.outcome("failure", dsn={"notify": "NEVER"})
        [notice] = here.world.queues.stored["notices"]
        for words in ("Original-Envelope-Id: q-1", "Original-Recipient: rfc822; robert@example.com", "hello"):
            assert words in notice.json["mime"]


@case("idempotency-key")
async def _once(folder: Path) -> None:
    async with scene(folder) as here:
        await here.deliver(message_id="one", idempotency_key="k")
        result = await here.outcome("failure", message_id="two", idempotency_key="k")
        assert (result["state"], result["result"], len(here.sink.notes())) == ("process", "invalid", 1)


def tags_of(content: bytes, name: bytes) -> list[dict[str, str]]:
    """Return the tags of each field called *name*."""
    unfolded = content.partition(b"\r\n\r\n")[0].replace(b"\r\n ", b" ").replace(b"\r\n\t", b" ")
    found = [line.partition(b":")[2].decode() for line in unfolded.split(b"\r\n") if line.startswith(name + b":")]
    return [
        {key.strip(): re.sub(r"\s", "", value) for key, _, value in (tag.partition("=") for tag in text.split(";"))}
        for text in found
    ]


@case(
    "dkim.domain", "dkim.selector", "dkim.key", "dkim.headers", "dkim.expire", "dkim.canonicalization",
    "dkim.protocols", "dkim.oversign",
)  # fmt: skip
async def _signatures(folder: Path) -> None:
    first = {
        "domain": "example.org", "selector": "s1", "key": rsa_pem(), "headers": ["X-Mine"], "expire": 3600,
        "canonicalization": "simple/simple", "oversign": ["subject"],
    }  # fmt: skip
    second = {"domain": "example.net", "selector": "s2", "key": ed25519_pem(), "protocols": ["dkim", "arc"]}
    async with scene(folder) as here:
        mime = "From: <ada@example.org>\r\nSubject: hi\r\nX-Mine: yes\r\n\r\nbody\r\n"
        _, content = await here.deliver(mime=mime, dkim=[first, second])
        rsa, ed25519 = sorted(tags_of(content, b"DKIM-Signature"), key=lambda tags: tags["s"])
        assert [(tags["d"], tags["s"], tags["a"]) for tags in (rsa, ed25519)] == [
            ("example.org", "s1", "rsa-sha256"), ("example.net", "s2", "ed25519-sha256"),
        ]  # fmt: skip
        signed = rsa["h"].lower().split(":")
        assert (rsa["c"], "x-mine" in signed, signed.count("subject")) == ("simple/simple", True, 2)
        assert int(rsa["x"]) == int(START.timestamp()) + 3600
        assert [tags["d"] for tags in tags_of(content, b"ARC-Seal")] == ["example.net"]
        assert "BEGIN" not in str(here.world.queues.stored["success"][0].json["dkim"])


#: Described as a whole: what stands in them is written by us.
WHOLE = {"connection", "results"}


def names_of(rows: Sequence[Property], before: str = "") -> Iterator[str]:
    """Yield the name of every property, of those below others with both."""
    for row in rows:
        if row.properties and row.name not in WHOLE:
            yield from names_of(row.properties, f"{row.name}.")
        else:
            yield before + row.name


def test_every_property_of_the_outbox_has_a_case() -> None:
    """And every case is about one."""
    assert set(CASES) == set(names_of(OUTBOX))


@pytest.mark.parametrize("function", dict.fromkeys(CASES.values()), ids=lambda function: function.__name__)
async def test_properties_of_the_outbox(function: Case, tmp_path: Path) -> None:
    """Each changes what the mail host sees, or what is published."""
    await function(tmp_path)


async def test_unknown_properties_come_back(tmp_path: Path) -> None:
    """They are the sender's own."""
    async with scene(tmp_path) as here:
        await here.deliver(order={"number": 4711})
        assert here.world.queues.stored["success"][0].json["order"] == {"number": 4711}
