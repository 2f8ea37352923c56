"""What reception needs from others. Adapters fit these; ``mtaq.assembly`` hands them in."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from typing import Any, Protocol

from mtaq.mailauth.origin import Origin
from mtaq.mailauth.spam import SpamResult
from mtaq.model.address import Address
from mtaq.model.decision import Decision
from mtaq.model.dns import Ask
from mtaq.model.login import Verdict
from mtaq.model.message import TlsFacts
from mtaq.model.parcel import BrokerState, Parcel
from mtaq.smtp.scram import ScramKeys


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

    def claim(self, slot: int, client_ip: str, cap: int) -> bool:
        """Note whose *slot* it is; has that client at most *cap* of them now, over all processes?"""

    def release(self, slot: int) -> None:
        """Give a slot back."""


class Hostnames(Protocol):
    """Our names."""

    def configured_for(self, local_ip: str) -> str | None:
        """Return the name that operators gave this local IP, or ``None``."""

    def found_for(self, local_ip: str) -> str:
        """Return the name found without configuration: reverse DNS of the local IP, else the system's."""


class LocalAddresses(Protocol):
    """Which addresses are ours."""

    def is_local(self, address: Address) -> bool:
        """Is mail to *address* delivered here?"""


class RuntimeState(LocalAddresses, Protocol):
    """What operators change while we run (``mtaq.state``)."""

    def block_for(self, ip: str) -> object | None:
        """Return the entry of the blocked list that covers this client, or ``None``."""

    async def add_block(self, network: str, *, reason: str, duration_s: float, automatic: bool = True) -> None:
        """Have a client, known by its address, refused for a while, by every process of every instance."""


class Counts(Protocol):
    """Events in a window of time, counted across the processes of an instance (``mtaq.net.counters``)."""

    def take(self, key: bytes, *, limit: int, now: float) -> float:
        """Count one more unless the window then had more than *limit*; return 0, or the seconds until there is room."""

    def add(self, key: bytes, *, now: float) -> int:
        """Count one more; return how many the window has."""

    def count(self, key: bytes, *, now: float) -> int:
        """Return how many the window has."""


class Logins(Protocol):
    """Who may log in on a port (``mtaq.smtpauth``)."""

    @property
    def knows_passwords(self) -> bool:
        """Can SCRAM be offered?"""

    async def check(self, user: str, password: str, *, client_ip: str) -> Verdict:
        """Ask the back ends; never raises."""

    async def scram_keys(self, user: str) -> ScramKeys | None:
        """Return what is kept for *user*, or ``None``."""


class Hook(Protocol):
    """Decisions by the operator's own code; none of the methods raises."""

    async def sender(self, session: dict[str, Any]) -> Decision:
        """Judge a reverse-path."""

    async def recipient(self, session: dict[str, Any]) -> Decision:
        """Judge a forward-path."""

    async def message(self, message: dict[str, Any]) -> Decision:
        """Judge a whole message."""


class Pipeline(Protocol):
    """Steps that may change a message; does not raise."""

    async def run(self, message: dict[str, Any]) -> Decision:
        """Run all steps on the message."""


class Inquirer(Protocol):
    """DNS, as far as checks ask it (``mtaq.dns.resolver``)."""

    def inquiry(self, *, timeout_s: float) -> Ask:
        """Return who answers the questions of one check; what is not answered in *timeout_s* from now failed."""


class SpamFilter(Protocol):
    """A spam filter (``mtaq.spam``)."""

    async def judge(self, content: bytes, origin: Origin) -> SpamResult:
        """Return what it says of *content*; never raises."""


class MailHosts(Protocol):
    """DNS, as far as reception asks it (``mtaq.dns.resolver``)."""

    async def mail_hosts(self, domain: str) -> Sequence[object]:
        """Return who takes mail for *domain*; raises ``NoSuchDomain`` and ``ResolverTimeout``."""


class Tls(Protocol):
    """TLS on a port (``mtaq.net.certificates``)."""

    @property
    def context(self) -> ssl.SSLContext:
        """The context for the next handshake."""

    def facts(self, session: ssl.SSLObject) -> TlsFacts:
        """Return what the JSON says of an established session."""

    def peer_user(self, session: ssl.SSLObject) -> str | None:
        """Return the name that the client's certificate logs in as, or ``None``."""
