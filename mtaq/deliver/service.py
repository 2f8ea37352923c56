"""Delivery in one process: the outbox consumed, each message brought to its outcome, and the end of it all.

Every message in hand has a task that walks it through the stages; connections are the dispatcher's. A message is
settled exactly once: acked when everything that follows from it is safe, else given back. What nobody foresaw delays
it and is logged, and never loses it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from mtaq.config import DeliverOptions
from mtaq.deliver import view
from mtaq.deliver.attempt import Attempted, Attempts, Patience
from mtaq.deliver.classify import Attempt, judge
from mtaq.deliver.dispatch import Dispatcher, Stopped
from mtaq.deliver.ending import Ending
from mtaq.deliver.forward import FORWARD_HEADER
from mtaq.deliver.idempotency import Idempotency, owner_headers
from mtaq.deliver.intake import REDELIVERED_HEADER, check_queues, key_of, must_ask_journal, understand
from mtaq.deliver.lookups import LookUps
from mtaq.deliver.notices import Life, Notices
from mtaq.deliver.offline import OfflineAddresses
from mtaq.deliver.opening import Opener
from mtaq.deliver.orders import Orders
from mtaq.deliver.parking import NotYet, Parked, parked_headers, read_parked
from mtaq.deliver.ports import (
    Claims,
    Connect,
    Consumer,
    Control,
    Declare,
    DeliveryNames,
    IdempotencyKeys,
    Journal,
    Meters,
    Queues,
    Resolver,
    Slots,
    Surroundings,
)
from mtaq.deliver.report import Reporter
from mtaq.deliver.results import Results, Work, make_entry
from mtaq.deliver.route import Router, Target
from mtaq.deliver.schedule import Turn, turn_of
from mtaq.deliver.signing import Signing
from mtaq.deliver.tls_policy import TlsPolicies
from mtaq.model.codec import change_outbox
from mtaq.model.dns import Ask
from mtaq.model.errors import BadMessage
from mtaq.model.message import OutboxMessage
from mtaq.model.outcome import Deferred
from mtaq.model.parcel import BrokerState, Consumed
from mtaq.telemetry.events import EventLog

#: How often, and how many times, a message is looked at again that somebody else is working on. Then it is sent away
#: for a while: a process that stands still shall not fill the hands of the others with what it holds.
CLAIM_POLL_S = 0.5
CLAIM_POLLS = 120
SET_ASIDE_S = 60.0
JOURNAL_POLL_S = 0.5
#: How long a message is kept after a bug met its results, before it is given back: a fault that comes back every time
#: shall not spin.
BUG_PAUSE_S = 30.0
#: Part of the grace period kept for what follows from the last outcomes.
RESULTS_GRACE_S = 5.0
#: Changes of the runtime state that come together are looked at together.
RECONSIDER_S = 0.1

_BUG = Ending(
    state="process", result="error", code=451, status="4.3.0", description="internal error; it is logged as a bug"
)
_EXPIRED = Ending(
    state="process", result="timeout", code=554, status="5.4.7", description="not delivered in time", final=True
)


class DeliveryService:
    """Delivers what is in the outbox until stopped."""

    def __init__(
        self,
        options: DeliverOptions,
        names: DeliveryNames,
        *,
        prefetch: int,
        queues: Queues,
        resolver: Resolver,
        connect: Connect,
        journal: Journal,
        claims: Claims,
        slots: Slots,
        meters: Meters,
        control: Control,
        surroundings: Surroundings,
        events: EventLog,
        clock: Callable[[], datetime],
        rng: random.Random,
        declare: Declare | None = None,
        inquire: Callable[[], Ask] | None = None,
        keys: IdempotencyKeys | None = None,
        tls: TlsPolicies | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Put the stages together; nothing runs before ``start``.

        Args:
            meters: What limits are counted with, over all processes.
            control: What operators change at run time.
            prefetch: Messages in hand at once (``rabbitmq-qos``).
            declare: Creates queues that messages name; ``None`` when ``rabbitmq-declare`` is off.
            keys: Who came first with which ``idempotency-key``; ``None`` where none counts.
            inquire: Gives DNS to verify one chain of seals with; ``None`` when none is verified here.
            clock: Time of day, timezone-aware.
            tls: ``None`` where nobody's policies count.
            sleep: Waits; for tests.
        """
        self._loop = asyncio.get_running_loop()
        self._options = options
        self._names = names
        self._prefetch = prefetch
        self._queues = queues
        self._claims = claims
        self._journal = journal
        self._events = events
        self._clock = clock
        self._rng = rng
        self._sleep = sleep
        self._router = Router(options, resolver=resolver, control=control, surroundings=surroundings, rng=rng)
        self._tls = tls or TlsPolicies(clock=clock)
        self._control = control
        self._offline = OfflineAddresses(now=self._loop.time, tell=self._tell_offline)
        self._opener = Opener(
            options,
            tls=self._tls,
            router=self._router,
            connect=connect,
            surroundings=surroundings,
            ehlo_name=names.ehlo_name,
            now=self._loop.time,
            offline=self._offline,
        )
        self._dispatcher = Dispatcher(
            options,
            opener=self._opener,
            slots=slots,
            meters=meters,
            rng=rng,
            tell_full=events.delivery_waiting,
            is_crowded=lambda: 2 * len(self._tasks) > prefetch,
            hands=prefetch,
        )
        self._attempts = Attempts(
            options,
            tls=self._tls,
            router=self._router,
            dispatcher=self._dispatcher,
            look_ups=LookUps(hands=prefetch, rng=rng),
            orders=Orders(control, events=events, rng=rng, on_flood=self._reconsider_soon),
            signing=Signing(control, names, inquire=inquire, events=events, clock=clock),
            events=events,
            clock=clock,
            rng=rng,
        )
        control.on_change(lambda kinds: self._reconsider_soon())
        self._reconsidering: asyncio.TimerHandle | None = None
        self._results = Results(
            names, queues=queues, journal=journal, declare=declare, events=events, clock=clock, sleep=sleep
        )
        self._notices = Notices(options, names)
        self._idempotency = None if keys is None else Idempotency(keys, wait=self._wait_for_disk)
        self._reporter = Reporter(events, now=self._loop.time)
        self._consumer: Consumer | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False

    def start(self) -> None:
        """Consume the outbox."""
        self._consumer = self._queues.consume(self._names.outbox, prefetch=self._prefetch, on_message=self._take)

    def reload(self, options: DeliverOptions) -> None:
        """Use *options* from the next message and the next connection on."""
        self._options = options
        self._router.options = options
        self._opener.options = options
        self._dispatcher.options = options
        self._attempts.options = options
        self._tls.policies = options.delivery_tls_policies
        self._notices.options = options

    def show(self, what: str) -> list[view.Row]:
        """Return what this process has to say of ``sites`` or ``connections``; of anything else nothing."""
        if what == "sites":
            return view.sites(self._dispatcher, self._offline, self._control)
        return view.connections(self._dispatcher, self._loop.time()) if what == "connections" else []

    async def stop(self, grace_s: float = 30.0) -> None:
        """Take nothing more, give back what was not begun, let the rest finish for *grace_s* seconds, give it back."""
        self._stopping = True
        if self._reconsidering is not None:
            self._reconsidering.cancel()
        deadline = self._loop.time() + grace_s
        if self._consumer is not None:
            await self._consumer.stop()
        await self._dispatcher.stop(max(grace_s - RESULTS_GRACE_S, grace_s / 2))
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=max(0.0, deadline - self._loop.time()))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _reconsider_soon(self) -> None:
        """Have what waits looked at again, once for many changes."""
        if self._reconsidering is None:
            self._reconsidering = self._loop.call_later(RECONSIDER_S, self._reconsider)

    def _reconsider(self) -> None:
        self._reconsidering = None
        self._dispatcher.reconsider()

    def _tell_offline(self, source: str | None, target: Target, reason: str) -> None:
        self._events.delivery_host_offline(
            mx_host=target.host, remote_ip=target.address, egress_source=source, reason=reason
        )

    def _take(self, consumed: Consumed) -> None:
        """Called by the broker's adapter: losing the broker must not cut off what begins here."""
        task = self._loop.create_task(self._handle(consumed))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _handle(self, consumed: Consumed) -> None:
        acked = False
        try:
            acked = await self._claimed(consumed)
        except Stopped:
            pass
        except Exception as error:  # the top of a message's life: it stays queued
            self._events.bug(error, message_id=consumed.correlation_id)
            await self._sleep(BUG_PAUSE_S)
        finally:
            if not acked:
                consumed.requeue()

    async def _claimed(self, consumed: Consumed) -> bool:
        """Work on a message while nobody else does; return whether it has been acked."""
        key = key_of(consumed)
        polls = 0
        while not self._claims.take(key):
            # Another process, or this one before it lost the broker, is at it: its journal entry will tell.
            if self._stopping or consumed.is_stale:
                return False
            if polls >= CLAIM_POLLS and consumed.message_id:
                return await self._results.set_aside(consumed, SET_ASIDE_S)
            await self._sleep(CLAIM_POLL_S)
            polls += 1
        if consumed.headers.get(REDELIVERED_HEADER):
            # The first copy says nothing of this one, and may be handed out after it.
            self._claims.expect_twin(key)
        try:
            await self._understood(consumed, key, contested=polls > 0 or self._claims.expects_twin(key))
        finally:
            self._claims.release(key)
        return True

    async def _understood(self, consumed: Consumed, key: bytes, *, contested: bool) -> None:
        try:
            work = Work(consumed, key, self._read(consumed))
            if must_ask_journal(consumed, attempts=work.message.attempts, contested=contested):
                known = await self._results.look_up(key)
                if consumed.redelivered:
                    sending = known is None and self._claims.was_sending(key)
                    self._reporter.redelivered(work.message, known=known is not None, sending=sending)
                if known is not None:
                    self._claims.note_sent(key)
                    await self._again(work, *known)
                    return
            await self._scheduled(work)
        except BadMessage as error:
            await self._results.bury(consumed, str(error))

    def _read(self, consumed: Consumed) -> OutboxMessage:
        try:
            return understand(consumed, self._names.outbox)
        except (BadMessage, MemoryError):
            raise
        except Exception as error:  # it would come back every time
            self._events.bug(error, message_id=consumed.correlation_id)
            raise BadMessage(f"internal error, logged as a bug: {type(error).__name__}") from error

    async def _again(self, work: Work, entry: Mapping[str, Any], settled: bool) -> None:
        """It was attempted before: finish what follows, if that is not done yet, and do not send it again."""
        message = work.message
        self._events.delivery_duplicate(
            message_id=message.message_id,
            attempt=message.attempts + 1,
            reverse_path=message.envelope,
            forward_path=message.recipient,
            outcome=entry["outcome"],
        )
        if settled:
            work.consumed.ack()
        else:
            await self._results.follow_up(work, entry)

    async def _scheduled(self, work: Work) -> None:
        parked = read_parked(work.consumed.headers)
        if parked is not None and work.message.seen_at is None:
            work = replace(work, message=replace(work.message, seen_at=parked.seen_at))
        if work.consumed.headers.get(FORWARD_HEADER):
            work = replace(work, message=replace(work.message, due_at=None))
        max_delivertime = timedelta(seconds=self._options.max_delivertime)
        turn = turn_of(work.message, now=self._clock(), max_delivertime=max_delivertime)
        if turn.action == "park":
            assert turn.until is not None, "park always says until when"
            await self._results.park(work, turn.until)
            return
        while self._journal.state is BrokerState.DOWN:
            # Nothing is begun whose outcome could not be noted: sent again after a restart, it would be sent twice.
            await self._wait_for_disk()
        started = self._loop.time()
        attempted = Attempted(_EXPIRED, "", work.message)
        if turn.action == "attempt":
            try:
                attempted = await self._attempted(work, turn, parked, started)
            except NotYet as why:
                await self._parked(work, why, turn, parked)
                return
        await self._concluded(work, attempted, turn, started)

    async def _parked(self, work: Work, why: NotYet, turn: Turn, before: Parked | None) -> None:
        """Nothing was begun, and it has to wait: outside of the prefetch window, and no longer than it lives."""
        now = self._clock()
        left = turn.expires_at - now
        until = turn.expires_at if why.wait_s >= left.total_seconds() else now + timedelta(seconds=why.wait_s)
        self._reporter.parked(work.message, why, until)
        headers = parked_headers(why, until, turn.seen_at, before)
        headers |= owner_headers(work.consumed, work.key, work.message)
        await self._results.park(work, until, headers)

    async def _wait_for_disk(self) -> None:
        if self._stopping:
            raise Stopped
        await self._sleep(JOURNAL_POLL_S)

    async def _attempted(self, work: Work, turn: Turn, parked: Parked | None, started: float) -> Attempted:
        message = work.message
        if self._idempotency is not None:
            ttl_s = self._options.idempotency_ttl
            repeated = await self._idempotency.objection(work.consumed, work.key, message, ttl_s=ttl_s)
            if repeated is not None:
                return Attempted(repeated, "", message)
        deadline = started + self._options.delivery_attempt_timeout
        patience = Patience(
            deadline=deadline,
            expires_at=turn.expires_at,
            parked=parked,
            on_content=lambda: self._claims.note_sending(work.key),
        )
        try:
            return await self._attempts.make(message, patience)
        except (BadMessage, NotYet, Stopped):
            raise
        except Exception as error:  # unclassified means transient
            self._events.bug(error, message_id=message.message_id)
            return Attempted(_BUG, "", message)

    async def _concluded(self, work: Work, attempted: Attempted, turn: Turn, started: float) -> None:
        ending, message = attempted.ending, attempted.message
        attempt = Attempt(
            number=work.message.attempts + 1,
            expires_at=turn.expires_at,
            duration_ms=int((self._loop.time() - started) * 1000),
        )
        now = self._clock()
        outcome = judge(ending, message, attempt, now=now, options=self._options, rng=self._rng)
        if isinstance(outcome, Deferred) and attempted.delay_s is not None:
            asked = min(now + timedelta(seconds=attempted.delay_s), turn.expires_at)
            outcome = replace(outcome, next_attempt_at=asked)
        life = Life(turn.seen_at, turn.expires_at)
        notice = self._notices.due(outcome, ending, work.message, life, work.key)
        entry = make_entry(outcome, turn.seen_at, self._changes(work, attempted), notice, attempted.site)
        await self._results.record(work, entry)  # before anything else: whoever dies now must not send it again
        self._claims.note_sent(work.key)
        self._reporter.report(work.message, ending, outcome, attempted.site)
        if notice is not None:
            self._reporter.returned(work.message, outcome, notice)
        await self._results.follow_up(work, entry)

    def _changes(self, work: Work, attempted: Attempted) -> Mapping[str, Any]:
        """Return what a response pattern changes, if the message can be read with it."""
        changes = attempted.changes
        if changes:
            try:
                check_queues(change_outbox(work.message, changes), self._names.outbox)
            except BadMessage as error:
                self._events.delivery_unchanged(message_id=work.message.message_id, reason=str(error))
                return {}
        return changes
