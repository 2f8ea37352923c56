"""A broker that confirms when told to, and names that are given."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from mtaq.config import Settings, load
from mtaq.model.message import ConnectionFacts
from mtaq.model.parcel import BrokerState, Parcel
from mtaq.receive.intake import SessionFacts
from mtaq.receive.policy import PortPolicy
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


def policy(port: int = 25, broker_max_bytes: int | None = None, starttls: bool = False, **options: str) -> PortPolicy:
    """Return the policy of a port."""
    return PortPolicy(
        settings(**options).receive(port), port=port, hostnames=Names(), broker_max_bytes=broker_max_bytes,
        starttls=starttls,
    )  # fmt: skip


def event_log() -> tuple[EventLog, Lines]:
    """Return a log and what it gets."""
    lines = Lines()
    return EventLog(lines, node="test", clock=lambda: NOW), lines


def facts(port_policy: PortPolicy, local_ip: str = "127.0.0.1") -> SessionFacts:
    """Return the facts of a plain session."""
    connection = ConnectionFacts(
        local_ip=local_ip, local_port=25, remote_ip="198.51.100.7", remote_port=40112, helo="client.test"
    )
    return SessionFacts(
        session_id="s-1", connection=connection, hostname="relay.test", protocol="ESMTP", policy=port_policy
    )
