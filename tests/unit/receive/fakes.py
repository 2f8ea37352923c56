"""A broker that confirms when told to, and names that are given."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from mtaq.config import Settings, load
from mtaq.limits.memory import MemoryBudget
from mtaq.model.address import Address
from mtaq.model.errors import NoSuchDomain
from mtaq.model.identity import transaction_id
from mtaq.model.message import ConnectionFacts
from mtaq.model.parcel import BrokerState, Parcel
from mtaq.receive.domains import DomainCheck
from mtaq.receive.draft import SessionFacts
from mtaq.receive.evidence import Evidence
from mtaq.receive.policy import PortPolicy
from mtaq.receive.ports import Logins, Publisher, Slots
from mtaq.receive.service import Facilities
from mtaq.telemetry.events import EventLog

NOW = datetime(2026, 5, 1, 5, 59, 58, tzinfo=UTC)


@dataclass
class ManualBroker:
    """Publishes wait until the test says what became of them."""

    state: BrokerState = BrokerState.UP
    waiting: list[tuple[str, Parcel, asyncio.Future[None]]] = field(default_factory=list)

    async def publish(self, queue: str, parcel: Parcel, *, timeout_s: float) -> None:
        """Wait for ``settle``."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.append((queue, parcel, future))
        await future

    def settle(self, number: int, error: Exception | None = None) -> None:
        """Confirm the *number*-th publish, or fail it with *error*."""
        future = self.waiting[number][2]
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)


class Names:
    """No configured names."""

    def configured_for(self, local_ip: str) -> str | None:
        """None."""
        return None

    def found_for(self, local_ip: str) -> str:
        """The same for every address."""
        return "found.test"


class State:
    """A runtime state that tests write.

    Attributes:
        local: Addresses that are ours.
        blocked: IPs that are refused.
        added: What was put on the blocked list by itself: network and reason.
    """

    def __init__(self) -> None:
        self.local: set[Address] = set()
        self.blocked: set[str] = set()
        self.added: list[tuple[str, str]] = []

    def is_local(self, address: Address) -> bool:
        """Is it among ours?"""
        return address in self.local

    def block_for(self, ip: str) -> object | None:
        """Is it among the blocked?"""
        return ip if ip in self.blocked else None

    async def add_block(self, network: str, *, reason: str, duration_s: float, automatic: bool = True) -> None:
        """Note it."""
        self.added.append((network, reason))


class Counts:
    """Counts of one process, in a window that never ends."""

    def __init__(self) -> None:
        self.counts: dict[bytes, int] = {}

    def take(self, key: bytes, *, limit: int, now: float) -> float:
        """Count one more, up to the limit."""
        if self.counts.get(key, 0) >= limit:
            return 1.0
        self.add(key, now=now)
        return 0.0

    def add(self, key: bytes, *, now: float) -> int:
        """Count one more."""
        self.counts[key] = self.counts.get(key, 0) + 1
        return self.counts[key]

    def count(self, key: bytes, *, now: float) -> int:
        """Return how many."""
        return self.counts.get(key, 0)


class Domains:
    """A resolver for which every domain takes mail, except those named.

    Attributes:
        unknown: Domains that do not exist.
    """

    def __init__(self) -> None:
        self.unknown: set[str] = set()

    async def mail_hosts(self, domain: str) -> list[object]:
        """Return nothing of interest."""
        if domain in self.unknown:
            raise NoSuchDomain(domain)
        return []


class Lines:
    """Keeps what is logged."""

    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []

    def write(self, level: int, record: dict[str, Any]) -> None:
        """Keep it."""
        self.records.append(record)


def settings(**options: str) -> Settings:
    """Return settings with some options given."""
    overrides = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    return load(path="/dev/null", environ={}, overrides=overrides)


def policy(
    port: int = 25,
    broker_max_bytes: int | None = None,
    starttls: bool = False,
    logins: Logins | None = None,
    **options: str,
) -> PortPolicy:
    """Return the policy of a port."""
    return PortPolicy(
        settings(**options).receive(port), port=port, hostnames=Names(), broker_max_bytes=broker_max_bytes,
        starttls=starttls, logins=logins,
    )  # fmt: skip


def event_log() -> tuple[EventLog, Lines]:
    """Return a log and what it gets."""
    lines = Lines()
    return EventLog(lines, node="test", clock=lambda: NOW), lines


def facilities(
    publisher: Publisher, slots: Slots, events: EventLog, *, state: State | None = None, memory_bytes: int = 2**30
) -> Facilities:
    """Return what a reception service is given, alone in its process."""
    return Facilities(
        publisher=publisher, slots=slots, state=state or State(), rates=Counts(), counts=Counts(),
        domains=DomainCheck(Domains()), memory=MemoryBudget(memory_bytes), events=events, clock=lambda: NOW,
        now=lambda: 0.0,
    )  # fmt: skip


def no_evidence(publisher: Publisher, queue: str | None = None) -> Evidence:
    """Return what keeps evidence in *queue*, or nothing of it."""
    tasks: set[asyncio.Task[None]] = set()
    return Evidence(
        queue, publisher=publisher, watch=tasks.add, max_bytes=None, clock=lambda: NOW,
        identify=lambda now: transaction_id("test", now=now, random=bytes(10)),
    )  # fmt: skip


def facts(port_policy: PortPolicy, local_ip: str = "127.0.0.1") -> SessionFacts:
    """Return the facts of a plain session."""
    connection = ConnectionFacts(
        local_ip=local_ip, local_port=25, remote_ip="198.51.100.7", remote_port=40112, helo="client.test"
    )
    return SessionFacts(session_id="s-1", connection=connection, hostname="relay.test", esmtp=True, policy=port_policy)
