from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from mtaq.state.block_list import BlockList
from mtaq.state.entries import Block

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def block(network: str, *, expires_at: datetime | None = None) -> Block:
    return Block(network=network, reason=network, expires_at=expires_at, automatic=False, created_at=NOW)


def found(ip: str, *blocks: Block, now: datetime = NOW) -> str | None:
    answer = BlockList(blocks).find(ip, now)
    return None if answer is None else answer.network


@pytest.mark.parametrize(
    ("ip", "networks", "expected"),
    [
        ("192.0.2.1", ["192.0.2.1/32"], "192.0.2.1/32"),
        ("192.0.2.2", ["192.0.2.1/32"], None),
        ("192.0.2.255", ["192.0.2.0/24"], "192.0.2.0/24"),
        ("192.0.3.0", ["192.0.2.0/24"], None),
        ("192.0.2.1", ["192.0.0.0/16", "192.0.2.0/24", "0.0.0.0/0"], "192.0.2.0/24"),
        ("198.51.100.1", ["192.0.0.0/16", "192.0.2.0/24", "0.0.0.0/0"], "0.0.0.0/0"),
        ("2001:db8::1", ["0.0.0.0/0"], None),
        ("192.0.2.1", ["::/0"], None),
        ("2001:db8:0:1::5", ["2001:db8:0:1::/64"], "2001:db8:0:1::/64"),
        ("2001:db8:0:2::5", ["2001:db8:0:1::/64"], None),
        ("::ffff:192.0.2.1", ["192.0.2.1/32"], "192.0.2.1/32"),
        ("", ["0.0.0.0/0", "::/0"], None),
        ("/run/socket", ["0.0.0.0/0", "::/0"], None),
        ("192.0.2.1", [], None),
    ],
)
def test_networks(ip, networks, expected):
    """A client is blocked by the smallest network that holds its address, in its own family."""
    assert found(ip, *map(block, networks)) == expected


def test_entries_end_by_the_clock():
    """An entry holds until its end, also for a client that was asked for before."""
    blocks = BlockList([block("192.0.2.1/32", expires_at=NOW + timedelta(seconds=10))])
    assert blocks.find("192.0.2.1", NOW + timedelta(seconds=9)) is not None
    assert blocks.find("192.0.2.1", NOW + timedelta(seconds=10)) is None


def test_an_ended_entry_uncovers_the_larger_one():
    """When the smallest network's entry has ended, the next larger one counts."""
    ended = block("192.0.2.1/32", expires_at=NOW)
    assert found("192.0.2.1", ended, block("192.0.2.0/24")) == "192.0.2.0/24"


def test_add():
    """What is added counts at once, also for a client that was asked for before, and replaces its network's entry."""
    blocks = BlockList([block("192.0.2.0/24")])
    assert blocks.find("198.51.100.1", NOW) is None
    blocks.add(block("198.51.100.1/32"))
    blocks.add(block("192.0.2.0/24", expires_at=NOW))
    assert blocks.find("198.51.100.1", NOW) is not None
    assert blocks.find("192.0.2.1", NOW) is None


def test_remembered_answers_are_bounded():
    """However many clients connect, memory does not grow without end."""
    blocks = BlockList([block("192.0.2.0/24")])
    for number in range(10_000):
        blocks.find(f"10.0.{number // 256}.{number % 256}", NOW)
    assert len(blocks._answers) <= 4096
