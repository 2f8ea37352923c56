"""Delivery against real servers on loopback that misbehave on request; queues, journal and DNS are in memory."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import trustme

from mtaq.config import DeliveryTimeouts
from mtaq.net.tls import client_context
from tests.support.delivery import World, options, outbox_json, surroundings
from tests.support.fake_mx import OK, FakeMx, Script

#: Short enough for a test that waits for it, long enough for a slow machine that does not.
SOON = DeliveryTimeouts(*[0.5] * 10)


class StubbornMx:
    """A mail host in a thread of its own, which answers when told to while our event loop stands still."""

    def __enter__(self) -> StubbornMx:
        self.dot_came, self.may_answer = threading.Event(), threading.Event()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def _serve(self) -> None:
        peer, _ = self._socket.accept()
        with peer, peer.makefile("rb") as lines:
            peer.sendall(b"220 mx\r\n")
            in_content = False
            for line in lines:
                if in_content and line != b".\r\n":
                    continue
                if in_content:
                    self.dot_came.set()
                    self.may_answer.wait(20)
                in_content = line == b"DATA\r\n"
                peer.sendall(b"354 go\r\n" if in_content else b"250 ok\r\n")


@asynccontextmanager
async def relay(*scripts: Script, **changes) -> AsyncIterator[tuple[World, FakeMx]]:
    """A delivery service, and one MX for ``example.com`` with these scripts."""
    around = changes.pop("surroundings", None)
    async with FakeMx(*scripts) as mx:
        extra = {"surroundings": around} if around is not None else {}
        async with World(options=options(delivery_port=mx.port, **changes), **extra) as world:
            world.resolver.add("example.com", (10, "mx.example.com", mx.ip))
            yield world, mx


async def refused(script: Script, queue: str = "retry", **changes):
    """Deliver one message to a host with *script*; return its result from *queue*."""
    async with relay(script, **changes) as (world, _):
        assert await world.deliver(outbox_json()) == "ack"
        return world.result(queue)


# What arrives.


async def test_a_message_arrives_and_its_result_says_all():
    """The content arrives byte for byte; success and results get the whole story; then the ack."""
    async with relay() as (world, mx):
        content = "Subject: hi\r\n\r\n.dot\r\n..\r\nGrüße\r\n"
        assert await world.deliver(outbox_json(mime=content, tags=["a"], whatever={"kept": 1})) == "ack"
        [mail] = mx.mail
        assert mail.content == content.encode()
        assert mail.commands == (
            "MAIL FROM:<ada@example.org> SIZE=34 BODY=8BITMIME",
            "RCPT TO:<bob@example.com>",
        )
        assert mx.dialogs[0] == ["EHLO out.test", *mail.commands, "DATA"]
        [success], [final] = world.queues.stored["success"], world.queues.stored["results"]
        assert success.json == final.json
        assert success.json["tags"] == ["a"]
        assert success.json["whatever"] == {"kept": 1}
        assert "mime" not in success.json
        assert success.json["extracted"]["subject"] == "hi"
        [result] = success.json["results"]
        assert result == {
            "attempt": 1,
            "time": "2026-01-02 03:04:05",
            "state": "message",
            "result": "accepted",
            "mta": "mx.test",
            "from": "127.0.0.1",
            "to": "127.0.0.1",
            "code": 250,
            "status": "2.0.0",
            "description": "queued as 42",
            "tls-policy": "opportunistic",
            "messages": 1,
            "sent": result["sent"],
            "duration": result["duration"],
            "dsn": False,
        }
        assert result["sent"]["data"] == len(content.encode()) + 2 + 3  # two dots doubled, and the final dot
        assert result["sent"]["connection"] > result["sent"]["data"]
        parcel = success.parcel
        assert (parcel.type, parcel.correlation_id, parcel.priority) == ("mtaq.result.v1", "test.1", 3)
        assert world.queues.stored["outbox"] == world.queues.stored["failure"] == world.queues.stored["retry"] == []


@pytest.mark.parametrize(
    ("mime", "arrives"),
    [
        ("a: b\n\nbody\n", b"a: b\r\n\r\nbody\r\n"),
        ("a: b\r\n\r\nno end", b"a: b\r\n\r\nno end\r\n"),
        ("", b""),
        ("a: b\r\n\r\n\n.\n", b"a: b\r\n\r\n\r\n.\r\n"),
    ],
)
async def test_line_ends_become_crlf(mime, arrives):
    """A script's LF cannot end the message early."""
    async with relay() as (world, mx):
        await world.deliver(outbox_json(mime=mime))
        assert mx.mail[0].content == arrives


async def test_binary_content_goes_by_bdat_unchanged():
    """Its line ends are its own."""
    script = Script(replies={"EHLO": b"250-mx\r\n250-CHUNKING\r\n250 BINARYMIME\r\n"})
    async with relay(script) as (world, mx):
        message = outbox_json(body="binarymime", mime_base64="AC4NCi4KDQoNAA==")
        del message["mime"]
        await world.deliver(message)
        assert mx.mail[0].content == b"\x00.\r\n.\n\r\n\r\x00"


async def test_header_edits_are_made():
    """``headers`` changes what is sent, not what comes back."""
    async with relay() as (world, mx):
        await world.deliver(outbox_json(headers={"prepend": {"X-Checked": "yes"}, "remove": ["subject"]}))
        assert mx.mail[0].content == b"X-Checked: yes\r\n\r\nhello\r\n"


@pytest.mark.parametrize("megabytes", [5])
async def test_a_large_content_arrives(megabytes):
    """Many blocks are one content."""
    content = "Subject: big\r\n\r\n" + ("." + "x" * 997 + "\r\n") * 1000 * megabytes
    async with relay() as (world, mx):
        await world.deliver(outbox_json(mime=content))
        assert mx.mail[0].content == content.encode()


async def test_utf8_addresses_and_a_labels():
    """SMTPUTF8 is used where the peer knows it; where not, domains become A-labels and local-parts fail."""
    plain = Script(replies={"EHLO": b"250 mx\r\n"})
    async with relay(plain) as (world, mx):
        world.resolver.add("xn--bcher-kva.example", (1, "mx.example.com", mx.ip))
        await world.deliver(outbox_json("bob@bücher.example"))
        assert mx.mail[0].commands[1] == "RCPT TO:<bob@xn--bcher-kva.example>"
        await world.deliver(outbox_json("jörg@bücher.example"))
        failure = world.result("failure")
        assert (failure["code"], failure["status"], failure["state"]) == (553, "5.6.7", "mailfrom")


# What is refused, and how it ends.


REFUSALS = {
    "banner 554": ({"banner": b"554 5.7.1 go away\r\n"}, "failure", ("intro", "error", 554, "5.7.1")),
    "banner 421": ({"banner": b"421 4.3.2 later\r\n"}, "retry", ("intro", "error", 421, "4.3.2")),
    "EHLO 450": ({"EHLO": b"450 4.3.2 later\r\n"}, "retry", ("ehlo", "error", 450, "4.3.2")),
    "MAIL 550": ({"MAIL": b"550 5.1.8 bad sender\r\n"}, "failure", ("mailfrom", "error", 550, "5.1.8")),
    "MAIL 451": ({"MAIL": b"451 4.7.1 later\r\n"}, "retry", ("mailfrom", "error", 451, "4.7.1")),
    "RCPT 550": ({"RCPT": b"550 5.1.1 no such user\r\n"}, "failure", ("rcptto", "error", 550, "5.1.1")),
    "RCPT 450": ({"RCPT": b"450 4.7.1 greylisted\r\n"}, "retry", ("rcptto", "error", 450, "4.7.1")),
    "DATA 451": ({"DATA": b"451 4.3.0 disk\r\n"}, "retry", ("data", "error", 451, "4.3.0")),
    "DATA 554": ({"DATA": b"554 5.5.1 no\r\n"}, "failure", ("data", "error", 554, "5.5.1")),
    "content 552": ({"content": b"552 5.2.2 full\r\n"}, "failure", ("message", "error", 552, "5.2.2")),
    "content 452": ({"content": b"452 4.2.2 full\r\n"}, "retry", ("message", "error", 452, "4.2.2")),
    "garbage": ({"banner": b"SSH-2.0-OpenSSH_9\r\n"}, "retry", ("intro", "invalid", None, "4.5.0")),
    "10,000 lines": ({"EHLO": b"250-x\r\n" * 10_000}, "retry", ("ehlo", "invalid", None, "4.5.0")),
    "endless line": ({"MAIL": b"250 " + b"x" * 100_000}, "retry", ("mailfrom", "invalid", None, "4.5.0")),
    "no 354": ({"DATA": b"250 well\r\n"}, "retry", ("data", "invalid", None, "4.5.0")),
    "no answer": ({"content": b""}, "retry", ("message", "timeout", None, "4.4.2")),
}


@pytest.mark.parametrize("name", REFUSALS)
async def test_refusals_end_where_they_were_given(name):
    """4yz and nonsense are tried again, 5yz is final; the result says where it happened."""
    replies, queue, expected = REFUSALS[name]
    result = await refused(Script(replies=replies), queue, delivery_timeouts=SOON)
    assert (result["state"], result["result"], result.get("code"), result["status"]) == expected


async def test_a_recipients_refusal_with_354_sends_no_content():
    """RFC 2920 §3.1: the lone dot ends it, and whatever it is answered, nothing was delivered."""
    script = Script(replies={"RCPT": b"550 5.1.1 who?\r\n"})
    async with relay(script) as (world, mx):
        await world.deliver(outbox_json())
        assert world.result("failure")["state"] == "rcptto"
        assert [mail.content for mail in mx.mail] == [b""]


LOSSES = {
    "banner": "intro",
    "EHLO": "ehlo",
    "MAIL": "mailfrom",
    "RCPT": "rcptto",
    "DATA": "data",
    "content": "message",
}


@pytest.mark.parametrize("stage", LOSSES)
async def test_a_lost_connection_defers(stage):
    """The result says where the connection was; after the final dot nothing is tried again within the attempt."""
    async with relay(Script(drop=frozenset({stage}))) as (world, mx):
        assert await world.deliver(outbox_json()) == "ack"
        result = world.result("retry")
        assert (result["state"], result["result"], result["status"]) == (LOSSES[stage], "lost", "4.4.2")
        assert len(mx.dialogs) == 1


@pytest.mark.parametrize("stage", LOSSES)
async def test_a_silent_host_times_out(stage):
    """Each phase has its time."""
    result = await refused(Script(stall=frozenset({stage})), delivery_timeouts=SOON)
    assert (result["state"], result["result"]) == (LOSSES[stage], "timeout")


async def test_slow_bytes_do_not_stretch_a_phase():
    """A banner that never ends is cut off when the phase is over, however often a byte comes."""
    script = Script(replies={"banner": b"220-" + b"hello " * 100 + b"\r\n220 mx\r\n"}, byte_pause_s=0.1)
    result = await refused(script, delivery_timeouts=SOON)
    assert (result["state"], result["result"]) == ("intro", "timeout")


async def test_an_attempt_has_its_own_time():
    """The attempt's time-out ends whatever goes on, and the state says what that was."""
    result = await refused(Script(stall=frozenset({"DATA"})), delivery_attempt_timeout=1)
    assert (result["state"], result["result"]) == ("data", "timeout")


@pytest.mark.parametrize("lines", [1, 1000])
async def test_behind_the_final_dot_the_attempts_time_does_not_count(lines):
    """Who gives up there sends twice: the answer has the time of ``dot``, however late the transaction began."""
    async with relay(delivery_attempt_timeout=2) as (world, mx):
        mx.gate.clear()
        consumed = world.queues.hand_out(outbox_json(mime="Subject: hi\r\n\r\n" + ("x" * 990 + "\r\n") * lines))
        await mx.wait_for(lambda: mx.dialogs and mx.dialogs[0][-1:] == ["DATA"])
        await asyncio.sleep(2.2)
        mx.gate.set()
        await consumed.outcome()
        assert world.result("success")["code"] == 250


@pytest.mark.parametrize("lines", [1, 1000])
async def test_an_answer_that_came_while_the_process_stood_still_counts(lines):
    """Frozen beyond the time for the final dot: the 250 is there when it goes on, and the mail is not sent twice."""
    with StubbornMx() as mx:
        timeouts = options().delivery_timeouts._replace(dot=1)
        async with World(options=options(delivery_port=mx.port, delivery_timeouts=timeouts)) as world:
            world.resolver.add("example.com", (10, "mx.example.com", "127.0.0.1"))
            consumed = world.queues.hand_out(outbox_json(mime="Subject: hi\r\n\r\n" + ("x" * 990 + "\r\n") * lines))
            await asyncio.to_thread(mx.dot_came.wait, 20)
            await asyncio.sleep(0.05)  # so that the answer is being waited for
            mx.may_answer.set()
            time.sleep(1.5)  # the event loop is to stand still
            await consumed.outcome()
            assert world.result("success")["code"] == 250


async def test_an_early_refusal_stops_the_content():
    """A host that has enough after 100 KB is not sent 20 MB."""
    content = "Subject: big\r\n\r\n" + ("x" * 998 + "\r\n") * 20_000
    async with relay(Script(refuse_after_bytes=100_000)) as (world, _):
        await world.deliver(outbox_json(mime=content))
        result = world.result("failure")
        assert (result["state"], result["code"], result["status"]) == ("data", 552, "5.3.4")
        assert result["sent"]["data"] < 15_000_000


async def test_a_host_that_stops_reading_times_out():
    """``block`` bounds the time for each piece of content."""
    content = "Subject: big\r\n\r\n" + ("x" * 998 + "\r\n") * 20_000
    async with relay(Script(refuse_after_bytes=10, early=b""), delivery_timeouts=SOON) as (world, _):
        await world.deliver(outbox_json(mime=content))
        result = world.result("retry")
        assert (result["state"], result["result"]) == ("data", "timeout")


async def test_too_large_for_the_host_is_not_offered():
    """SIZE settles it before MAIL."""
    script = Script(replies={"EHLO": b"250-mx\r\n250 SIZE 20\r\n"})
    async with relay(script) as (world, mx):
        await world.deliver(outbox_json())
        result = world.result("failure")
        assert (result["code"], result["status"], result["category"]) == (552, "5.3.4", "content")
        assert mx.dialogs == [["EHLO out.test"]]


async def test_what_peers_write_is_cleaned_and_cut():
    """Control characters and endless texts stay out of the result."""
    text = b"550-5.1.1 \x1b[31mno\x00 \xff\r\n" + b"550-5.1.1 " + b"long " * 300 + b"\r\n550 5.1.1 end\r\n"
    result = await refused(Script(replies={"RCPT": text}), "failure")
    assert result["description"].startswith("[31mno  \ufffd long")
    assert len(result["description"]) == 1000


# Which host.


@asynccontextmanager
async def two_hosts(first: Script, second: Script, **changes) -> AsyncIterator[tuple[World, FakeMx, FakeMx]]:
    """Two MX hosts, the first preferred."""
    async with (
        FakeMx(first, ip="127.0.0.2") as one,
        FakeMx(second, ip="127.0.0.3", port=one.port) as two,
        World(options=options(delivery_port=one.port, **changes)) as world,
    ):
        world.resolver.add("example.com", (10, "one.example.com", one.ip), (20, "two.example.com", two.ip))
        yield world, one, two


@pytest.mark.parametrize(
    "first",
    [
        Script(replies={"banner": b"554 no\r\n"}),
        Script(replies={"banner": b"421 busy\r\n"}),
        Script(replies={"EHLO": b"450 busy\r\n"}),
        Script(replies={"EHLO": b"550 no\r\n", "HELO": b"550 no\r\n"}),
        Script(drop=frozenset({"banner"})),
        Script(stall=frozenset({"banner"})),
    ],
    ids=["554", "421", "ehlo 450", "ehlo and helo 550", "closes", "silent"],
)
async def test_the_next_host_is_used(first):
    """Whoever does not come as far as EHLO is passed over within the attempt."""
    async with two_hosts(first, Script(), delivery_timeouts=SOON) as (world, one, two):
        await world.deliver(outbox_json())
        assert world.result("success")["to"] == "127.0.0.3"
        assert (len(one.dialogs), len(two.mail)) == (1, 1)


async def test_the_preferred_host_is_used_and_a_refusal_there_is_no_reason_to_ask_another():
    """What a host says to MAIL or RCPT is the site's word."""
    async with two_hosts(Script(replies={"RCPT": b"450 4.2.0 later\r\n"}), Script()) as (world, one, two):
        await world.deliver(outbox_json())
        assert world.result("retry")["to"] == "127.0.0.2"
        assert (len(one.dialogs), len(two.dialogs)) == (1, 0)


async def test_one_hosts_no_is_not_the_sites_while_another_could_not_be_asked():
    """A 554 greeting and a dead host make a deferral."""
    async with two_hosts(Script(drop=frozenset({"banner"})), Script(replies={"banner": b"554 no\r\n"})) as (world, *_):
        await world.deliver(outbox_json())
        assert world.result("retry")["result"] == "lost"


async def test_hosts_that_all_say_no_are_final():
    """554 everywhere is a failure."""
    no = Script(replies={"banner": b"554 no\r\n"})
    async with two_hosts(no, no) as (world, *_):
        await world.deliver(outbox_json())
        assert world.result("failure")["code"] == 554


async def test_a_dead_site_defers_everything_that_waits_for_it_at_once():
    """Messages to a host that is down cost one time-out, not one each."""
    script = Script(stall=frozenset({"banner"}))
    async with relay(script, delivery_timeouts=SOON) as (world, mx):
        consumed = [world.queues.hand_out(outbox_json(f"user{n}@example.com")) for n in range(50)]
        for message in consumed:
            assert await message.outcome() == "ack"
        assert len(world.queues.stored["retry"]) == 50
        assert len(mx.dialogs) == 1


async def test_the_source_address_is_the_messages():
    """``ips`` before the default IPs, those before the kernel's choice."""
    async with relay(smtp_default_ips=("127.0.0.8",)) as (world, mx):
        await world.deliver(outbox_json(ips=["127.0.0.9"]))
        await world.deliver(outbox_json())
        assert [mail.client_ip for mail in mx.mail] == ["127.0.0.9", "127.0.0.8"]


async def test_a_mapped_address_is_a_wish():
    """An ``ips`` that reception wrote and that is not ours falls back to the default IPs, and the log says so."""
    mapped = {"ips": ["198.51.100.1"], "connection": {"local-ip": "198.51.100.1"}}
    async with relay(smtp_default_ips=("127.0.0.8",)) as (world, mx):
        await world.deliver(outbox_json(**mapped))
        assert mx.mail[0].client_ip == "127.0.0.8"
        [line] = world.lines.of("delivery.fallback")
        assert (line["local_ip"], line["egress_source"]) == ("198.51.100.1", "127.0.0.8")


@pytest.mark.parametrize("ips", [["198.51.100.1"], ["198.51.100.1", "198.51.100.2"], ["nonsense"]])
async def test_ips_of_which_none_can_be_bound_fail(ips):
    """``bind``/``error`` is final."""
    async with relay(smtp_default_ips=("127.0.0.8",)) as (world, mx):
        await world.deliver(outbox_json(ips=ips))
        result = world.result("failure")
        assert (result["state"], result["result"]) == ("bind", "error")
        assert mx.dialogs == []


async def test_default_addresses_that_cannot_be_bound_delay_and_bounce_nothing():
    """A wrong ``smtp-default-ips`` is the operator's mistake, not the message's: transient, alone and behind a wish."""
    mapped = {"ips": ["198.51.100.1"], "connection": {"local-ip": "198.51.100.1"}}
    for message in (outbox_json(), outbox_json(**mapped)):
        async with relay(smtp_default_ips=("198.51.100.2",)) as (world, mx):
            await world.deliver(message)
            result = world.result("retry")
            assert (result["state"], result["result"], result["status"]) == ("bind", "error", "4.3.5")
            assert mx.dialogs == []


async def test_one_bindable_address_is_enough():
    """The others are passed over."""
    async with relay() as (world, mx):
        await world.deliver(outbox_json(ips=["198.51.100.1", "127.0.0.9", "198.51.100.2"]))
        assert mx.mail[0].client_ip == "127.0.0.9"


async def test_a_source_of_the_other_family_is_no_bind_error():
    """An IPv6 source cannot reach an IPv4 host: that is deferred, and another source is tried first."""
    async with relay() as (world, mx):
        await world.deliver(outbox_json(ips=["::1"]))
        assert world.result("retry")["state"] == "connect"
        await world.deliver(outbox_json(ips=["::1", "127.0.0.9"]))
        assert mx.mail[0].client_ip == "127.0.0.9"


async def test_a_smarthost_gets_everything():
    """Without a look at the recipient's MX."""
    async with FakeMx() as mx:
        changes = {"smarthost": "relay.test", "smarthost_port": mx.port, "delivery_allow_private": False}
        async with World(options=options(**changes)) as world:
            world.resolver.ips["relay.test"] = [mx.ip]
            await world.deliver(outbox_json("bob@nowhere.example"))
            await world.deliver(outbox_json("cem@elsewhere.example"))
            assert len(mx.mail) == 2
            assert world.resolver.asked == ["relay.test"]
            assert len(mx.dialogs) == 1


async def test_a_message_names_its_own_smarthost():
    """``smarthost`` of a message goes before its MX and before the configured smarthost."""
    around = World(options=options(smarthost="other.test", delivery_allow_private=False))
    async with FakeMx() as mx, around as world:
        world.resolver.ips["relay.test"] = [mx.ip]
        await world.deliver(outbox_json("bob@nowhere.example", smarthost={"hostname": "relay.test", "port": mx.port}))
        assert len(mx.mail) == 1
        assert world.resolver.asked == ["relay.test"]


@pytest.mark.parametrize(
    "smarthost",
    [
        {"port": 25},
        {"hostname": "a b"},
        {"hostname": "a.test", "port": 0},
        {"hostname": "a", "username": "u"},
        {"hostname": "a", "security": "none"},
    ],
)
async def test_a_smarthost_that_cannot_be_used_as_asked_goes_to_the_dead_queue(smarthost):
    """Nothing is sent in another way than the message says."""
    async with relay() as (world, mx):
        await world.deliver(outbox_json(smarthost=smarthost))
        assert len(world.queues.stored["dead"]) == 1
        assert mx.dialogs == []


async def test_a_sink_gets_everything_and_dns_is_not_asked():
    """Each domain keeps its own connections."""
    async with FakeMx() as mx:
        changes = {"smtp_sink_address": "127.0.0.1", "smtp_sink_port": mx.port, "delivery_allow_private": False}
        async with World(options=options(**changes)) as world:
            await world.deliver(outbox_json("bob@nowhere.example"))
            await world.deliver(outbox_json("cem@elsewhere.example"))
            assert len(mx.mail) == len(mx.dialogs) == 2
            assert world.resolver.asked == ["127.0.0.1", "127.0.0.1"]


# Connections.


async def test_connections_are_reused_up_to_their_limit():
    """``delivery-messages-per-connection`` counts, and the results tell how many."""
    async with relay(delivery_messages_per_connection=3, delivery_connections_per_site=1) as (world, mx):
        for n in range(7):
            await world.deliver(outbox_json(f"user{n}@example.com"))
        assert [mail.connection for mail in mx.mail] == [0, 0, 0, 1, 1, 1, 2]
        assert [stored.json["results"][0]["messages"] for stored in world.queues.stored["success"]] == [
            1, 2, 3, 1, 2, 3, 1,
        ]  # fmt: skip
        await mx.wait_for(lambda: [dialog[-1] for dialog in mx.dialogs[:2]] == ["QUIT", "QUIT"])


async def test_connections_grow_with_the_work_up_to_the_cap():
    """Never more than ``delivery-connections-per-site`` at once."""
    async with relay(delivery_connections_per_site=4) as (world, mx):
        mx.gate.clear()
        consumed = [world.queues.hand_out(outbox_json(f"user{n}@example.com")) for n in range(30)]
        await mx.wait_for(lambda: mx.open == 4)
        mx.gate.set()
        for message in consumed:
            assert await message.outcome() == "ack"
        assert len(mx.mail) == 30
        assert mx.most_open == 4


async def test_domains_with_the_same_hosts_share_connections():
    """They are one site."""
    async with relay() as (world, mx):
        world.resolver.add("example.net", (5, "mx.example.com", mx.ip))
        await world.deliver(outbox_json("bob@example.com"))
        await world.deliver(outbox_json("bob@example.net"))
        assert [mail.connection for mail in mx.mail] == [0, 0]


async def test_idle_connections_are_closed_with_quit():
    """``delivery-idle`` ends them."""
    async with relay(delivery_idle=0) as (world, mx):
        await world.deliver(outbox_json())
        await mx.wait_for(lambda: mx.dialogs[0][-1:] == ["QUIT"] and mx.open == 0)


async def test_an_idle_connection_on_which_the_peer_speaks_is_dropped():
    """An unasked 421, or anything else, makes it useless; the next message gets a fresh one."""
    async with relay(Script(idle_words=b"421 4.4.2 bye\r\n"), Script()) as (world, mx):
        await world.deliver(outbox_json())
        assert world.result("success")["code"] == 250
        await mx.wait_for(lambda: mx.open == 0)
        await world.deliver(outbox_json("cem@example.com"))
        assert [mail.connection for mail in mx.mail] == [0, 1]
        assert world.queues.stored["retry"] == []


@pytest.mark.parametrize(
    "script",
    [
        Script(replies={"MAIL": [OK["MAIL"], b"421 4.7.0 one is enough\r\n"]}),
        Script(replies={"MAIL": [OK["MAIL"], b"421 4.7.0 one is enough\r\n"]}, close_after=frozenset({"QUIT"})),
    ],
)
async def test_a_reused_connection_of_no_use_costs_no_attempt(script):
    """421 to MAIL on it, before anything was at risk: a fresh one is used at once."""
    async with relay(script, delivery_connections_per_site=1) as (world, mx):
        for n in range(4):
            await world.deliver(outbox_json(f"user{n}@example.com"))
        assert [mail.connection for mail in mx.mail] == [0, 1, 2, 3]
        assert world.queues.stored["retry"] == []


async def test_421_on_a_fresh_connection_defers():
    """There it is the host's word."""
    result = await refused(Script(replies={"MAIL": b"421 4.7.0 not today\r\n"}))
    assert (result["state"], result["code"]) == ("mailfrom", 421)


async def test_a_queue_that_has_no_connection_gets_one_of_a_full_site():
    """A busy source does not starve another one."""
    async with relay(delivery_connections_per_site=1, delivery_idle=60) as (world, mx):
        await world.deliver(outbox_json(ips=["127.0.0.8"]))
        async with asyncio.timeout(10):
            await world.deliver(outbox_json(ips=["127.0.0.9"]))
        assert [mail.client_ip for mail in mx.mail] == ["127.0.0.8", "127.0.0.9"]
        assert mx.most_open == 1


# TLS.


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def server_tls(authority: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


def trusting(authority: trustme.CA):
    verified = client_context(verified=True)
    authority.configure_trust(verified)
    return surroundings(verified=verified)


async def test_starttls_is_used_where_offered(authority):
    """Opportunistic TLS takes any certificate, and the result tells which."""
    async with relay(Script(tls=server_tls(authority, "other.test"))) as (world, mx):
        await world.deliver(outbox_json())
        assert mx.mail[0].secure
        result = world.result("success")
        assert result["tls-policy"] == "opportunistic"
        assert result["cipher"]["version"] == "TLSv1.3"
        assert result["cipher"]["bits"] >= 128
        assert result["certificate"]["verified"] is False
        assert result["certificate"]["subject"]
        assert result["certificate"]["notafter"]
        assert mx.dialogs[0][:3] == ["EHLO out.test", "STARTTLS", "EHLO out.test"]


async def test_a_broken_handshake_is_retried_in_clear():
    """Opportunistic: on a new connection, within the attempt."""
    async with relay(Script(break_tls=True)) as (world, mx):
        await world.deliver(outbox_json())
        assert [mail.secure for mail in mx.mail] == [False]
        assert mx.mail[0].connection == 1


@pytest.mark.parametrize("security", ["required", "verified"])
@pytest.mark.parametrize("script", [Script(), Script(break_tls=True), Script(replies={"STARTTLS": b"454 no\r\n"})])
async def test_required_tls_never_goes_in_clear(security, script):
    """It is deferred, at ``starttls``."""
    async with relay(script) as (world, mx):
        await world.deliver(outbox_json(security=security))
        assert world.result("retry")["state"] == "starttls"
        assert world.result("retry")["category"] == "tls"
        assert mx.mail == []


async def test_optional_does_not_use_starttls(authority):
    """Even where it is offered."""
    async with relay(Script(tls=server_tls(authority, "mx.example.com")), delivery_security="optional") as (world, mx):
        await world.deliver(outbox_json())
        assert not mx.mail[0].secure
        assert world.result("success")["tls-policy"] == "none"


async def test_refused_starttls_goes_on_in_clear():
    """454 under opportunistic: the same session, unencrypted."""
    ehlo = b"250-mx\r\n250 STARTTLS\r\n"
    async with relay(Script(replies={"EHLO": ehlo, "STARTTLS": b"454 4.7.0 not now\r\n"})) as (world, mx):
        await world.deliver(outbox_json())
        assert mx.mail[0].connection == 0


@pytest.mark.parametrize(("name", "queue"), [("mx.example.com", "success"), ("other.test", "retry")])
async def test_verified_wants_a_certificate_for_the_host(authority, name, queue):
    """Of an authority that is trusted, for the MX host's name."""
    script = Script(tls=server_tls(authority, name))
    async with relay(script, surroundings=trusting(authority), delivery_security="verified") as (world, _):
        await world.deliver(outbox_json())
        result = world.result(queue)
        assert result["tls-policy"] == "verified"
        if queue == "success":
            assert result["certificate"]["verified"] is True
        else:
            assert (result["state"], result["result"]) == ("starttls", "error")


@pytest.mark.parametrize("promised", [True, False])
async def test_requiretls_goes_only_to_hosts_that_promise_it(authority, promised):
    """RFC 8689 §4.2.1: a verified host that announces REQUIRETLS is told so with MAIL; any other ends it for good."""
    extensions = b"250-mx\r\n250-STARTTLS\r\n250 REQUIRETLS\r\n" if promised else b"250-mx\r\n250 STARTTLS\r\n"
    script = Script(tls=server_tls(authority, "mx.example.com"), replies={"EHLO": extensions})
    async with relay(script, surroundings=trusting(authority), delivery_security="optional") as (world, mx):
        await world.deliver(outbox_json(requiretls=True))
        if promised:
            assert world.result("success")["certificate"]["verified"] is True
            assert mx.mail[0].commands[0].endswith(" REQUIRETLS")
        else:
            result = world.result("failure")
            assert (result["code"], result["status"]) == (550, "5.7.30")
            assert not mx.mail


async def test_requiretls_is_never_sent_in_clear(authority):
    """A host without STARTTLS does not get it, whatever the configuration would allow."""
    async with relay(Script(), surroundings=trusting(authority), delivery_security="optional") as (world, mx):
        await world.deliver(outbox_json(requiretls=True))
        item = world.result("failure")
        assert (item["state"], item["code"], item["status"]) == ("starttls", 550, "5.7.10")
        assert not mx.mail


async def test_bytes_in_clear_behind_starttls_are_not_taken_for_tls(authority):
    """A man in the middle cannot put words into the session; opportunistic then goes in clear anew."""
    script = Script(tls=server_tls(authority, "mx"), replies={"STARTTLS": b"220 go\r\n250 SIZE 1\r\n"})
    async with relay(replace(script, replies={"EHLO": b"250-mx\r\n250 STARTTLS\r\n", **script.replies})) as (world, _):
        await world.deliver(outbox_json(security="required"))
        result = world.result("retry")
        assert (result["state"], result["result"]) == ("starttls", "invalid")


# The end.


async def test_stopping_gives_back_what_was_not_begun_and_finishes_the_rest():
    """In flight: finished and acked. Waiting: requeued. Nothing is lost, nothing sent twice."""
    async with relay(delivery_connections_per_site=1) as (world, mx):
        mx.gate.clear()
        consumed = [world.queues.hand_out(outbox_json(f"user{n}@example.com")) for n in range(5)]
        await mx.wait_for(lambda: mx.dialogs and mx.dialogs[0][-1:] == ["DATA"])
        stopping = asyncio.ensure_future(world.service.stop(grace_s=10))
        assert [await message.outcome() for message in consumed[1:]] == ["requeue"] * 4
        assert not world.queues.consuming
        mx.gate.set()
        await stopping
        assert await consumed[0].outcome() == "ack"
        assert len(mx.mail) == 1
        assert world.claims.held == set()


async def test_stopping_ends_with_the_grace_period():
    """What does not finish is given back."""
    async with relay(Script(stall=frozenset({"content"}))) as (world, mx):
        consumed = world.queues.hand_out(outbox_json())
        await mx.wait_for(lambda: mx.dialogs and mx.dialogs[0][-1:] == ["DATA"])
        await world.service.stop(grace_s=0.1)
        assert await consumed.outcome() == "requeue"


async def test_new_options_hold_from_the_next_message_on():
    """``reload`` needs no restart."""
    async with relay(smtp_default_ips=("127.0.0.8",)) as (world, mx):
        await world.deliver(outbox_json())
        world.service.reload(replace(world.options, smtp_default_ips=("127.0.0.9",)))
        await world.deliver(outbox_json())
        assert [mail.client_ip for mail in mx.mail] == ["127.0.0.8", "127.0.0.9"]
