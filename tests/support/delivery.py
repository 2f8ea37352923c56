"""Everything around delivery, in memory: queues, journal, claims, DNS, a log; and a service that stands among them."""

from __future__ import annotations

import asyncio
import functools
import itertools
import random
import ssl
import uuid
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from mtaq.config import DeliverOptions, DeliveryTimeouts
from mtaq.deliver.ports import DeliveryNames, MailHost, Surroundings
from mtaq.deliver.service import DeliveryService
from mtaq.model.errors import BrokerUnavailable, NoSuchDomain, TooLarge, UnconfirmedPublish
from mtaq.model.parcel import OUTBOX_TYPE, BrokerState, Consumed, Parcel
from mtaq.net.addresses import is_own, is_private
from mtaq.net.connect import connect
from mtaq.net.tls import client_context
from mtaq.state.control import LiveControl, prepare
from mtaq.telemetry.events import EventLog
from tests.support.meters import fake_meters

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
PATIENCE_S = 20.0


def options(**changes: Any) -> DeliverOptions:
    """Return the options as built in, with short time-outs and no jitter."""
    quick = DeliveryTimeouts(connect=5, banner=5, ehlo=5, tls=5, auth=5, mail=5, rcpt=5, data=5, block=5, dot=5)
    return replace(DeliverOptions(delivery_timeouts=quick, retry_jitter=0, delivery_allow_private=True), **changes)


def outbox_json(recipient: str = "bob@example.com", **properties: Any) -> dict[str, Any]:
    """Return a small message for the outbox; ``message_id`` stands for ``message-id``."""
    named = {name.replace("_", "-"): value for name, value in properties.items()}
    message = {"message-id": "test.1", "envelope": "ada@example.org", "mime": "Subject: hi\r\n\r\nhello\r\n"}
    return {**message, "recipient": recipient, **named}


class Clock:
    """Time that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def forward(self, seconds: float) -> None:
        """Move on."""
        self.now += timedelta(seconds=seconds)


class FakeConsumed:
    """A message handed out by ``FakeQueues``."""

    def __init__(
        self, queues: FakeQueues, body: bytes, *, message_id: str, redelivered: bool, headers: Mapping[str, Any]
    ) -> None:
        self.queue = "outbox"
        self.body = body
        self.redelivered = redelivered
        self.is_stale = False
        self.type = OUTBOX_TYPE
        self.correlation_id = "test.1"
        self.message_id = message_id
        self.priority = 3
        self.headers = headers
        self.settled: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._queues = queues

    def ack(self) -> None:
        """Settle."""
        self._settle("ack")

    def requeue(self) -> None:
        """Give back."""
        self._settle("requeue")

    def _settle(self, how: str) -> None:
        assert not self.settled.done(), "settled twice"
        self._queues.history.append(how)
        self.settled.set_result(how)

    async def outcome(self) -> str:
        """Wait for ``ack`` or ``requeue``."""
        async with asyncio.timeout(PATIENCE_S):
            return await asyncio.shield(self.settled)


@dataclass
class Stored:
    """A parcel in a queue."""

    parcel: Parcel
    delay_s: float

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return orjson.loads(self.parcel.body)


class FakeQueues:
    """A broker in memory.

    Attributes:
        stored: What was published, by queue.
        missing: Queues that do not exist.
        not_declared: What ``declare`` raises, in turn, before it works.
        most_bytes: Larger bodies are refused.
        down: While true nothing can be published.
        history: What happened, in order, shared with the journal.
    """

    def __init__(self, history: list[str]) -> None:
        self.stored: defaultdict[str, list[Stored]] = defaultdict(list)
        self.missing: set[str] = set()
        self.declared: list[str] = []
        self.not_declared: list[Exception] = []
        self.most_bytes = 1 << 30
        self.down = False
        self.history = history
        self.consuming = False
        self._on_message: Callable[[Consumed], None] | None = None

    async def publish(self, queue: str, parcel: Parcel, *, timeout_s: float, delay_s: float = 0.0) -> None:
        """Store, or fail as told."""
        assert timeout_s > 0
        await asyncio.sleep(0)
        if self.down:
            raise BrokerUnavailable("away")
        if queue in self.missing:
            raise UnconfirmedPublish(f"no queue {queue}")
        if len(parcel.body) > self.most_bytes:
            raise TooLarge(f"{len(parcel.body)} bytes")
        self.history.append(f"publish {queue}")
        self.stored[queue].append(Stored(parcel, delay_s))

    def consume(self, queue: str, *, prefetch: int, on_message: Callable[[Consumed], None]) -> FakeQueues:
        """Hand out from now on what ``hand_out`` is given."""
        assert (queue, prefetch) == ("outbox", 100)
        self._on_message = on_message
        self.consuming = True
        return self

    async def stop(self) -> None:
        """End the consumption."""
        self.consuming = False

    async def declare(self, queue: str) -> None:
        """Create a missing queue."""
        if self.not_declared:
            raise self.not_declared.pop(0)
        self.declared.append(queue)
        self.missing.discard(queue)

    def hand_out(
        self,
        message: Mapping[str, Any] | bytes,
        *,
        message_id: str | None = None,
        redelivered: bool = False,
        headers: Mapping[str, Any] | None = None,
    ) -> FakeConsumed:
        """Give a message to the consumer."""
        assert self._on_message is not None
        body = message if isinstance(message, bytes) else orjson.dumps(dict(message))
        consumed = FakeConsumed(
            self,
            body,
            message_id=str(uuid.uuid4()) if message_id is None else message_id,
            redelivered=redelivered,
            headers=headers or {},
        )
        self._on_message(consumed)
        return consumed


@dataclass
class FakeEntry:
    """An entry of the journal."""

    data: Mapping[str, Any]
    settled: bool = False


class FakeJournal:
    """A journal in memory; ``failures`` are raised before anything is recorded."""

    def __init__(self, history: list[str]) -> None:
        self.entries: dict[bytes, FakeEntry] = {}
        self.failures: list[Exception] = []
        self.state = BrokerState.UP
        self.asked = 0
        self._history = history

    async def record(self, key: bytes, entry: Mapping[str, Any], *, settled: bool = False) -> None:
        """Note it."""
        await asyncio.sleep(0)
        if self.failures:
            raise self.failures.pop(0)
        self._history.append("record")
        self.entries[key] = FakeEntry(orjson.loads(orjson.dumps(dict(entry))), settled)

    def settle(self, key: bytes) -> None:
        """Note that it is done."""
        self._history.append("settle")
        self.entries[key].settled = True

    async def look_up(self, key: bytes) -> FakeEntry | None:
        """Tell."""
        self.asked += 1
        await asyncio.sleep(0)
        return self.entries.get(key)


class FakeClaims:
    """Claims in memory."""

    def __init__(self) -> None:
        self.held: set[bytes] = set()
        self.twins: set[bytes] = set()
        self.sending: set[bytes] = set()

    def take(self, key: bytes) -> bool:
        """Claim."""
        if key in self.held:
            return False
        self.held.add(key)
        return True

    def release(self, key: bytes) -> None:
        """Let go."""
        self.held.remove(key)

    def expect_twin(self, key: bytes) -> None:
        """Remember."""
        self.twins.add(key)

    def expects_twin(self, key: bytes) -> bool:
        """Look up."""
        return key in self.twins

    def note_sending(self, key: bytes) -> None:
        """Remember."""
        self.sending.add(key)

    def note_sent(self, key: bytes) -> None:
        """Forget."""
        self.sending.discard(key)

    def was_sending(self, key: bytes) -> bool:
        """Look up."""
        return key in self.sending


class FakeSlots:
    """Connection slots in memory.

    Attributes:
        free: How many there are.
        claims: What they are for.
        elsewhere: Claims of other processes.
    """

    def __init__(self, free: int = 1 << 30) -> None:
        self.free = free
        self.held: set[int] = set()
        self.claims: dict[int, bytes] = {}
        self.elsewhere: dict[bytes, int] = {}
        self._numbers = itertools.count()

    def take(self) -> int | None:
        """Take."""
        if len(self.held) >= self.free:
            return None
        slot = next(self._numbers)
        self.held.add(slot)
        return slot

    def release(self, slot: int) -> None:
        """Give back."""
        self.held.remove(slot)
        self.claims.pop(slot, None)

    def claim_for(self, slot: int, counter: bytes, cap: int) -> bool:
        """Count."""
        assert slot in self.held
        others = sum(other == counter for other in self.claims.values()) + self.elsewhere.get(counter, 0)
        if others < cap:
            self.claims[slot] = counter
        return others < cap


def live_control(clock: Callable[[], datetime]) -> LiveControl:
    """Return the runtime state of one process, without a database; empty."""
    return LiveControl(clock, lambda: None)


def set_entries(control: LiveControl, kind: str, *entries: Any) -> None:
    """Let *entries* be all that there are of *kind*."""
    control.replace(kind, prepare(kind, entries))
    control.tell([kind])


class FakeResolver:
    """DNS in memory: MX hosts by domain, addresses by host; an exception in their place is raised."""

    def __init__(self) -> None:
        self.mx: dict[str, list[MailHost] | Exception] = {}
        self.ips: dict[str, list[str] | Exception] = {}
        self.asked: list[str] = []

    def add(self, domain: str, *hosts: tuple[int, str, str]) -> None:
        """Give *domain* MX hosts: preference, name, address."""
        self.mx[domain] = [MailHost(preference, name) for preference, name, _ in hosts]
        self.ips |= {name: [ip] for _, name, ip in hosts}

    async def mail_hosts(self, domain: str) -> Sequence[MailHost]:
        """Answer."""
        self.asked.append(domain)
        found: Sequence[MailHost] = self._answer(self.mx, domain)
        return found

    async def addresses(self, host: str) -> Sequence[str]:
        """Answer; an address is its own."""
        self.asked.append(host)
        if host[0].isdigit() or ":" in host:
            return [host]
        found: Sequence[str] = self._answer(self.ips, host)
        return found

    @staticmethod
    def _answer(table: Mapping[str, Any], name: str) -> Any:
        answer = table.get(name, NoSuchDomain(f"{name} does not exist"))
        if isinstance(answer, Exception):
            raise answer
        return answer


class Lines:
    """A log sink that keeps its lines."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []

    def write(self, level: int, record: dict[str, Any]) -> None:
        """Keep it."""
        self.records.append(record)

    def of(self, event: str) -> list[dict[str, Any]]:
        """Lines of one event."""
        return [record for record in self.records if record["event"] == event]


@functools.cache
def unverified_context() -> ssl.SSLContext:
    """TLS that looks at no certificate."""
    return client_context(verified=False)


def surroundings(**changes: Any) -> Surroundings:
    """Return what net says about addresses, and TLS contexts."""
    context = unverified_context()
    usual: dict[str, Any] = {"is_own": is_own, "is_private": is_private, "unverified": context, "verified": context}
    return Surroundings(**{**usual, **changes})


NAMES = DeliveryNames(
    ehlo_name=lambda source: "out.test",
    outbox="outbox",
    dead="dead",
    results="results",
    success="success",
    failure="failure",
    retry="retry",
)


@dataclass(kw_only=True)
class World:
    """A delivery service and everything around it."""

    options: DeliverOptions = field(default_factory=options)
    names: DeliveryNames = NAMES
    surroundings: Surroundings = field(default_factory=surroundings)
    declare: bool = False
    connect: Any = connect
    journal: Any = None
    claims: Any = None
    slots: Any = None
    meters: Any = None
    control: Any = None
    resolver: Any = None
    tls: Any = None
    keys: Any = None
    queues: Any = None
    clock: Any = None
    sleep: Callable[[float], Awaitable[None]] | None = None

    def __post_init__(self) -> None:
        self.history: list[str] = []
        self.clock = self.clock or Clock()
        self.lines = Lines()
        self.resolver = self.resolver or FakeResolver()
        self.queues = self.queues or FakeQueues(self.history)
        self.journal = self.journal or FakeJournal(self.history)
        self.claims = self.claims or FakeClaims()
        self.slots = self.slots or FakeSlots()
        self.control = self.control or live_control(self.clock)
        self.slept: list[float] = []
        self.service = self._service()

    def _service(self) -> DeliveryService:
        return DeliveryService(
            self.options,
            self.names,
            prefetch=100,
            queues=self.queues,
            resolver=self.resolver,
            connect=self.connect,
            journal=self.journal,
            claims=self.claims,
            slots=self.slots,
            meters=self.meters or fake_meters(),
            control=self.control,
            declare=self.queues.declare if self.declare else None,
            keys=self.keys,
            tls=self.tls,
            surroundings=self.surroundings,
            events=EventLog(self.lines, node="test", clock=self.clock, level="debug"),
            clock=self.clock,
            rng=random.Random(1),
            sleep=self.sleep or self._sleep,
        )

    async def _sleep(self, seconds: float) -> None:
        """Take no time, but let others run."""
        self.slept.append(seconds)
        await asyncio.sleep(0.001)

    async def __aenter__(self) -> World:
        self.service.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.service.stop(grace_s=0.2)

    async def deliver(self, message: Mapping[str, Any] | bytes, **properties: Any) -> str:
        """Hand out *message* and wait until it is settled; return how."""
        consumed: FakeConsumed = self.queues.hand_out(message, **properties)
        return await consumed.outcome()

    def result(self, queue: str) -> dict[str, Any]:
        """Return the last attempt's result in the only message of *queue*."""
        [stored] = self.queues.stored[queue]
        result: dict[str, Any] = stored.json["results"][-1]
        return result
