"""What must exist at the broker, and how a difference is explained."""

from __future__ import annotations

import pytest

from mtaq.broker.address import RabbitMQAddress
from mtaq.broker.options import BrokerOptions
from mtaq.broker.rabbitmq.ladder import RUNGS
from mtaq.broker.rabbitmq.topology import Plan, explain, plan
from mtaq.model.parcel import QueueSpec

_ADDRESS = RabbitMQAddress(nodes=(("h", 5672),), tls=False, user="u", password="p")
_SPECS = [QueueSpec(name="outbox", ladder=True, dead_letter_to="dead"), QueueSpec(name="dead")]


def _plan(*, version: tuple[int, ...] = (3, 10, 8), **options: object) -> Plan:
    return plan(_SPECS, BrokerOptions(addresses=_ADDRESS, **options), version=version)  # type: ignore[arg-type]  # passed on


def test_quorum_queues() -> None:
    """Quorum queues are durable, practically without a delivery limit, and dead-letter without loss."""
    outbox, dead = _plan(durable=False).queues[:2]
    assert (outbox.name, outbox.durable, dict(outbox.arguments)) == (
        "outbox",
        True,
        {
            "x-queue-type": "quorum",
            "x-delivery-limit": 1_000_000,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": "dead",
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        },
    )
    assert (dead.name, dict(dead.arguments)) == ("dead", {"x-queue-type": "quorum", "x-delivery-limit": 1_000_000})


def test_classic_queues() -> None:
    """Classic queues take durability and priorities; the ladder stays quorum."""
    outbox, dead, *rest = _plan(type="classic", durable=False, max_priority=9).queues
    assert dict(outbox.arguments) == {
        "x-queue-type": "classic",
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": "dead",
        "x-max-priority": 9,
    }
    assert (outbox.durable, dead.durable) == (False, False)
    assert {rung.arguments["x-queue-type"] for rung in rest} == {"quorum"}
    assert all(rung.durable for rung in rest)


@pytest.mark.parametrize(
    ("version", "there"), [((3, 10, 8), False), ((4, 2, 1), False), ((4, 3, 0), True), ((), False)]
)
def test_priorities_of_quorum_queues(version: tuple[int, ...], there: bool) -> None:
    """x-max-priority is asked of quorum queues only where the server knows it."""
    assert ("x-max-priority" in _plan(version=version, max_priority=9).queues[0].arguments) is there


def test_ladder() -> None:
    """Each rung dead-letters to the exchange below, the lowest to the queue itself."""
    made = _plan()
    by_name = {queue.name: queue.arguments for queue in made.queues}
    assert len(made.queues) == 2 + RUNGS
    assert len(made.exchanges) == RUNGS
    assert by_name["outbox.delay.3"]["x-dead-letter-exchange"] == "outbox.delay.2"
    assert "x-dead-letter-routing-key" not in by_name["outbox.delay.3"]
    lowest = by_name["outbox.delay.0"]
    assert (lowest["x-dead-letter-exchange"], lowest["x-dead-letter-routing-key"]) == ("", "outbox")
    assert all(arguments["x-delivery-limit"] == 1_000_000 for arguments in by_name.values())


def test_named_exchange() -> None:
    """A named exchange is direct and leads to every queue under its own name."""
    made = _plan(exchange="mail")
    assert [(each.name, each.type) for each in made.exchanges[:1]] == [("mail", "direct")]
    assert [(each.key, each.to) for each in made.bindings if each.exchange == "mail"] == [
        ("outbox", "outbox"),
        ("dead", "dead"),
    ]


@pytest.mark.parametrize(
    ("reply_text", "told"),
    [
        (
            "PRECONDITION_FAILED - inequivalent arg 'x-queue-type' for queue 'q' in vhost '/': "
            "received the value 'quorum' of type 'longstr' but current is none",
            "x-queue-type is none, wanted: 'quorum'",
        ),
        (
            "PRECONDITION_FAILED - inequivalent arg 'durable' for queue 'q' in vhost '/': "
            "received 'false' but current is 'true'",
            "durable is 'true', wanted: 'false'",
        ),
        (
            "PRECONDITION_FAILED - invalid arg 'x-max-priority' for queue 'q' in vhost '/' of queue type x",
            "invalid arg 'x-max-priority'",
        ),
    ],
)
def test_explain(reply_text: str, told: str) -> None:
    """An explanation names queue, argument, both values and what can be done."""
    text = explain("queue 'q'", reply_text)
    assert text.startswith("queue 'q'")
    assert told in text
    assert "drain" in text
