"""What delivery needs from others. Adapters fit these; ``mtaq.assembly`` hands them in."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Protocol

from mtaq.model.address import Address
from mtaq.model.control import (
    DailyCap,
    DkimKey,
    DnsOverride,
    FloodPattern,
    ForcedError,
    Limits,
    LimitsInForce,
    Pause,
    Pool,
    ResponsePattern,
    Rewritten,
    Scope,
    Suppression,
    TlsLevel,
)
from mtaq.model.parcel import BrokerState, Consumed, Parcel


@dataclass(frozen=True, slots=True)
class MailHost:
    """One MX host (RFC 5321 §5.1).

    Attributes:
        preference: Lower is tried first; hosts of equal preference are shuffled.
        name: Its domain, lower case A-labels, or an IP address where the operator or an address literal named one.
        port: Where the operator named one.
    """

    preference: int
    name: str
    port: int | None = None


class Resolver(Protocol):
    """DNS as routing sees it. Answers are cached; equal questions in flight are asked once."""

    async def mail_hosts(self, domain: str) -> Sequence[MailHost]:
        """
        Return the MX hosts of *domain* (A-labels), or the domain itself where it has addresses and no MX.

        Raises:
            NoSuchDomain: It does not exist, has no mail host, or says that it takes no mail (null MX, RFC 7505; then
                ``.null_mx`` is true).
            ResolverTimeout: No answer; try again later.
        """

    async def addresses(self, host: str) -> Sequence[str]:
        """
        Return the IP addresses of *host*, IPv6 first; an IP address returns itself.

        Raises:
            NoSuchDomain: It has none.
            ResolverTimeout: No answer.
        """


class Stream(Protocol):
    """One TCP connection to a peer."""

    @property
    def local_ip(self) -> str:
        """Our address."""

    @property
    def remote_ip(self) -> str:
        """The peer's address."""

    @property
    def tls(self) -> ssl.SSLObject | None:
        """The TLS session, or ``None`` in clear."""

    async def read(self, until: float | None = None) -> bytes:
        """Return what arrived next, at most 64 KB; empty at the end of the stream. One reader at a time.

        Args:
            until: The loop's time at which to give up.

        Raises:
            TimeoutError: Nothing arrived until then.
            OSError: The connection broke.
        """

    def arrival(self) -> asyncio.Future[None]:
        """Return what is done as soon as ``read`` would not wait, or never."""

    def write(self, data: bytes) -> None:
        """Queue *data* for sending."""

    async def drain(self) -> None:
        """Wait until most of what was written has been sent.

        Raises:
            OSError: The connection broke.
        """

    async def start_tls(self, context: ssl.SSLContext, server_name: str) -> None:
        """Shake hands as a client. Whatever arrived in clear and was not read is an error (RFC 3207 §4.2).

        Raises:
            OSError: The handshake failed (``ssl.SSLError`` is one); the connection is of no more use.
        """

    def abort(self) -> None:
        """Close now, without waiting. Never fails; may be called twice."""


class Connect(Protocol):
    """Opens a connection from a source address."""

    async def __call__(self, address: str, port: int, *, source: str | None) -> Stream:
        """
        Connect to *address* (an IP address), from *source* or from where the kernel chooses.

        The caller bounds the time.

        Raises:
            SourceUnusable: *source* cannot be bound here.
            OSError: Refused, unreachable, reset.
        """


class SourceUnusable(OSError):
    """A source address is not one of this host's."""


class Queues(Protocol):
    """The broker, as far as delivery uses it (``mtaq.broker.port.Broker``)."""

    async def publish(self, queue: str, parcel: Parcel, *, timeout_s: float, delay_s: float = 0.0) -> None:
        """Store *parcel* in *queue*; see the broker port."""

    def consume(self, queue: str, *, prefetch: int, on_message: Callable[[Consumed], None]) -> Consumer:
        """Hand out messages; see the broker port."""


class Consumer(Protocol):
    """One running consumption."""

    async def stop(self) -> None:
        """Take nothing more."""


class JournalEntry(Protocol):
    """What the journal knows of one queue message."""

    @property
    def data(self) -> Mapping[str, Any]:
        """What was recorded."""

    @property
    def settled(self) -> bool:
        """Are its follow-ups confirmed?"""


class Journal(Protocol):
    """What was already done with a queue message; survives ``kill -9`` and power loss, on this host."""

    @property
    def state(self) -> BrokerState:
        """``DOWN`` while nothing can be recorded; it recovers by itself."""

    async def record(self, key: bytes, entry: Mapping[str, Any], *, settled: bool = False) -> None:
        """Store *entry* durably before returning; *settled* when nothing follows from it."""

    def settle(self, key: bytes) -> None:
        """Note that everything that follows from the entry is confirmed. Does not wait."""

    async def look_up(self, key: bytes) -> JournalEntry | None:
        """Return what any process of this host recorded under *key*."""


class Declare(Protocol):
    """Creates a queue that a message names and that does not exist yet (``rabbitmq-declare``)."""

    async def __call__(self, queue: str) -> None:
        """
        Create *queue*, or do nothing when it exists.

        Raises:
            BrokerError: It could not be created.
        """


class Claims(Protocol):
    """One attempt is made by one process at a time, on this host; a dead process's claims are free at once."""

    def take(self, key: bytes) -> bool:
        """Claim *key*; ``False`` when somebody living holds it."""

    def release(self, key: bytes) -> None:
        """Give it back."""

    def expect_twin(self, key: bytes) -> None:
        """Remember that there may be another copy of this message that does not say so."""

    def expects_twin(self, key: bytes) -> bool:
        """Did somebody remember that?"""

    def note_sending(self, key: bytes) -> None:
        """Note that content is going out whose outcome is not in the journal yet."""

    def note_sent(self, key: bytes) -> None:
        """It is in the journal now."""

    def was_sending(self, key: bytes) -> bool:
        """Was it going out when somebody died? Not known after a loss of power."""


class IdempotencyKeys(Protocol):
    """Who came first with a key; for all processes of this host, and also after a crash."""

    async def claim(self, key: bytes, owner: str, *, ttl_s: int) -> str:
        """
        Claim *key* for *owner* for so long, durably, unless it is claimed; return whose it is.

        Raises:
            BrokerUnavailable: It is not known.
        """


class Slots(Protocol):
    """A cap on connections, exact across the processes of an instance."""

    def take(self) -> int | None:
        """Return a free slot, now ours, or ``None`` when there is none."""

    def release(self, slot: int) -> None:
        """Give a slot back."""

    def claim_for(self, slot: int, counter: bytes, cap: int) -> bool:
        """Note that *slot* is for *counter*, unless that has *cap* already; may it be?"""


class Rates(Protocol):
    """Turns that all processes of an instance take together (``mtaq.limits.gcra``). *now* is the counters' clock."""

    def take(self, key: bytes, *, per_minute: float, burst: int = 1, now: float) -> float:
        """Take a turn now and return 0; or the seconds until there is one, and nothing was taken."""

    def look(self, key: bytes, *, now: float) -> float:
        """Return in how many seconds the line of *key* ends, or with a burst of 1 the next turn is."""

    def reserve(self, key: bytes, *, takes_s: float, not_before_s: float, within_s: float, now: float) -> float | None:
        """Take the next place in the line of *key*; return in how many seconds it is, ``None`` when none is in time."""


class Volumes(Protocol):
    """Bytes in the last minute, for all processes together."""

    def take(self, key: bytes, *, limit: int, count: int, now: float) -> float:
        """Count *count* if they fit and return 0; or the seconds until they will."""

    def look(self, key: bytes, *, limit: int, count: int, now: float) -> float:
        """Return what ``take`` would, and count nothing."""


class Tallies(Protocol):
    """How many there were of each kind, for all processes together."""

    def take(self, key: bytes, *, limit: int, now: float) -> bool:
        """Count one more, if there were fewer than *limit*."""

    def count(self, key: bytes) -> int:
        """Return how many there were."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Meters:
    """What the processes of an instance count together.

    Attributes:
        rates: Messages and connections that begin.
        lines: Places of what waits.
        volumes: Bytes that begin.
        tallies: Messages of a day.
        now: The clock of all of them, in seconds.
        processes: How many delivery processes share the connections to a site.
    """

    rates: Rates
    lines: Rates
    volumes: Volumes
    tallies: Tallies
    now: Callable[[], float]
    processes: int = 1


class Control(Protocol):
    """What operators change while delivery runs. Everything answers at once, by entries that have not ended.

    *source* is the source address, ``None`` while it is not known or the kernel chooses; *pools* are those it is in;
    *domain* is the forward-path's, *site* the route's name, ``None`` before there is a route: entries about what is
    not known do not hold.
    """

    def limits(self, *, source: str | None, pools: Sequence[str], domain: str, site: str | None) -> LimitsInForce:
        """Return what holds, each limit with the key that it is counted under."""

    def pause_for(
        self,
        *,
        source: str | None,
        pools: Sequence[str],
        domain: str,
        site: str | None,
        tags: Sequence[str],
        sender_domain: str,
    ) -> Pause | None:
        """Return the pause that ends last, or ``None``. *sender_domain* is empty for the null reverse-path."""

    def suppression_for(self, recipient: Address, *, sender_domain: str, tags: Sequence[str]) -> Suppression | None:
        """Return why *recipient* gets nothing, or ``None``."""

    def forced_error_for(self, recipient: Address, *, sender_domain: str, tags: Sequence[str]) -> ForcedError | None:
        """Return what is answered in the place of a mail host, or ``None``."""

    def rewrite(self, envelope: str, recipient: str, *, tags: Sequence[str]) -> Rewritten | None:
        """
        Apply the rewrite rules to both paths as text; ``None`` when none applies.

        What comes back belongs to one attempt and is not stored: at the next one the rules see the message as it was.
        It is not validated.
        """

    def flood_pattern_for(
        self,
        *,
        code: int | None,
        status: str | None,
        text: str,
        source: str | None,
        pools: Sequence[str],
        domain: str,
        site: str | None,
    ) -> FloodPattern | None:
        """Return the first flood pattern that a reply, or a failure without one, matches; or ``None``."""

    def react_to_flood(self, pattern: FloodPattern, *, source: str | None, site: str) -> bool:
        """
        Pause or slow down what goes this way, as *pattern* says: here at once, everywhere within two seconds.

        Returns ``False`` when that was so already: the same reply again, as in every flood.
        """

    def response_for(
        self,
        *,
        code: int | None,
        status: str | None,
        text: str,
        state: str,
        source: str | None,
        pools: Sequence[str],
        domain: str,
        site: str | None,
        tags: Sequence[str],
    ) -> ResponsePattern | None:
        """Return the first response pattern that a reply, or a failure without one, matches; or ``None``."""

    def daily_cap(
        self, *, source: str | None, pools: Sequence[str], domain: str, site: str | None, today: date
    ) -> DailyCap | None:
        """Return how many messages may go on *today* (UTC), or ``None`` for any number."""

    def dkim_keys(self, domain: str) -> Sequence[DkimKey]:
        """Return the keys that sign for *domain* in ``From:``."""

    @property
    def has_dkim_keys(self) -> bool:
        """Is there any key, so that it is worth while to look whom a message is from?"""

    def pool(self, name: str) -> Pool | None:
        """Return a pool, or ``None`` when there is no such pool."""

    def pools_of(self, source: str | None) -> Sequence[str]:
        """Return the names of the pools that *source* is in."""

    def dns_override(self, domain: str) -> DnsOverride | None:
        """Return where mail for *domain* goes whatever DNS says, or ``None``."""

    def tls_level(self, *, domain: str, site: str | None) -> TlsLevel | None:
        """Return how connections there are encrypted, or ``None`` when no entry says so."""

    def add_pause(
        self,
        scope: Scope,
        *,
        duration_s: float,
        reason: str,
        tag: str | None = None,
        sender_domain: str | None = None,
    ) -> bool:
        """Add an automatic pause: here at once, everywhere within two seconds. ``False`` when there is one as long."""

    def add_limits(self, scope: Scope, limits: Limits, *, duration_s: float, reason: str) -> bool:
        """Add automatic limits, likewise. They can only lower what holds otherwise."""

    def on_change(self, callback: Callable[[frozenset[str]], None]) -> None:
        """
        Have *callback* called, in the event loop, after entries changed, with the kinds: ``throttles``, ``pauses``, ….

        An entry that ends by itself is no change.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """Where delivery stands among hosts.

    Attributes:
        is_own: Would a connection to this IP address end on this host?
        is_private: Is this IP address one that cannot be reached on the Internet?
        unverified: TLS without looking at the certificate.
        verified: TLS with a certificate that is valid for the host's name.
    """

    is_own: Callable[[str], bool]
    is_private: Callable[[str], bool]
    unverified: ssl.SSLContext
    verified: ssl.SSLContext


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryNames:
    """Our name, and the queues that delivery uses; ``None`` where the operator wants none.

    Attributes:
        ehlo_name: Gives our name for EHLO on a connection from this local IP (RFC 5321 §4.1.1.1).
        authserv_id: Our name in what ARC sets say (RFC 8601 §2.5); ``None`` for the one that took the message.
        outbox: Consumed; retries go back to it.
        dead: What cannot be understood.
        results: Every final result.
        retry: A copy of each transient result.
        dsn: Notices to senders.
        server_id: First part of the ids of notices.
    """

    ehlo_name: Callable[[str | None], str]
    outbox: str
    dead: str
    results: str | None = None
    success: str | None = None
    failure: str | None = None
    retry: str | None = None
    authserv_id: str | None = None
    dsn: str | None = None
    server_id: str = "mtaq"
