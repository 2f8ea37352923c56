"""Caps that hold across processes: in all, by side, by client; and what is left of those who are killed."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from unittest.mock import Mock

import pytest

from mtaq.net.slots import MOST, Slots
from tests.support.slot_worker import SlotProcess, most_at_once

Start = Callable[..., SlotProcess]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file."""
    return tmp_path / "slots"


@pytest.fixture
def start(path: Path) -> Iterator[Start]:
    """Start processes on the file; those that are left are ended with the test."""
    started: list[SlotProcess] = []

    def start(*arguments: object) -> SlotProcess:
        started.append(SlotProcess(path, *arguments))  # type: ignore[arg-type]  # passed on as they are
        return started[-1]

    yield start
    for process in started:
        process.kill()


def test_one_side_leaves_the_other_what_its_cap_leaves(start: Start) -> None:
    """Total 100, in 50, out 75: the 51st client finds none, delivery still has 50, and nobody the 101st."""
    receive, deliver = start(100, "in", 50), start(100, "out", 75)
    assert receive.do("take", 60) == 50
    assert deliver.do("take", 80) == 50
    assert receive.do("take", 1) == 0


def test_the_sum_and_both_sides_hold_in_a_storm(start: Start) -> None:
    """Four processes that want 160 slots at once get 100, reception 50 and delivery 75 at most; no slot twice."""
    caps = {"in": 50, "out": 75}
    workers = [(side, start(100, side, caps[side])) for side in ("in", "in", "out", "out")]
    assert [worker.do("take", 0) for _, worker in workers] == [0] * 4
    for seed, (_, worker) in enumerate(workers):
        worker.begin("storm", 4000, 40, seed)
    traces = [(side, worker.result()) for side, worker in workers]
    assert most_at_once(*(trace for _, trace in traces)) == 100
    assert most_at_once(*(trace for side, trace in traces if side == "in")) == 50
    assert 50 < most_at_once(*(trace for side, trace in traces if side == "out")) <= 75
    held = sorted((slot, since, until) for _, trace in traces for since, until, slot in trace)
    assert all(one[2] <= other[1] for one, other in pairwise(held) if one[0] == other[0])


@pytest.mark.parametrize("killed", ["in", "out"])
def test_slots_of_a_killed_process_are_free_for_both_sides(start: Start, killed: str) -> None:
    """`kill -9`: its slots of the total, of its side and of its client are there in the same moment."""
    caps = {"in": 50, "out": 75}
    lost, left, other = start(100, killed, caps[killed]), start(100, killed, caps[killed]), start(100, "in", 50)
    assert lost.do("claim", "192.0.2.1", 30, 40) == 30
    assert left.do("claim", "192.0.2.1", 30, 5) == 0
    assert other.do("take", 100) == (5 if killed == "in" else 50)
    lost.kill()
    assert left.do("claim", "192.0.2.1", 30, 31) == 30
    assert left.do("take", 100) == (9 if killed == "in" else 14)


def test_who_takes_the_seat_of_a_killed_process_does_not_inherit_its_slots(start: Start) -> None:
    """The next process to start counts none of them as taken."""
    start(10, "in", 4).kill()
    first = start(10, "in", 4)
    assert first.do("take", 5) == 4
    first.kill()
    assert start(10, "out", 9).do("take", 10) == 9


def test_claims_of_one_client_at_the_same_time(start: Start) -> None:
    """Four processes: never more than the cap, and as many as the cap."""
    workers = [start(100) for _ in range(4)]
    assert [worker.do("take", 0) for worker in workers] == [0] * 4
    for seed, worker in enumerate(workers):
        worker.begin("claims", 2000, "192.0.2.1", 5, seed)
    assert most_at_once(*(worker.result() for worker in workers)) == 5


def test_clients_are_told_apart(path: Path, start: Start) -> None:
    """IPv6 by /64, IPv4-mapped as IPv4, the others do not count; what one was refused does not count for it."""
    slots = Slots(path, 100)
    elsewhere = start(100)
    for others, same, different in (
        ("192.0.2.1", "::ffff:192.0.2.1", "192.0.2.2"),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::", "2001:db8:1:3::1"),
        ("::1", "::2", "127.0.0.1"),
        ("fe80::1%lo", "fe80::2", "0.0.0.0"),
    ):
        assert elsewhere.do("claim", others, 3, 5) == 3
        for client, allowed in ((same, False), (same, False), (different, True)):
            slot = slots.take()
            assert slot is not None
            assert slots.claim(slot, client, 3) is allowed
            assert slots.claim(slot, same, 4)
            slots.release(slot)


def test_giving_back_makes_room_for_the_client(path: Path) -> None:
    """And a slot that is taken again belongs to nobody at first."""
    slots = Slots(path, 10)
    first, second = slots.take(), slots.take()
    assert first is not None
    assert second is not None
    assert slots.claim(first, "192.0.2.1", 1)
    assert not slots.claim(second, "192.0.2.1", 1)
    slots.release(first)
    assert slots.claim(second, "192.0.2.1", 1)
    assert slots.take() == first
    slots.release(second)
    assert slots.claim(first, "192.0.2.1", 1)


def test_who_stands_still_while_it_claims_holds_up_nobody_for_long(path: Path, start: Start) -> None:
    """The lock that serializes claims is waited for some milliseconds; the count is made all the same."""
    slots = Slots(path, 10)
    blocker = start(10)
    blocker.do("lock_all_claims")
    held = [slots.take() for _ in range(3)]
    assert [slot is not None and slots.claim(slot, "192.0.2.1", 2) for slot in held] == [True, True, False]


def test_a_full_table_costs_no_call_for_each_slot(path: Path, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """A storm on a full instance: taking asks the kernel once for each process, not once for each slot."""
    assert start(5000).do("take", 5000) == 5000
    slots = Slots(path, 5000)
    assert slots.take() is None
    asked = Mock(wraps=fcntl.fcntl)
    monkeypatch.setattr(fcntl, "fcntl", asked)
    monkeypatch.setattr(fcntl, "lockf", lambda *_: pytest.fail("a slot was tried"))
    assert slots.take() is None
    assert asked.call_count == 1


def test_more_processes_than_there_are_seats(path: Path, start: Start) -> None:
    """Whoever comes then shares the last one: its slots hold like any other, and are found when it dies."""
    first = start(10)
    first.do("leave_no_seat")
    crowd = start(10)
    assert crowd.do("claim", "192.0.2.1", 4, 6) == 4
    slots = Slots(path, 10)
    assert [slots.take() is not None for _ in range(5)] == [True, True, True, True, False]
    crowd.kill()
    regained = [slots.take() for _ in range(7)]
    assert [slot is not None for slot in regained] == [True] * 6 + [False]
    assert [slot is not None and slots.claim(slot, "192.0.2.1", 2) for slot in regained[:3]] == [True, True, False]


def test_the_file_is_private_and_takes_little_room(path: Path) -> None:
    """Its size is for the largest caps, its blocks are for those in force."""
    Slots(path, 1000, cap=10).close()
    assert path.stat().st_size > MOST
    assert path.stat().st_blocks * 512 < 200_000
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_file_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """The error says which it is."""
    with pytest.raises(OSError, match=str(tmp_path)):
        Slots(tmp_path, 10)
    with pytest.raises(OSError, match="/dev/full"):
        Slots(Path("/dev/full"), 10)


def test_a_slot_may_count_for_something_else_than_a_client(path: Path, start: Start) -> None:
    """Over processes, and told apart from clients."""
    elsewhere = start(8)
    assert elsewhere.do("claim_for", "site mx.example.com", 3, 2) == 2
    slots = Slots(path, 8)
    first, second = slots.take(), slots.take()
    assert first is not None
    assert second is not None
    assert slots.claim_for(first, b"site mx.example.com", 3)
    assert not slots.claim_for(second, b"site mx.example.com", 3)
    assert slots.claim_for(second, b"site other", 3)
    elsewhere.kill()
    assert slots.claim_for(second, b"site mx.example.com", 2)
    slots.close()
