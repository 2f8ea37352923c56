"""Looking through a queue of the embedded broker, page by page, and moving some of what lies there.

Nothing is taken for it: a message that a consumer, or the end of its delay, gets first is simply not moved. One that
is moved stays the same row, changed in one transaction, so a crash leaves neither two nor none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

from mtaq.broker.embedded.operations import Answer, Change, Count, Look, Lying, Move, Operation
from mtaq.broker.embedded.properties import encode_properties, read_properties
from mtaq.broker.group_commit import GroupCommit
from mtaq.broker.port import Choose
from mtaq.model.errors import UnconfirmedPublish
from mtaq.model.parcel import Depth, Sifted

#: Messages shown by one transaction, in which other processes wait.
PAGE = 250
TIMEOUT_S = 30.0


class Found(NamedTuple):
    """A message as ``choose`` sees it; fits ``mtaq.model.parcel.Waiting``."""

    queue: str
    priority: int
    body: bytes
    message_id: str
    correlation_id: str
    type: str
    headers: Mapping[str, str | int | bool]


async def sift(
    engine: GroupCommit[Operation, Answer], queue: str, choose: Choose, *, to: str, delayed: bool, most: int | None
) -> Sifted:
    """As ``Broker.sift``; looks at no more than there are when it begins."""
    depth = await engine.ask(Count(queue), timeout_s=TIMEOUT_S)
    if not isinstance(depth, Depth):
        raise UnconfirmedPublish(f"there is no queue {queue}")
    there = sum(depth.delayed.values()) if delayed else depth.ready
    most = there if most is None else min(most, there)
    total, after = Sifted(), 0
    while total.seen < most:
        look = Look(queue, delayed, after, min(PAGE, most - total.seen))
        found = cast(Sequence[Lying], await engine.ask(look, timeout_s=TIMEOUT_S))
        if not found:
            break
        changes = [change for each in found if (change := _chosen(each, queue, choose)) is not None]
        moved = 0
        if changes:
            moved = cast(int, await engine.ask(Move(changes, delayed, to), timeout_s=TIMEOUT_S))
        total += Sifted(len(found), moved)
        after = found[-1].id
    return total


def _chosen(lying: Lying, queue: str, choose: Choose) -> Change | None:
    message_id, correlation_id, kind, headers = read_properties(lying.properties)
    parcel = choose(Found(queue, lying.priority, lying.body, message_id, correlation_id, kind, headers))
    if parcel is None:
        return None
    body = None if parcel.body == lying.body else parcel.body
    return Change(lying.id, parcel.priority, encode_properties(parcel), body)
