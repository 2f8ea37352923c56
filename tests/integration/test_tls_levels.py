"""Levels of TLS that operators set at run time, as mail hosts and queues see it."""

from __future__ import annotations

import asyncio
import os
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme

from mtaq.client import connect
from mtaq.model.control import RewriteRule, Scope, TlsLevel
from tests.support.delivery import START, World, options, outbox_json, set_entries
from tests.support.fake_mx import FakeMx, Script
from tests.support.instance import Relay

PATIENCE_S = 30.0
BASICS: Any = {"id": "one", "created_at": START}


@asynccontextmanager
async def scene(*scripts: Script, **changes: Any) -> AsyncIterator[tuple[World, FakeMx]]:
    """A relay whose outbox leads to one mail host, which has no TLS unless *scripts* say otherwise."""
    async with FakeMx(*scripts) as mx:
        sink = {"smtp_sink_address": "127.0.0.1", "smtp_sink_port": mx.port}
        async with World(options=options(**sink, **changes)) as world:
            yield world, mx


@pytest.fixture(scope="module")
def encrypted() -> Script:
    """A host with TLS, whose authority nobody knows."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    return Script(tls=context)


async def test_a_domain_for_which_tls_is_required_gets_nothing_in_clear():
    """Its host offers none: the message waits. Mail for other domains goes, and this too when the entry is gone."""
    async with scene() as (world, mx):
        set_entries(world.control, "tls_levels", TlsLevel(**BASICS, scope=Scope(domain="a.test"), level="required"))
        await world.deliver(outbox_json("bob@a.test"))
        result = world.result("retry")
        assert (result["state"], result["result"], result["status"]) == ("starttls", "error", "4.7.4")
        assert (result["tls-policy"], result["category"]) == ("required", "tls")
        assert not any(line.startswith("MAIL") for dialog in mx.dialogs for line in dialog)
        await world.deliver(outbox_json("bob@b.test"))
        assert [mail.secure for mail in mx.mail] == [False]
        assert world.result("success")["tls-policy"] == "opportunistic"
        set_entries(world.control, "tls_levels")
        await world.deliver(outbox_json("bob@a.test"))
        assert [mail.commands[1] for mail in mx.mail] == ["RCPT TO:<bob@b.test>", "RCPT TO:<bob@a.test>"]


async def test_an_entry_ends_by_itself():
    """From then on the configuration holds."""
    async with scene() as (world, mx):
        ends = START + timedelta(seconds=60)
        entry = TlsLevel(**BASICS, scope=Scope(domain="*.test"), level="verified", expires_at=ends)
        set_entries(world.control, "tls_levels", entry)
        await world.deliver(outbox_json("bob@a.test"))
        assert (world.result("retry")["tls-policy"], mx.mail) == ("verified", [])
        world.clock.forward(60)
        await world.deliver(outbox_json("bob@a.test"))
        assert len(mx.mail) == 1


async def test_a_connection_that_may_be_in_clear_is_not_used_for_what_must_not(encrypted: Script):
    """Mail for one site, before and after it was said: the second message has a connection of its own."""
    async with scene(encrypted, delivery_security="optional") as (world, mx):
        await world.deliver(outbox_json())
        set_entries(world.control, "tls_levels", TlsLevel(**BASICS, scope=Scope(site="example.com"), level="required"))
        await world.deliver(outbox_json())
        assert [(mail.connection, mail.secure) for mail in mx.mail] == [(0, False), (1, True)]


async def test_what_waits_when_an_entry_comes_is_looked_at_again():
    """A message that stands in line for a connection in clear does not go by it any more."""
    async with scene(delivery_connections_per_site=1) as (world, mx):
        mx.gate.clear()
        running = world.queues.hand_out(outbox_json("ann@a.test"))
        await mx.wait_for(lambda: mx.dialogs and "DATA" in mx.dialogs[0])
        waiting = world.queues.hand_out(outbox_json("bob@a.test"))
        set_entries(world.control, "tls_levels", TlsLevel(**BASICS, scope=Scope(), level="required"))
        mx.gate.set()
        assert (await running.outcome(), await waiting.outcome()) == ("ack", "ack")
        assert [mail.commands[1] for mail in mx.mail] == ["RCPT TO:<ann@a.test>"]
        assert world.result("retry")["tls-policy"] == "required"


async def test_a_message_has_its_own_way_and_a_rewrite_rule_the_last_word():
    """The message's `security` goes before an entry; a rule that sets it goes before both."""
    async with scene() as (world, mx):
        set_entries(world.control, "tls_levels", TlsLevel(**BASICS, scope=Scope(domain="a.test"), level="required"))
        await world.deliver(outbox_json("bob@a.test", security="opportunistic"))
        assert len(mx.mail) == 1
        rule = RewriteRule(
            **BASICS, position=1, kind="wildcard", recipient="*@a.test", properties={"security": "verified"}
        )
        set_entries(world.control, "rewrite_rules", rule)
        await world.deliver(outbox_json("bob@a.test", security="opportunistic"))
        assert (len(mx.mail), world.result("retry")["tls-policy"]) == (1, "verified")


class Running:
    """A relay, and an operator at its command line."""

    def __init__(self, relay: Relay, address: str) -> None:
        self.relay = relay
        self.address = address

    async def mtaq(self, *arguments: str) -> None:
        """Run a verb."""
        command = [sys.executable, "-m", "mtaq", *arguments, "--config", str(self.relay.configuration)]
        clean = {name: value for name, value in os.environ.items() if not name.startswith("MTAQ_")}
        done = await asyncio.to_thread(subprocess.run, command, env=clean, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr

    async def outcome(self, recipient: str) -> dict[str, Any]:
        """Send a message; return its first attempt."""
        async with connect(self.address) as queues:
            await queues.publish("outbox", outbox_json(recipient))
            async for message in queues.consume("outcomes", prefetch=1):
                async with message:
                    assert message["recipient"] == recipient
                    result: dict[str, Any] = message["results"][-1]
                    return result
        raise AssertionError("the queue ended")

    async def until(self, recipient: str, state: str) -> dict[str, Any]:
        """Send messages until one ends in *state*."""
        async with asyncio.timeout(PATIENCE_S):
            while (result := await self.outcome(recipient))["state"] != state:
                await asyncio.sleep(0.2)
            return result


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[tuple[Running, FakeMx]]:
    """A relay that delivers to a host without TLS."""
    address = f"embedded://{tmp_path / 'queue'}"
    async with FakeMx() as mx:
        relay = Relay(
            tmp_path, address, verb="deliver", smtp_sink_address="127.0.0.1", smtp_sink_port=mx.port, smtp_threads=1,
            rabbitmq_success="outcomes", rabbitmq_retry="outcomes",
        )  # fmt: skip
        try:
            await asyncio.to_thread(relay.start)
            await asyncio.to_thread(relay.wait_ready)
            yield Running(relay, address), mx
        finally:
            await asyncio.to_thread(relay.cleanup)


@pytest.mark.slow
async def test_an_operator_changes_a_running_relay(running: tuple[Running, FakeMx]):
    """What the verb says is in force soon, for that domain alone, and no longer when it is taken back."""
    relay, mx = running
    assert (await relay.outcome("bob@a.test"))["tls-policy"] == "opportunistic"
    await relay.mtaq("tls", "add", "required", "--domain", "a.test", "--reason", "by contract")
    result = await relay.until("bob@a.test", "starttls")
    assert (result["result"], result["status"], result["tls-policy"]) == ("error", "4.7.4", "required")
    taken = len(mx.mail)
    assert (await relay.outcome("bob@b.test"))["state"] == "message"
    assert (await relay.outcome("bob@a.test"))["state"] == "starttls"
    assert len(mx.mail) == taken + 1
    await relay.mtaq("tls", "add", "required", "--domain", "a.test", "--expires", "1s")
    assert (await relay.until("bob@a.test", "message"))["tls-policy"] == "opportunistic"
