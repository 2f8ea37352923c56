"""Results, in the order of safety: journal, follow-ups confirmed, settled, and only then the ack.

Everything that follows from an outcome is computed from the journal's entry, so after a crash it is done again exactly
so: the retry copy has the same body and the same AMQP ``message_id``, and a second one is recognised. Nothing here
gives up: what the broker or the journal does not take is tried again, ever more slowly, as long as the process lives;
the outbox message stays unacknowledged meanwhile.
"""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from types import MappingProxyType
from typing import Any

from mtaq.deliver.intake import REDELIVERED_HEADER
from mtaq.deliver.ports import Declare, DeliveryNames, Journal, Queues
from mtaq.mime.extract import extracted
from mtaq.model.codec import encode_outbox, encode_result
from mtaq.model.errors import BrokerError, BrokerUnavailable, UnconfirmedPublish
from mtaq.model.message import OutboxMessage
from mtaq.model.outcome import Deferred, Delivered, Outcome
from mtaq.model.parcel import OUTBOX_TYPE, RESULT_TYPE, Consumed, Parcel
from mtaq.model.times import format_time, parse_time

PUBLISH_TIMEOUT_S = 30.0
#: Waits between tries; the last repeats.
BACKOFF_S = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
#: Reasons go into an AMQP header.
MAX_REASON = 500


@dataclass(frozen=True, slots=True)
class Work:
    """One queue message in delivery's hands, whose key is claimed."""

    consumed: Consumed
    key: bytes
    message: OutboxMessage


def make_entry(outcome: Outcome, seen_at: datetime) -> dict[str, Any]:
    """Return what the journal keeps of *outcome*: everything that its follow-ups are made of."""
    entry: dict[str, Any] = {"result": outcome.result.to_json(), "seen": format_time(seen_at)}
    if isinstance(outcome, Deferred):
        return {**entry, "outcome": "deferred", "next": format_time(outcome.next_attempt_at)}
    return {**entry, "outcome": "delivered" if isinstance(outcome, Delivered) else "failed"}


class Results:
    """Publishes what follows from outcomes."""

    def __init__(
        self,
        names: DeliveryNames,
        *,
        queues: Queues,
        journal: Journal,
        declare: Declare | None,
        clock: Callable[[], datetime],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._names = names
        self._queues = queues
        self._journal = journal
        self._declare = declare
        self._clock = clock
        self._sleep = sleep

    async def conclude(self, work: Work, entry: Mapping[str, Any]) -> None:
        """Make *entry* safe, do what follows from it, and ack."""
        await self._insist(lambda: self._journal.record(work.key, entry))
        await self.follow_up(work, entry)

    async def follow_up(self, work: Work, entry: Mapping[str, Any]) -> None:
        """Do what follows from *entry*, which is in the journal, and ack."""
        if entry["outcome"] == "deferred":
            await self._publish_retry(work, entry)
        queues = self._result_queues(work.message, entry["outcome"])
        if queues:
            body = _result_body(work.message, entry)
            for queue in queues:
                await self._publish_result(queue, self._parcel(work, body, RESULT_TYPE))
        self._journal.settle(work.key)
        work.consumed.ack()

    async def park(self, work: Work, until: datetime) -> None:
        """Send *work* back to the outbox until *until*, and ack. It keeps its body: this is no attempt.

        A crash in between leaves two copies; both have the same ``message_id`` and say so, and one will be recognised.
        """
        parcel = self._parcel(
            work,
            work.consumed.body,
            OUTBOX_TYPE,
            message_id=_derived_id(work.key, b"parked"),
            headers={REDELIVERED_HEADER: True},
        )
        await self._insist(lambda: self._publish_delayed(parcel, until))
        work.consumed.ack()

    async def bury(self, consumed: Consumed, reason: str) -> None:
        """Move what cannot be understood to the dead queue, as it came, and ack."""
        parcel = Parcel(
            body=consumed.body,
            type=consumed.type or OUTBOX_TYPE,
            correlation_id=consumed.correlation_id,
            priority=consumed.priority,
            headers={**_carried(consumed), "reason": reason[:MAX_REASON]},
        )
        await self._insist(lambda: self._publish(self._names.dead, parcel))
        consumed.ack()

    async def look_up(self, key: bytes) -> tuple[Mapping[str, Any], bool] | None:
        """Return entry and whether it is settled, or ``None``; insists until the journal answers."""
        found: list[tuple[Mapping[str, Any], bool]] = []

        async def ask() -> None:
            known = await self._journal.look_up(key)
            if known is not None:
                found.append((known.data, known.settled))

        await self._insist(ask)
        return found[0] if found else None

    def _result_queues(self, message: OutboxMessage, outcome: str) -> list[str]:
        names = self._names
        if outcome == "deferred":
            wanted = [message.queues.get("retry", names.retry)]
        else:
            kind, configured = ("success", names.success) if outcome == "delivered" else ("failure", names.failure)
            wanted = [message.queues.get(kind, configured), message.queues.get("results", names.results)]
        return [queue for queue in wanted if queue]

    async def _publish_retry(self, work: Work, entry: Mapping[str, Any]) -> None:
        properties = work.message.properties
        changes = {
            "results": _results(work.message, entry),
            "nextattempt": {**(properties.get("nextattempt") or {}), "time": entry["next"]},
            "seen": entry["seen"],
        }
        parcel = self._parcel(
            work, encode_outbox(work.message, changes), OUTBOX_TYPE, message_id=_derived_id(work.key, b"retry")
        )
        due_at = parse_time(entry["next"])
        await self._insist(lambda: self._publish_delayed(parcel, due_at))

    async def _publish_result(self, queue: str, parcel: Parcel) -> None:
        try:
            await self._insist(lambda: self._publish(queue, parcel), unless=UnconfirmedPublish)
            return
        except UnconfirmedPublish as error:
            reason = str(error)
        if self._declare is not None:
            try:
                await self._declare(queue)
                await self._insist(lambda: self._publish(queue, parcel), unless=UnconfirmedPublish)
                return
            except BrokerError as error:
                reason = str(error)
        dead = replace(parcel, headers={**parcel.headers, "reason": f"queue {queue}: {reason}"[:MAX_REASON]})
        await self._insist(lambda: self._publish(self._names.dead, dead))

    async def _publish(self, queue: str, parcel: Parcel) -> None:
        await self._queues.publish(queue, parcel, timeout_s=PUBLISH_TIMEOUT_S)

    async def _publish_delayed(self, parcel: Parcel, due_at: datetime) -> None:
        delay_s = max(0.0, (due_at - self._clock()).total_seconds())
        await self._queues.publish(self._names.outbox, parcel, timeout_s=PUBLISH_TIMEOUT_S, delay_s=delay_s)

    async def _insist(
        self, action: Callable[[], Awaitable[None]], *, unless: type[BrokerError] | tuple[()] = ()
    ) -> None:
        """Do *action* until it succeeds; what is *unless* comes out."""
        tries = 0
        while True:
            try:
                await action()
                return
            except unless:
                raise
            except (BrokerUnavailable, UnconfirmedPublish):
                await self._sleep(BACKOFF_S[min(tries, len(BACKOFF_S) - 1)])
                tries += 1

    @staticmethod
    def _parcel(
        work: Work,
        body: bytes,
        kind: str,
        *,
        message_id: str | None = None,
        headers: Mapping[str, str | int | bool] = MappingProxyType({}),
    ) -> Parcel:
        return Parcel(
            body=body,
            type=kind,
            correlation_id=work.message.message_id or work.consumed.correlation_id,
            message_id=message_id,
            priority=work.consumed.priority,
            headers={**_carried(work.consumed), **headers},
        )


def _carried(consumed: Consumed) -> dict[str, str | int | bool]:
    """Return the headers that stay with a message from reception to result; never those of the broker."""
    traceparent = consumed.headers.get("traceparent")
    return {} if traceparent is None else {"traceparent": traceparent}


def _result_body(message: OutboxMessage, entry: Mapping[str, Any]) -> bytes:
    known = message.properties.get("extracted") is not None
    found = None if known else extracted(message.content, message.envelope, message.recipient)
    return encode_result(message, _results(message, entry), found)


def _results(message: OutboxMessage, entry: Mapping[str, Any]) -> list[Any]:
    return [*(message.properties.get("results") or []), entry["result"]]


def _derived_id(key: bytes, purpose: bytes) -> str:
    """Return an AMQP ``message_id`` that another process would derive likewise from the same queue message."""
    return str(uuid.UUID(bytes=hashlib.sha256(key + purpose).digest()[:16], version=4))
