"""Results, in the order of safety: journal, follow-ups confirmed, settled, and only then the ack.

Everything that follows from an outcome is computed from the journal's entry, so after a crash it is done again exactly
so: the retry copy has the same body and the same AMQP ``message_id``, and a second one is recognised. While broker or
journal are away everything is tried again, ever more slowly, as long as the process lives; the outbox message stays
unacknowledged meanwhile. What the broker refuses for good (no such queue, too large) goes to the dead queue with the
reason, at worst as it came, so that nothing is lost and nothing holds its place for ever.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any

from mtaq.deliver.intake import REDELIVERED_HEADER
from mtaq.deliver.notices import make_notice
from mtaq.deliver.parking import Headers, carried_headers, site_headers
from mtaq.deliver.ports import Declare, DeliveryNames, Journal, Queues
from mtaq.mime.extract import extracted
from mtaq.model.codec import change_outbox, encode_outbox, encode_result
from mtaq.model.errors import BrokerError, BrokerUnavailable, TooLarge, UnconfirmedPublish
from mtaq.model.message import OutboxMessage
from mtaq.model.outcome import Deferred, Delivered, Outcome
from mtaq.model.parcel import DSN_TYPE, OUTBOX_TYPE, RESULT_TYPE, Consumed, Parcel
from mtaq.model.times import format_time, parse_time
from mtaq.telemetry.events import EventLog

PUBLISH_TIMEOUT_S = 30.0
#: Waits between tries; the last repeats.
BACKOFF_S = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
#: Offers of a retry copy until its refusal is believed: two minutes, which a queue that is full for now gets over.
MAX_REFUSALS = 10
#: Reasons go into an AMQP header.
MAX_REASON = 500
#: AMQP's own limit, in octets.
MAX_CORRELATION_ID = 255


@dataclass(frozen=True, slots=True)
class Work:
    """One queue message in delivery's hands, whose key is claimed."""

    consumed: Consumed
    key: bytes
    message: OutboxMessage


def make_entry(
    outcome: Outcome,
    seen_at: datetime,
    changes: Mapping[str, Any] | None = None,
    notice: Mapping[str, Any] | None = None,
    site: str = "",
) -> dict[str, Any]:
    """Return what the journal keeps of *outcome*: everything that its follow-ups are made of.

    Args:
        changes: Properties of the message that are different from now on (``change_outbox``).
        notice: What its notice is made of (``deliver.notices``); ``None`` when there is none.
        site: Where it was tried; empty when it did not come so far.
    """
    entry: dict[str, Any] = {"result": outcome.result.to_json(), "seen": format_time(seen_at)}
    if notice:
        entry["result"]["notice"] = notice["kind"]
        entry["notice"] = dict(notice)
    if changes:
        entry["changes"] = dict(changes)
    if isinstance(outcome, Deferred):
        if site:
            entry["site"] = site
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
        events: EventLog,
        clock: Callable[[], datetime],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._names = names
        self._queues = queues
        self._journal = journal
        self._declare = declare
        self._events = events
        self._clock = clock
        self._sleep = sleep

    async def record(self, work: Work, entry: Mapping[str, Any]) -> None:
        """Make *entry* safe; insists until the journal has it."""
        settled = self._ends_here(_as_changed(work, entry).message, entry)
        await self._insist(lambda: self._journal.record(work.key, entry, settled=settled))

    async def follow_up(self, work: Work, entry: Mapping[str, Any]) -> None:
        """Do what follows from *entry*, which is in the journal, and ack."""
        work = _as_changed(work, entry)
        if not self._ends_here(work.message, entry):
            await self._publish_all(work, entry)
            self._journal.settle(work.key)
        work.consumed.ack()

    def _ends_here(self, message: OutboxMessage, entry: Mapping[str, Any]) -> bool:
        """Does nothing follow from *entry*?"""
        outcome = entry["outcome"]
        return outcome != "deferred" and "notice" not in entry and not self._result_queues(message, outcome)

    async def _publish_all(self, work: Work, entry: Mapping[str, Any]) -> None:
        homeless = []
        if entry["outcome"] == "deferred":
            homeless.append(await self._publish_retry(work, entry))
        if "notice" in entry:
            homeless.append(await self._publish_notice(work, entry))
        queues = self._result_queues(work.message, entry["outcome"])
        if queues:
            parcel = _follow_up(work, _result_body(work.message, entry), RESULT_TYPE)
            for queue in queues:
                homeless.append(
                    await self._publish_to(queue, parcel, work, entry, lambda: _short_result_body(work.message, entry))
                )
        if any(homeless):
            await self._publish_as_it_came(work.consumed, "; ".join(filter(None, homeless)))

    async def park(self, work: Work, until: datetime, headers: Headers | None = None) -> None:
        """Send *work* back to the outbox until *until*, with *headers* to remember, and ack: this is no attempt."""
        parcel = _same_again(work.consumed, _cut(work.message.message_id), headers)
        try:
            await self._insist(lambda: self._publish_delayed(parcel, until), refusals=MAX_REFUSALS)
        except UnconfirmedPublish as error:
            await self.bury(work.consumed, f"not due yet, and the queue refuses to keep it: {error}")
        else:
            work.consumed.ack()

    async def set_aside(self, consumed: Consumed, delay_s: float) -> bool:
        """Send what somebody else has in hand back to the outbox for *delay_s*, and ack; false when it is refused."""
        parcel = _same_again(consumed)
        if await self._offer(self._names.outbox, parcel, delay_s) is not None:
            return False
        consumed.ack()
        return True

    async def bury(self, consumed: Consumed, reason: str) -> None:
        """Move what cannot be understood to the dead queue, as it came, and ack."""
        self._tell_dead(consumed.correlation_id, len(consumed.body), reason)
        await self._publish_as_it_came(consumed, reason)
        consumed.ack()

    async def _publish_as_it_came(self, consumed: Consumed, reason: str) -> None:
        parcel = Parcel(
            body=consumed.body,
            type=consumed.type or OUTBOX_TYPE,
            correlation_id=consumed.correlation_id,
            priority=consumed.priority,
            headers={**_carried(consumed), "reason": reason[:MAX_REASON]},
        )
        await self._insist(lambda: self._publish(self._names.dead, parcel))

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

    async def _publish_retry(self, work: Work, entry: Mapping[str, Any]) -> str | None:
        """Publish the retry copy; return why, if it could not be put anywhere."""
        properties = work.message.properties
        changes = {
            "results": _results(work.message, entry),
            "nextattempt": {**(properties.get("nextattempt") or {}), "time": entry["next"]},
            "seen": entry["seen"],
        }
        parcel = _follow_up(work, encode_outbox(work.message, changes), OUTBOX_TYPE, _derived_id(work.key, b"retry"))
        parcel = replace(parcel, headers={**parcel.headers, **site_headers(entry.get("site", ""))})
        due_at = parse_time(entry["next"])
        try:
            await self._insist(lambda: self._publish_delayed(parcel, due_at), refusals=MAX_REFUSALS)
        except UnconfirmedPublish as error:
            return await self._move_aside(work, parcel, f"deferred, but the queue refuses it: {error}")
        return None

    async def _publish_notice(self, work: Work, entry: Mapping[str, Any]) -> str | None:
        """Publish the notice to the sender; return why, if it could not be put anywhere."""
        try:
            notice, queue = make_notice(work.message, entry), entry["notice"]["queue"]
        except Exception as error:  # it would come back every time, and the result is what counts
            self._events.bug(error, message_id=work.message.message_id)
            return None
        # Done again after a crash it may be there twice, and says so: if delivery gets both, it knows the second one.
        parcel = Parcel(
            body=notice.body,
            type=DSN_TYPE,
            correlation_id=notice.message_id,
            message_id=_derived_id(work.key, b"notice"),
            headers={**_carried(work.consumed), REDELIVERED_HEADER: True},
        )
        short = partial(make_notice, work.message, entry, with_content=False)
        return await self._publish_to(queue, parcel, work, entry, lambda: short().body)

    async def _publish_to(
        self, queue: str, parcel: Parcel, work: Work, entry: Mapping[str, Any], shorter: Callable[[], bytes]
    ) -> str | None:
        """Publish a result or a notice, *shorter* if it must be; return why, if it could not be put anywhere."""
        refusal = await self._offer(queue, parcel)
        if isinstance(refusal, TooLarge):
            parcel = replace(parcel, body=shorter())
            refusal = await self._offer(queue, parcel)
        if refusal is not None and not isinstance(refusal, TooLarge) and self._declare is not None:
            refusal = await self._declare_and_offer(self._declare, queue, parcel)
        if refusal is None:
            return None
        what = "notice" if parcel.type == DSN_TYPE else "result"
        reason = f"{entry['outcome']}, but queue {queue} refuses the {what}: {refusal}"
        return await self._move_aside(work, parcel, reason)

    async def _declare_and_offer(self, declare: Declare, queue: str, parcel: Parcel) -> BrokerError | None:
        try:
            await self._insist(lambda: declare(queue))
        except BrokerError as error:
            return error
        return await self._offer(queue, parcel)

    async def _offer(self, queue: str, parcel: Parcel, delay_s: float = 0.0) -> BrokerError | None:
        """Publish *parcel*, or return why it was refused."""
        try:
            await self._insist(lambda: self._publish(queue, parcel, delay_s), refusals=1)
        except UnconfirmedPublish as error:
            return error
        return None

    async def _move_aside(self, work: Work, parcel: Parcel, reason: str) -> str | None:
        """Put what was refused into the dead queue; return *reason* if that refuses it too."""
        self._tell_dead(work.message.message_id, len(parcel.body), reason)
        dead = replace(parcel, message_id=None, headers={**parcel.headers, "reason": reason[:MAX_REASON]})
        try:
            await self._insist(lambda: self._publish(self._names.dead, dead), refusals=MAX_REFUSALS)
        except UnconfirmedPublish:
            return reason
        return None

    def _tell_dead(self, message_id: str, size_bytes: int, reason: str) -> None:
        self._events.outbox_dead(
            message_id=message_id or None, queue=self._names.dead, size_bytes=size_bytes, reason=reason
        )

    async def _publish(self, queue: str, parcel: Parcel, delay_s: float = 0.0) -> None:
        await self._queues.publish(queue, parcel, timeout_s=PUBLISH_TIMEOUT_S, delay_s=delay_s)

    async def _publish_delayed(self, parcel: Parcel, due_at: datetime) -> None:
        await self._publish(self._names.outbox, parcel, max(0.0, (due_at - self._clock()).total_seconds()))

    async def _insist(self, action: Callable[[], Awaitable[None]], *, refusals: float = math.inf) -> None:
        """Do *action* until it succeeds, or was refused for the *refusals*-th time, or is too large for ever."""
        tries = refused = 0
        while True:
            try:
                await action()
                return
            except BrokerUnavailable:
                pass
            except UnconfirmedPublish as error:
                refused += 1
                if refused >= refusals or (refusals < math.inf and isinstance(error, TooLarge)):
                    raise
                if tries >= len(BACKOFF_S):
                    self._events.delivery_held(reason=str(error))
            await self._sleep(BACKOFF_S[min(tries, len(BACKOFF_S) - 1)])
            tries += 1


def _as_changed(work: Work, entry: Mapping[str, Any]) -> Work:
    changes = entry.get("changes")
    return replace(work, message=change_outbox(work.message, changes)) if changes else work


def _same_again(consumed: Consumed, correlation_id: str = "", headers: Headers | None = None) -> Parcel:
    """Return the message as it came, to be published again, with *headers* in the place of those it was parked with.

    A crash before the ack leaves two, and so does a lost confirm. Body and ``message_id`` stay what they were, on
    however many trips, and the header says that there may be another: so one of them will be recognised. Where the
    publisher gave no ``message_id`` a second mail is risked: with a derived one, equal JSON published on purpose would
    be taken for a copy, and lost.
    """
    return Parcel(
        body=consumed.body,
        type=consumed.type or OUTBOX_TYPE,
        correlation_id=correlation_id or consumed.correlation_id,
        message_id=consumed.message_id or str(uuid.uuid4()),
        priority=consumed.priority,
        headers={
            **_carried(consumed),
            **(carried_headers(consumed.headers) if headers is None else headers),
            REDELIVERED_HEADER: True,
        },
    )


def _follow_up(work: Work, body: bytes, kind: str, message_id: str | None = None) -> Parcel:
    return Parcel(
        body=body,
        type=kind,
        correlation_id=_cut(work.message.message_id) or work.consumed.correlation_id,
        message_id=message_id,
        priority=work.consumed.priority,
        headers=_carried(work.consumed),
    )


def _carried(consumed: Consumed) -> dict[str, str | int | bool]:
    """Return the headers that stay with a message from reception to result; never those of the broker."""
    traceparent = consumed.headers.get("traceparent")
    return {} if traceparent is None else {"traceparent": traceparent}


def _result_body(message: OutboxMessage, entry: Mapping[str, Any]) -> bytes:
    known = message.properties.get("extracted") is not None
    found = None if known else extracted(message.content, message.envelope, message.recipient)
    return encode_result(message, _results(message, entry), found)


def _short_result_body(message: OutboxMessage, entry: Mapping[str, Any]) -> bytes:
    """Return the result without what may be large: content asked for by ``keepmime``, and ``extracted``."""
    properties = {name: value for name, value in message.properties.items() if name != "extracted"}
    short = replace(message, properties=properties, keep_content=False)
    return encode_result(short, _results(message, entry), None)


def _results(message: OutboxMessage, entry: Mapping[str, Any]) -> list[Any]:
    return [*(message.properties.get("results") or []), entry["result"]]


def _cut(message_id: str) -> str:
    return message_id.encode()[:MAX_CORRELATION_ID].decode(errors="ignore")


def _derived_id(key: bytes, purpose: bytes) -> str:
    """Return an AMQP ``message_id`` that another process would derive likewise from the same queue message."""
    return str(uuid.UUID(bytes=hashlib.sha256(key + purpose).digest()[:16], version=4))
