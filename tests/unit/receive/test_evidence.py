"""Evidence of refusals: kept beside everything else, and never without bound."""

from __future__ import annotations

import asyncio

import orjson
import pytest

from mtaq.model.address import Address
from mtaq.receive import evidence as module
from mtaq.receive.draft import Refusal
from mtaq.receive.evidence import BESIDE_BYTES, Evidence
from mtaq.smtp import codes
from tests.unit.receive.fakes import NOW, ManualBroker, facts, policy

REFUSAL = Refusal(codes.RELAY_DENIED, stage="rcpt")


def evidence(broker: ManualBroker, tasks: set[asyncio.Task[None]]) -> Evidence:
    """Return what keeps evidence in the queue ``refused``."""
    return Evidence(
        "refused", publisher=broker, watch=tasks.add, max_bytes=None, identify=lambda now: "test.0", clock=lambda: NOW
    )


async def test_a_flood_of_refused_envelopes_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused recipients have no content, and still cannot pile up behind a broker that does not confirm."""
    monkeypatch.setattr(module, "MOST_BYTES", 10 * BESIDE_BYTES)
    broker, tasks = ManualBroker(), set[asyncio.Task[None]]()
    kept, most, session = evidence(broker, tasks), 10, facts(policy())
    for number in range(most + 100):
        kept.keep_envelope(REFUSAL, session, None, Address(f"x{number}", "example.com"))
    assert len(tasks) == most
    await asyncio.sleep(0)
    for number in range(most):
        broker.settle(number)
    await asyncio.gather(*tasks)
    tasks.clear()
    kept.keep_envelope(REFUSAL, session, None, None)
    assert len(tasks) == 1


async def test_a_refused_sender_is_kept_without_a_recipient() -> None:
    """At MAIL there is none yet: the property is there, and empty."""
    broker, tasks = ManualBroker(), set[asyncio.Task[None]]()
    evidence(broker, tasks).keep_envelope(Refusal(codes.SENDER_DOMAIN_BAD, stage="mail"), facts(policy()), None, None)
    await asyncio.sleep(0)
    broker.settle(0)
    await asyncio.gather(*tasks)
    message = orjson.loads(broker.waiting[0][1].body)
    assert (message["recipient"], message["mime"], message["refused"]["stage"]) == ("", "", "mail")
