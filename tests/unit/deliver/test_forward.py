"""Which waiting mail is meant, and how it is sent forward."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from mtaq.deliver.forward import FORWARD_HEADER, USUAL, Cause, Lying, Wanted, forwarded, names_site
from mtaq.deliver.intake import REDELIVERED_HEADER


@dataclass
class Waits:
    """A message in the delay queues."""

    message: dict[str, Any] | bytes
    headers: dict[str, str | int | bool] = field(default_factory=dict)
    queue: str = "outbox.delay.3"
    type: str = ""
    correlation_id: str = ""
    message_id: str = "amqp-id"
    priority: int = 2

    @property
    def body(self) -> bytes:
        return self.message if isinstance(self.message, bytes) else json.dumps(self.message).encode()


def parked(reason: str, **message: Any) -> Waits:
    headers: dict[str, str | int | bool] = {
        "parked-reason": reason, "parked-site": "mx1.example.net,mx2.example.net:26", "parked-source": "127.0.0.2",
        "traceparent": "00-a-b-01",
    }  # fmt: skip
    return Waits({"recipient": "bob@Example.COM", "message-id": "m.1", **message}, headers)


@pytest.mark.parametrize(
    ("waits", "cause"),
    [
        (parked("pause"), "pause"),
        (parked("throttle"), "throttle"),
        (parked("of its own"), "other"),
        (Waits({"results": [{}], "nextattempt": {"time": "2036-01-01 00:00:00"}}), "retry"),
        (Waits({"results": [], "nextattempt": {"time": "2036-01-01 00:00:00"}}), "scheduled"),
        (Waits({"recipient": "a@b.example"}), "other"),
        (Waits(b"\xff not json"), "other"),
        (Waits(b"[1]"), "other"),
    ],
)
def test_causes(waits: Waits, cause: Cause) -> None:
    """Why a message waits is seen from its headers, else from its body, whatever that is."""
    assert Lying(waits).cause == cause


def test_forwarded() -> None:
    """What is sent forward is the same message, marked as one that may be there twice and that has no time to wait."""
    waits = parked("pause")
    parcel = forwarded(waits)
    assert (parcel.body, parcel.message_id, parcel.priority) == (waits.body, "amqp-id", 2)
    assert parcel.headers == {**waits.headers, REDELIVERED_HEADER: True, FORWARD_HEADER: True}


@pytest.mark.parametrize(
    ("conditions", "is_meant"),
    [
        ({}, True),
        ({"site": "mx1.example.net"}, True),
        ({"site": "MX1.example.net,mx2.example.net:26"}, True),
        ({"site": "*.example.net"}, True),
        ({"site": "*.net"}, True),
        ({"site": "example.net"}, False),
        ({"site": "x1.example.net"}, False),
        ({"domain": "example.com"}, True),
        ({"domain": "*.com"}, True),
        ({"domain": "*.example.com"}, False),
        ({"domain": "ample.com"}, False),
        ({"source": "127.0.0.2"}, True),
        ({"source": "127.0.0.3"}, False),
        ({"ids": frozenset({"m.1"})}, True),
        ({"ids": frozenset({"m.10"})}, False),
        ({"causes": frozenset({"pause"})}, True),
        ({"causes": frozenset({"retry"})}, False),
        ({"site": "mx1.example.net", "domain": "other.example"}, False),
    ],
)
def test_wanted(conditions: dict[str, Any], is_meant: bool) -> None:
    """A message is meant when all conditions hold."""
    assert (Wanted(**conditions).choose(parked("pause")) is not None) is is_meant


def test_scheduled_mail_is_left_alone() -> None:
    """What its sender wants sent later is not meant by flushing everything."""
    assert "scheduled" not in USUAL
    waits = Waits({"recipient": "a@b.example", "nextattempt": {"time": "2036-01-01 00:00:00"}})
    assert Wanted().choose(waits) is None
    assert Wanted(causes=frozenset({"scheduled"})).choose(waits) is not None


def test_unknown_sites_have_no_name() -> None:
    """Mail whose site was never known is not meant by any site."""
    assert not names_site("", "")
    assert not names_site("*.example", "")
