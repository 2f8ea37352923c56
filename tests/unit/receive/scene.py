"""One connection against a broker that confirms when told to, its client a transport without a network."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from mtaq.receive.connection import SmtpConnection
from mtaq.receive.intake import IntakeOptions
from mtaq.receive.policy import PortPolicy
from mtaq.receive.proxy import ProxyHeader
from mtaq.receive.service import ReceptionService
from tests.unit.receive.fakes import Lines, ManualBroker, State, event_log, facilities, policy

TRANSACTION = b"MAIL FROM:<ada@example.org>\r\nRCPT TO:<grace@example.com>\r\nDATA\r\nSubject: a\r\n\r\nb\r\n.\r\n"


class Client(asyncio.Transport):
    """What the connection writes to; reads when the test wants it to."""

    def __init__(self, *, tls: bool = False) -> None:
        known = {"peername": ("127.0.0.1", 40112), "sockname": ("127.0.0.1", 25)}
        super().__init__({**known, "ssl_object": object() if tls else None})
        self.heard = b""
        self.reads = True
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Keep it."""
        self.heard += data

    def close(self) -> None:
        """Note it."""
        self.closed = True

    def abort(self) -> None:
        """Note it."""
        self.closed = True

    def is_closing(self) -> bool:
        """Was it closed?"""
        return self.closed

    def pause_reading(self) -> None:
        """Note it."""
        self.reads = False

    def resume_reading(self) -> None:
        """Note it."""
        self.reads = True


class FreeSlots:
    """Slots without end.

    Attributes:
        released: What came back.
    """

    def __init__(self) -> None:
        self.released: list[int] = []

    def take(self) -> int | None:
        """Return always the same."""
        return 7

    def claim(self, slot: int, client_ip: str, cap: int) -> bool:
        """Return always true."""
        return True

    def release(self, slot: int) -> None:
        """Note it."""
        self.released.append(slot)


@dataclass
class Scene:
    """A greeted client, and everything around it."""

    broker: ManualBroker = field(default_factory=ManualBroker)
    slots: FreeSlots = field(default_factory=FreeSlots)
    client: Client = field(default_factory=Client)
    state: State = field(default_factory=State)
    memory_bytes: int = 2**30
    lines: Lines = field(init=False)
    service: ReceptionService = field(init=False)
    connection: SmtpConnection = field(init=False)

    def open(self, port_policy: PortPolicy | None = None) -> Scene:
        """Connect the client."""
        self.prepare()
        return self.connect(port_policy)

    def prepare(self) -> Scene:
        """Set up the service."""
        events, self.lines = event_log()
        given = facilities(self.broker, self.slots, events, state=self.state, memory_bytes=self.memory_bytes)
        options = IntakeOptions(inbox="inbox", server_id="test", broker_max_bytes=None)
        self.service = ReceptionService(options, given, slot_wait_s=0)
        return self

    def connect(
        self,
        port_policy: PortPolicy | None = None,
        header: ProxyHeader | None = None,
        *,
        spoke_early: bool = False,
        tls: bool = False,
    ) -> Scene:
        """Connect a client, the first one or another."""
        self.client = Client(tls=tls)
        chosen = port_policy or policy(smtp_range="127.0.0.0/8", smtp_hostname="relay.test")
        self.connection = SmtpConnection(self.service, chosen, 7, "s-1", header, spoke_early=spoke_early)
        self.connection.connection_made(self.client)
        return self

    async def until_published(self, count: int) -> None:
        """Let the loop run until *count* publishes have begun, or nothing more happens."""
        for _ in range(20):
            await asyncio.sleep(0)
            if len(self.broker.waiting) >= count:
                return

    def closed_lines(self) -> list[dict[str, Any]]:
        """Return the lines that close the session in the log."""
        return [record for record in self.lines.records if record["event"] == "session.closed"]
