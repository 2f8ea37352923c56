"""Senders that only ask whether addresses exist."""

from __future__ import annotations

from mtaq.config import load
from mtaq.model.address import Address
from mtaq.receive.probes import is_probe


def test_probes_are_known_by_their_reverse_path() -> None:
    """Case does not count, the null reverse-path is never one."""
    given = "--smtp-probe-senders=double-bounce@relay.test; <probe@XN--BCHER-KVA.test>"
    options = load(path="/dev/null", environ={}, overrides=[given]).receive(25)
    assert is_probe(Address("Double-Bounce", "relay.test"), options)
    assert is_probe(Address("probe", "bücher.test"), options)
    assert not is_probe(Address("double-bounce", "other.test"), options)
    assert not is_probe(None, options)


def test_there_are_none_by_default() -> None:
    """Nobody is refused for being a probe unless somebody listed it."""
    assert not is_probe(
        Address("double-bounce", "relay.test"), load(path="/dev/null", environ={}, overrides=[]).receive(25)
    )
