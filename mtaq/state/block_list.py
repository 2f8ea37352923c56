"""Is a client on the blocked list?

Answers for every connection. For each length of prefix in use there is one dictionary, so the answer takes as many
look-ups as there are lengths, however many networks are blocked; answers are remembered. Entries end by the clock, not
by being removed.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from datetime import datetime

from mtaq.config.ranges import plain_address, plain_network
from mtaq.state.entries import Block

_REMEMBERED = 4096

Tables = dict[int, dict[int, Block]]
"""Bits behind the prefix → the prefix as a number → its entry."""


class BlockList:
    """A set of blocked networks. For one thread at a time."""

    def __init__(self, blocks: Iterable[Block] = ()) -> None:
        self._tables: dict[int, Tables] = {4: {}, 6: {}}
        self._answers: dict[str, tuple[Block, ...]] = {}
        for block in blocks:
            self._insert(block)

    def add(self, block: Block) -> None:
        """Block one network more, or differently."""
        self._insert(block)
        self._answers.clear()

    def find(self, ip: str, now: datetime) -> Block | None:
        """Return the entry of the smallest network that holds *ip* and has not ended at *now*, or ``None``.

        What is no IP address (a Unix socket's peer) is never blocked.
        """
        covering = self._answers.get(ip)
        if covering is None:
            if len(self._answers) >= _REMEMBERED:
                self._answers.clear()
            covering = self._answers[ip] = self._covering(ip)
        for block in covering:
            if not block.is_over(now):
                return block
        return None

    def _insert(self, block: Block) -> None:
        version, bits, prefix = _numbers(block.network)
        self._tables[version].setdefault(bits, {})[prefix] = block

    def _covering(self, ip: str) -> tuple[Block, ...]:
        try:
            address = plain_address(ip)
        except ValueError:
            return ()
        number, tables = int(address), self._tables[address.version]
        found = (tables[bits].get(number >> bits) for bits in sorted(tables))
        return tuple(block for block in found if block is not None)


@functools.lru_cache(maxsize=50_000)  # nearly everything is the same when the list is built anew
def _numbers(text: str) -> tuple[int, int, int]:
    """Return a network's IP version, the bits behind its prefix, and its prefix as a number."""
    network = plain_network(text)
    bits = network.max_prefixlen - network.prefixlen
    return network.version, bits, int(network.network_address) >> bits
