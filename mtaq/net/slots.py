"""Caps on connections that hold exactly across the processes of an instance, and survive the death of any of them.

There is a slot for each connection that the instance may have, reception and delivery together, and a process has it
while it holds the lock on its byte: the kernel frees the slots of a process in the moment it dies. A side with a cap
below the total takes one of its own slots as well. No server, and no counter that could be wrong after a crash.

Locks decide; finding is helped by notes in the same file, so that a full table costs a look and not a system call for
each slot. The note of a slot is the seat of its process, a lock that is held as long as the process lives: the slots
of a dead process are found by its seat. A second note says which client has the slot, or whatever else has a cap of its
own (a site, for delivery), to be counted for that.

One ``Slots`` per file in a process, see ``mtaq.net.shared_file``.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from mtaq.limits.clients import client_key
from mtaq.net.shared_file import SharedFile

Side = Literal["in", "out"]

#: Room for so many slots of a kind; places do not depend on the caps, so processes with other caps do no harm.
MOST = 1 << 20

_TOTAL = 0
_SIDES: dict[Side, int] = {"in": MOST, "out": 2 * MOST}
_MARKS_END = 3 * MOST
_CLIENTS = 4 * MOST
_CLIENT_BYTES = 8
_SIZE = _CLIENTS + _CLIENT_BYTES * MOST
_NOBODY = bytes(_CLIENT_BYTES)
#: No byte of a client's note is zero, nor like zero to the bloom filter of ``bytes.count`` (six bits): over a table
#: that is mostly empty it is ten times as fast then.
_NEVER_ZERO = int.from_bytes(b"\x01" * _CLIENT_BYTES, "big")

#: Locks on bytes that do not exist: seats, and what serializes the claims of a client.
_SEATS = 1 << 40
_CLAIMS = 1 << 41
_CLAIM_LOCKS = 1021

_FREE = 0
_FREE_MARK = bytes((_FREE,))
#: The seat of all who come when the others are taken; nothing is known of them, and each of their slots is tried.
_CROWD = 255


class Slots:
    """One side's view of the slots.

    Args:
        path: A file of its own in the run directory; created when missing.
        total: Connections of both sides, 1 to 1,000,000; the same in every process.
        side: Whose connections these are.
        cap: Of this side; ``None`` when it may use all.

    Raises:
        OSError: The file cannot be opened for writing, or there is no room for it.
    """

    def __init__(self, path: Path, total: int, *, side: Side = "in", cap: int | None = None) -> None:
        used = [(base, max(total, 1)) for base in (_TOTAL, *_SIDES.values())]
        self._file = SharedFile(path, _SIZE, used=[*used, (_CLIENTS, _CLIENT_BYTES * max(total, 1))])
        self._seats = _Seats(self._file)
        self._all = _Row(self._file, self._seats, _TOTAL, total)
        self._side = None
        if cap is not None and cap < total:
            self._side = _Row(self._file, self._seats, _SIDES[side], cap)
        self._of_side: dict[int, int] = {}
        self._clients_end = _CLIENTS + _CLIENT_BYTES * total

    @property
    def taken(self) -> int:
        """Slots that this process holds."""
        return len(self._all.held)

    def take(self) -> int | None:
        """Take a slot; ``None`` when the total or the side's cap is reached."""
        if self._side is None:
            return self._all.take()
        of_side = self._side.take()
        if of_side is None:
            return None
        slot = self._all.take()
        if slot is None:
            self._side.release(of_side)
        else:
            self._of_side[slot] = of_side
        return slot

    def release(self, slot: int) -> None:
        """Give *slot* back. A slot that this process does not hold is left alone."""
        if slot not in self._all.held:
            return
        self._note(slot, _NOBODY)
        self._all.release(slot)
        if self._side is not None:
            self._side.release(self._of_side.pop(slot))

    def claim(self, slot: int, client_ip: str, cap: int) -> bool:
        """
        Note that *slot*, which this process holds, is for a client, unless the client then had more than *cap*.

        Args:
            client_ip: An IPv6 /64 is one client; IPv4-mapped IPv6 counts as IPv4.
            cap: Slots that it may have, over all processes.

        Returns:
            False when it has as many already; *slot* does not count for it then, and is still held.
        """
        return self._claim(slot, _note_of(client_key(client_ip)), cap)

    def claim_for(self, slot: int, counter: bytes, cap: int) -> bool:
        """Note that *slot*, which this process holds, is for *counter*, unless that then had more than *cap*.

        Args:
            counter: Not 8 bytes, which would be a client.
        """
        return self._claim(slot, _note_of(counter), cap)

    def _claim(self, slot: int, key: bytes, cap: int) -> bool:
        assert slot in self._all.held
        # Of some who come at once the last to write its note counts them all: those who find room are never too many.
        # (Between note and count lie hundreds of stores: no processor still keeps the note to itself.)
        self._note(slot, key)
        return self._clients().count(key) <= cap or self._claim_in_turn(slot, key, cap)

    def _claim_in_turn(self, slot: int, key: bytes, cap: int) -> bool:
        """Decide on a *slot* that is noted and seems one too many; one after the other, lest all be refused."""
        lock = _CLAIMS + int.from_bytes(key, "big") % _CLAIM_LOCKS
        # Not granted only when its holder stands still: then two who come at once may both be refused, never admitted.
        locked = self._file.lock(lock)
        try:
            within = self._clients().count(key) <= cap or self._count(key) <= cap
            if not within:
                self._note(slot, _NOBODY)
            return within
        finally:
            if locked:
                self._file.unlock(lock)

    def close(self) -> None:
        """Give all slots back."""
        for slot in list(self._all.held):
            self.release(slot)
        self._file.close()

    def _clients(self) -> bytes:
        return self._file.memory[_CLIENTS : self._clients_end]

    def _note(self, slot: int, key: bytes) -> None:
        at = _CLIENTS + _CLIENT_BYTES * slot
        self._file.memory[at : at + _CLIENT_BYTES] = key

    def _count(self, key: bytes) -> int:
        """Count the slots of a client without what killed processes left; two neighbours' halves are no key."""
        clients, marks = self._clients(), self._all.marks()
        living = self._seats.living(marks)
        found, at = 0, clients.find(key)
        while at >= 0:
            slot, beside = divmod(at, _CLIENT_BYTES)
            found += not beside and (marks[slot] in living or self._all.is_taken(slot))
            at = clients.find(key, at + 1)
        return found


class _Seats:
    """Which processes live: each holds the lock of a seat, and marks what it takes with the seat's number.

    Attributes:
        mine: This process's seat.
    """

    def __init__(self, file: SharedFile) -> None:
        self._file = file
        self.mine = next((seat for seat in range(_FREE + 1, _CROWD) if file.try_lock(_SEATS + seat)), _CROWD)
        self._known: set[int] = set()
        if self.mine != _CROWD:
            self._tidy_up()

    def living(self, marks: bytes) -> set[int]:
        """Return the seats in *marks* whose process lives for sure, one system call each."""
        self._known = {seat for seat in self._known if self._lives(seat)}
        for seat in self._others(marks):
            if self._lives(seat):
                self._known.add(seat)
        return self._known

    def uncertain(self, marks: bytes) -> list[int]:
        """Return the seats in *marks* of which that cannot be said."""
        self.living(marks)
        return list(self._others(marks))

    def _others(self, marks: bytes) -> Iterator[int]:
        rest = marks.translate(None, bytes((_FREE, *self._known)))
        while rest:
            yield rest[0]
            rest = rest.translate(None, rest[:1])

    def _lives(self, seat: int) -> bool:
        return seat != _CROWD and (seat == self.mine or self._file.is_locked(_SEATS + seat))

    def _tidy_up(self) -> None:
        """Take away the marks of whoever had the seat before."""
        memory, marks = self._file.memory, os.pread(self._file.fd, _MARKS_END, 0)
        at = marks.find(self.mine)
        while at >= 0:
            if self._file.try_lock(at):  # else somebody is just taking it
                memory[at] = _FREE
                self._file.unlock(at)
            at = marks.find(self.mine, at + 1)


class _Row:
    """Slots of one kind.

    Attributes:
        held: Those of this process.
    """

    def __init__(self, file: SharedFile, seats: _Seats, base: int, count: int) -> None:
        self.held: set[int] = set()
        self._file = file
        self._seats = seats
        self._base = base
        self._count = count
        # Processes begin far from each other, so that the first try usually succeeds.
        self._next = os.getpid() * 0x9E3779B1 % count if count else 0

    def marks(self) -> bytes:
        """Return the seat of each slot's process, 0 for a free one."""
        return self._file.memory[self._base : self._base + self._count]

    def is_taken(self, slot: int) -> bool:
        """Does a living process hold *slot*?"""
        return slot in self.held or self._file.is_locked(self._base + slot)

    def take(self) -> int | None:
        """Take a free one, or one whose process is gone."""
        end = self._base + self._count
        likely = self._file.memory.find(_FREE_MARK, self._base + self._next, end) - self._base
        if likely >= 0 and self._take(likely):
            return likely
        return next((slot for slot in self._candidates(self.marks()) if self._take(slot)), None)

    def _take(self, slot: int) -> bool:
        # A process gets its own lock again.
        if slot in self.held or not self._file.try_lock(self._base + slot):
            return False
        self._mark(slot)
        return True

    def release(self, slot: int) -> None:
        """Give back one that is held."""
        self.held.discard(slot)
        self._file.memory[self._base + slot] = _FREE
        self._file.unlock(self._base + slot)
        self._next = slot

    def _mark(self, slot: int) -> None:
        memory = self._file.memory
        if self._base == _TOTAL:  # a dead process's client must not seem to be this one's
            memory[_CLIENTS + _CLIENT_BYTES * slot : _CLIENTS + _CLIENT_BYTES * (slot + 1)] = _NOBODY
        memory[self._base + slot] = self._seats.mine
        self.held.add(slot)
        self._next = (slot + 1) % self._count

    def _candidates(self, marks: bytes) -> Iterator[int]:
        yield from _find_all(marks, _FREE, self._next, self._count)
        yield from _find_all(marks, _FREE, 0, self._next)
        for seat in self._seats.uncertain(marks):
            yield from _find_all(marks, seat, 0, self._count)


def _note_of(name: bytes) -> bytes:
    digest = hashlib.blake2b(name, digest_size=_CLIENT_BYTES).digest()
    return (int.from_bytes(digest, "big") | _NEVER_ZERO).to_bytes(_CLIENT_BYTES, "big")


def _find_all(marks: bytes, mark: int, start: int, end: int) -> Iterator[int]:
    at = marks.find(mark, start, end)
    while at >= 0:
        yield at
        at = marks.find(mark, at + 1, end)
