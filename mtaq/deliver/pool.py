"""Ready queues and what is counted beside them: the nouns of the dispatcher, and who may enter a queue.

A *pool* is one ready queue with its connections; a *group* is all pools that share a cap on connections. Decides only:
connections are opened, and jobs ended, by ``mtaq.deliver.dispatch``.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import deque
from dataclasses import dataclass, field

from mtaq.config import DeliverOptions
from mtaq.deliver.connection import Connection
from mtaq.deliver.ending import Ending
from mtaq.deliver.gate import Gate
from mtaq.deliver.parking import NotYet, Parked, Reason
from mtaq.deliver.route import Login, Route, RouteKey
from mtaq.deliver.tls_policy import Demand
from mtaq.model.control import DailyCap, LimitsInForce
from mtaq.smtp.client_commands import Transaction

#: Under a rate, so much time's worth of messages is held ready: the delay queues are precise to two seconds.
READY_S = 2.0
#: And no more than this.
MOST_READY = 50
#: A message whose turn is further away than this is not held for it.
HOLD_S = 5.0
#: Nobody is sent away for less: the delay queues could not keep it.
SHORTEST_S = 2.0
#: No line is longer, though some message's patience may be.
LONGEST_S = 366 * 86_400.0
#: When memory is short, a site without rates holds what it can send in this time, but always a few messages. The slow
#: ones together hold a quarter of what a process may have in hand, however many they are.
SLOW_S = 20.0
FEW = 20
SLOW_SHARE = 0.25
#: Connections of a site that never answered a message, which may be a tarpit; with memory short, one.
UNPROVEN = 2
#: How fast a site is has to be seen first.
JUDGED_AFTER_S = 3.0
#: Waits of what a slow site has no room for; doubled each time, up to the last.
FULL_S, FULL_LONGEST_S = 15.0, 300.0

PoolKey = tuple[str | None, Demand, RouteKey, Login | None, LimitsInForce, DailyCap | None]


@dataclass(eq=False, slots=True)
class Job:
    """One transaction that waits for a connection.

    Attributes:
        transaction: With one forward-path.
        deadline: The loop's time at which the attempt must have ended.
        patience_s: Seconds after which its message would have expired.
        parked: What it remembers of waiting in the delay queues; ``None`` when it did not.
        early_s: How much too early it came back from there; at most 0 when it did not.
        done: Where its ending goes.
        stale: How many reused connections failed under it.
    """

    transaction: Transaction
    deadline: float
    patience_s: float
    parked: Parked | None
    early_s: float
    done: asyncio.Future[Ending]
    stale: int = 0

    @property
    def size_bytes(self) -> int:
        """Of its content."""
        return self.transaction.size_bytes

    def has_place(self, line: bytes) -> bool:
        """Does it come back for its place in *line*?"""
        return bool(line) and self.parked is not None and self.parked.line == line


@dataclass(eq=False, slots=True)
class Group:
    """Every connection under one cap.

    Attributes:
        counter: Under what the processes of the instance count them together.
        cap: Of them; ``None`` for what the configuration says, 0 for none.
        connections: Of this process, being opened ones included.
        leaving: Of those, how many close so that other processes have a share.
        full_until: No connection is opened before: others have them all.
        wanted: Does another process want one, as far as was seen at ``asked_at``?
    """

    counter: bytes
    cap: int | None
    connections: int = 0
    leaving: int = 0
    full_until: float = 0.0
    wanted: bool = False
    asked_at: float = 0.0
    pools: dict[PoolKey, Pool] = field(default_factory=dict)

    def most(self, options: DeliverOptions) -> float:
        """Return how many connections there may be, in all processes together."""
        cap = options.delivery_connections_per_site if self.cap is None else self.cap
        return cap or math.inf


@dataclass(eq=False, slots=True)
class Pool:
    """One ready queue and its connections.

    Attributes:
        is_current: Was a job put in since limits were last changed?
        since: When it was made.
        open: Connections ready for work or working.
        opening: Connections being opened.
        without_slot: Of those, how many wait until the instance may have one more.
        idle: Connections without work, the most recently used last; true wakes one to work, false to close.
        woken: Of those, how many have been woken and did not yet take a job.
        ceiling: No more connections than this until ``ceiling_until``.
        held_until: No message begins before, by its limits.
        closed_until: No connection is opened before, by its limits.
        busy: Jobs that are being carried.
        answered: Jobs that ended with a reply; ``answered_at`` is the loop's time of the last one.
        done: Jobs carried since the last look.
        pace: Jobs a second, lately.
        room: Jobs it may hold while memory is short, those being carried included.
        carriers: Connections that are open, each with the loop's time when it was opened.
    """

    group: Group
    key: PoolKey
    route: Route
    source: str | None
    tls: Demand
    gate: Gate
    since: float
    is_current: bool = True
    ready: deque[Job] = field(default_factory=deque)
    open: int = 0
    opening: int = 0
    without_slot: int = 0
    idle: list[asyncio.Future[bool]] = field(default_factory=list)
    woken: int = 0
    ceiling: int = 0
    ceiling_until: float = 0.0
    held_until: float = 0.0
    closed_until: float = 0.0
    busy: int = 0
    answered: int = 0
    answered_at: float = -math.inf
    done: int = 0
    pace: float = 0.0
    room: float = math.inf
    carriers: dict[Connection, float] = field(default_factory=dict)

    @property
    def starves(self) -> bool:
        """Is there work, and no connection to do it?"""
        return bool(self.ready) and not (self.open or self.opening)

    @property
    def held(self) -> int:
        """How many jobs wait here or are being carried."""
        return len(self.ready) + self.busy

    def note_answer(self, now: float) -> None:
        """A job ended with a reply."""
        self.answered += 1
        self.answered_at = now

    def most_connections(self, now: float, *, crowded: bool) -> int:
        """Return how many connections it has earned: what never answers shall not double them, nor fill the hands."""
        if crowded and now - max(self.answered_at, self.since) >= JUDGED_AFTER_S:
            return 1
        return max(1 if crowded else UNPROVEN, 2 * self.answered)

    def messages_per_connection(self, options: DeliverOptions) -> int:
        """Return how many messages a connection carries."""
        limit = self.gate.limits.messages_per_connection
        return int(limit.amount) if limit and limit.amount else options.delivery_messages_per_connection

    def interval_s(self, job: Job, options: DeliverOptions) -> float:
        """Return how far apart messages like *job*'s can go; 0 without rates."""
        return self.gate.interval_s(job.size_bytes, self.messages_per_connection(options))

    def is_slow(self, now: float) -> bool:
        """Has it had the time to show how fast it is, and did not?"""
        return now - self.since >= JUDGED_AFTER_S and self.pace * SLOW_S < FEW

    def look(self, seconds: float, *, now: float, crowded: bool, few: float = FEW) -> None:
        """See how fast it is, *seconds* after the last look; when memory is short, it may hold so much and no more."""
        self.pace += (self.done / seconds - self.pace) * 0.3
        self.done = 0
        is_judged = crowded and now - self.since >= JUDGED_AFTER_S
        waits_for_others = self.without_slot and not self.open
        self.room = max(few, self.pace * SLOW_S) if is_judged and not waits_for_others else math.inf

    def objection(self, job: Job, options: DeliverOptions, rng: random.Random) -> NotYet | None:
        """Return why *job* cannot wait here; ``None`` when it can."""
        limits, held = self.gate.limits, len(self.ready)
        if self.gate.day_is_full:
            return self.not_yet(0.0, "warm-up")
        interval_s = self.interval_s(job, options) if self.gate.line else 0.0
        if limits.ready_messages is not None and 0 < limits.ready_messages.amount <= held:
            return self.sent_away(job, interval_s) if interval_s else self.full(job, rng)
        if interval_s:
            return self._objection_of_rate(job, interval_s, rng)
        return self.full(job, rng) if self.held >= self.room else None

    def _objection_of_rate(self, job: Job, interval_s: float, rng: random.Random) -> NotYet | None:
        gate = self.gate
        room = min(max(gate.burst, math.ceil(READY_S / interval_s)), MOST_READY)
        if job.has_place(gate.line):
            if job.early_s > SHORTEST_S:  # somebody sent it forward, and the limits are what they were
                return self.not_yet(job.early_s, "throttle", line=gate.line)
            return None if len(self.ready) < 2 * room else self.full(job, rng)
        if len(self.ready) < room and gate.ahead_s() <= READY_S:
            return None
        return self.sent_away(job, interval_s)

    def sent_away(self, job: Job, takes_s: float) -> NotYet:
        """Return *job*'s place in the line, or the end of its message's life."""
        gate = self.gate
        patience_s = min(max(SHORTEST_S, job.patience_s), LONGEST_S)
        place_s = gate.place(takes_s=takes_s, not_before_s=max(SHORTEST_S, gate.ahead_s()), within_s=patience_s)
        if place_s is None:
            return self.not_yet(patience_s, "throttle")
        return self.not_yet(place_s, "throttle", line=gate.line)

    def full(self, job: Job, rng: random.Random) -> NotYet:
        """Return word that there is no room for *job*; a place in the line that it has is kept."""
        times = job.parked.times if job.parked is not None else 0
        wait_s = min(FULL_LONGEST_S, FULL_S * 2.0 ** min(times, 10)) * rng.uniform(0.5, 1.0)
        return self.not_yet(wait_s, "full", line=self.gate.line if job.has_place(self.gate.line) else b"")

    def not_yet(self, wait_s: float, reason: Reason, *, line: bytes = b"") -> NotYet:
        """Return word that a job has to wait elsewhere."""
        return NotYet(wait_s, reason, line=line, site=self.route.site, source=self.source)
