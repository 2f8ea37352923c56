"""What reception needs from others. Adapters fit these; ``mtaq.assembly`` hands them in."""

from __future__ import annotations

from typing import Protocol

from mtaq.model.parcel import BrokerState, Parcel


class Publisher(Protocol):
    """The broker, as far as reception uses it (``mtaq.broker.port.Broker``)."""

    @property
    def state(self) -> BrokerState:
        """How the broker is now."""

    async def publish(self, queue: str, parcel: Parcel, *, timeout_s: float) -> None:
        """Store *parcel*; see the broker port."""


class Slots(Protocol):
    """A cap on connections, exact across the processes of an instance."""

    def take(self) -> int | None:
        """Return a free slot, now ours, or ``None`` when all are taken."""

    def release(self, slot: int) -> None:
        """Give a slot back."""


class Hostnames(Protocol):
    """Our names."""

    def configured_for(self, local_ip: str) -> str | None:
        """Return the name that operators gave this local IP, or ``None``."""

    def found_for(self, local_ip: str) -> str:
        """Return the name found without configuration: reverse DNS of the local IP, else the system's."""
