"""Who may connect, what is announced, under which name."""

from __future__ import annotations

import pytest

from mtaq.model.parcel import BrokerState
from mtaq.receive.policy import announced_size
from tests.unit.receive.fakes import policy


def test_nobody_may_connect_by_default() -> None:
    """An empty smtp-range refuses everybody with 554 5.7.1."""
    refusal = policy().refuse_connection("127.0.0.1", BrokerState.UP)
    assert refusal is not None
    assert (refusal.code, refusal.status) == (554, "5.7.1")


def test_the_range_is_looked_at_before_the_broker() -> None:
    """Strangers do not learn how our broker is."""
    refusal = policy(smtp_range="10.0.0.0/8").refuse_connection("192.0.2.1", BrokerState.DOWN)
    assert refusal is not None
    assert refusal.code == 554


@pytest.mark.parametrize("state", [BrokerState.DOWN, BrokerState.BLOCKED])
def test_without_a_broker_newcomers_are_told_to_come_back(state: BrokerState) -> None:
    """421 4.3.2 while the broker is away or blocked."""
    refusal = policy(smtp_range="10.0.0.0/8").refuse_connection("10.1.2.3", state)
    assert refusal is not None
    assert (refusal.code, refusal.status) == (421, "4.3.2")


def test_relay_none_takes_no_recipient() -> None:
    """smtp-relay: none refuses with 550 5.7.1; range takes all."""
    refusal = policy(smtp_relay="none").refuse_recipient(is_local=False, logged_in=True)
    assert refusal is not None
    assert (refusal.code, refusal.status) == (550, "5.7.1")
    assert policy().refuse_recipient(is_local=False, logged_in=False) is None


def test_a_port_has_its_own_values() -> None:
    """key@port overrides for that port alone."""
    options = {"smtp_port": "25,587", "smtp_range@587": "10.0.0.0/8"}
    assert policy(587, **options).refuse_connection("10.0.0.1", BrokerState.UP) is None
    assert policy(25, **options).refuse_connection("10.0.0.1", BrokerState.UP) is not None


@pytest.mark.parametrize(
    ("maxsize", "broker", "announced"), [(100, None, 100), (10**9, 16 * 2**20, (16 * 2**20 - 16 * 1024) * 3 // 4)]
)
def test_size_announces_what_surely_fits(maxsize: int, broker: int | None, announced: int) -> None:
    """SIZE is the smaller of the limit and what base64 leaves of the broker's."""
    assert announced_size(maxsize, broker) == announced


def test_names_come_in_order() -> None:
    """The configured name goes before the one found."""
    assert policy().hostname("192.0.2.1") == "found.test"
    assert policy(smtp_hostname="mx.test").hostname("192.0.2.1") == "mx.test"
