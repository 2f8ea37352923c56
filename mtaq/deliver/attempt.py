"""One attempt for one message: rewritten, checked, routed, given a source, carried; back comes how it ended.

Walks the stages in order; each of them decides for itself. A source address that cannot be used, is paused or has had
its share of today leads to the next one; only when none can be bound it is ``bind``/``error``. What must wait leaves by
``NotYet`` before anything was begun.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, time, timedelta
from functools import partial
from typing import Any, get_args

from mtaq.config import DeliverOptions
from mtaq.deliver.category import greylisted_from
from mtaq.deliver.dispatch import Dispatcher, Reconsider
from mtaq.deliver.egress import Sources, choose_sources
from mtaq.deliver.ending import Ending, HostFailure
from mtaq.deliver.intake import paths_of, prepare
from mtaq.deliver.lookups import LookUps
from mtaq.deliver.orders import Orders, Way, blamed_on_rules
from mtaq.deliver.parking import NotYet, Parked
from mtaq.deliver.route import Route, Router
from mtaq.deliver.signing import Signing
from mtaq.deliver.tls_policy import Demand, TlsPolicies
from mtaq.model.address import Address
from mtaq.model.control import DemandedSecurity, TlsLevel
from mtaq.model.message import OutboxMessage
from mtaq.smtp.client_commands import Transaction
from mtaq.telemetry.events import EventLog

#: What does not fit into a day comes back during this part of the next one.
WARM_UP_SPREAD_S = 8 * 3600.0


def demanded_security(
    message: OutboxMessage, route: Route, options: DeliverOptions, entry: TlsLevel | None = None
) -> DemandedSecurity:
    """Return what *message* demands of a connection on *route*; *entry* is what operators say of that destination."""
    level = None if entry is None else entry.level
    security: DemandedSecurity = route.security or message.security or level or options.delivery_security
    if level is not None and route.security is not None and message.smarthost is None:
        security = _stronger(security, level)  # the smarthost has its own level, whoever the mail is for
    if route.login is not None:
        security = _stronger(security, "required")  # RFC 4954 §4: no password in clear
    if message.requiretls:
        security = _stronger(security, "verified")  # RFC 8689 §4.2.1: TLS, with a certificate that proves the host
    return security


def _stronger(one: DemandedSecurity, other: DemandedSecurity) -> DemandedSecurity:
    return max(one, other, key=get_args(DemandedSecurity).index)


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long an attempt may wait, and what its message remembers of having waited.

    Attributes:
        deadline: The loop's time at which the attempt must have ended.
        expires_at: When the message is given up.
        parked: ``None`` when it was not parked.
        on_content: Called before the first octet of its content goes out.
    """

    deadline: float
    expires_at: datetime
    parked: Parked | None = None
    on_content: Callable[[], None] | None = None


@dataclass(frozen=True, slots=True)
class Attempted:
    """How an attempt ended.

    Attributes:
        ending: As operators want it understood.
        site: Empty when it did not come so far.
        message: As it was rewritten for this attempt.
        changes: Properties of the message that are different from now on; ``None`` takes one out.
        delay_s: When it is tried again; ``None`` as usual.
    """

    ending: Ending
    site: str
    message: OutboxMessage
    changes: Mapping[str, Any] = field(default_factory=dict)
    delay_s: int | None = None


@dataclass(frozen=True, slots=True)
class _Trip:
    """What all sources of an attempt share."""

    message: OutboxMessage
    transaction: Transaction
    route: Route
    tls: Demand
    patience: Patience

    @property
    def domain(self) -> str:
        """Of the forward-path."""
        return self.transaction.forward_paths[0].domain


class Attempts:
    """Makes attempts.

    Attributes:
        options: May be replaced at any time.
    """

    def __init__(
        self,
        options: DeliverOptions,
        *,
        router: Router,
        dispatcher: Dispatcher,
        orders: Orders,
        signing: Signing,
        events: EventLog,
        clock: Callable[[], datetime],
        rng: random.Random,
        tls: TlsPolicies,
        look_ups: LookUps,
    ) -> None:
        self.options = options
        self._tls = tls
        self._look_ups = look_ups
        self._router = router
        self._dispatcher = dispatcher
        self._orders = orders
        self._signing = signing
        self._events = events
        self._clock = clock
        self._rng = rng

    async def make(self, message: OutboxMessage, patience: Patience) -> Attempted:
        """
        Try to deliver *message* once.

        Raises:
            BadMessage: The message cannot be understood.
            NotYet: Nothing was begun; it must wait elsewhere.
            Stopped: Nothing was begun.
        """
        while True:
            site = ""
            rewritten = message
            try:
                rewritten = self._orders.rewritten(message)
                sender, recipient = self._paths(rewritten, is_rewritten=rewritten is not message)
                refusal = self._orders.refusal(recipient, sender, rewritten)
                if refusal is not None:
                    return Attempted(refusal, site, rewritten)
                self._check_pause(Way(domain=recipient.domain), sender, rewritten)
                route = await self._routed(recipient.domain, rewritten, patience)
                site = route.site
                plain = replace(prepare(rewritten, sender, recipient), on_content=patience.on_content)
                transaction = await self._signing.plan(rewritten, plain)
                entry = self._orders.control.tls_level(domain=recipient.domain, site=site)
                security = demanded_security(rewritten, route, self.options, entry)
                demand = partial(self._tls.demand, transaction, route, security)
                tls = await self._look_ups.wait(recipient.domain, demand, patience.parked)
                return await self._carried(_Trip(rewritten, transaction, route, tls, patience))
            except HostFailure as failure:
                return Attempted(failure.ending, site, rewritten)
            except Reconsider:
                continue

    async def _routed(self, domain: str, message: OutboxMessage, patience: Patience) -> Route:
        route = partial(self._router.route, domain, message.smarthost)
        return await self._look_ups.wait(domain, route, patience.parked)

    def _paths(self, message: OutboxMessage, *, is_rewritten: bool) -> tuple[Address | None, Address]:
        try:
            return paths_of(message, self.options)
        except HostFailure as failure:
            if not is_rewritten:
                raise
            raise HostFailure(blamed_on_rules(failure.ending)) from failure

    def _check_pause(self, way: Way, sender: Address | None, message: OutboxMessage) -> None:
        paused = self._orders.pause(way, sender, message, self._clock())
        if paused is not None:
            raise paused

    async def _carried(self, trip: _Trip) -> Attempted:
        message, route = trip.message, trip.route
        sources = self._sources(trip)
        attempted = await self._from_any(trip, sources.wanted)
        ending = attempted.ending
        if ending.state == "bind" and sources.fallback:
            self._events.delivery_fallback(
                message_id=message.message_id,
                forward_path=message.recipient,
                local_ip=sources.wanted[0],
                egress_source=sources.fallback[0],
                error=ending.description,
            )
            attempted = await self._from_any(trip, sources.fallback)
            ending = attempted.ending
        if ending.state == "bind" and not sources.must:
            # The configuration is wrong, or an address is gone for a while: no reason to bounce everything.
            return Attempted(replace(ending, final=False, status="4.3.5"), route.site, message)
        return attempted

    def _sources(self, trip: _Trip) -> Sources:
        message, pool = trip.message, None
        if message.pool is not None and not message.ips:
            pool = self._orders.control.pool(message.pool)
            if pool is None:
                raise HostFailure(_no_pool(message.pool))
        sources = choose_sources(message, self.options.smtp_default_ips, self._rng, pool=pool)
        sources = sources.beginning_with(greylisted_from(message.properties.get("results") or ()))
        parked = trip.patience.parked
        return sources if parked is None else sources.beginning_with(parked.source)

    async def _from_any(self, trip: _Trip, sources: tuple[str | None, ...]) -> Attempted:
        """Try *sources* in turn while they cannot be used; a wrong address family is not ``bind``/``error``."""
        unusable: list[Attempted] = []
        waits: list[NotYet] = []
        for source in sources:
            try:
                attempted, other = await self._from_one(trip, source)
            except NotYet as why:
                if why.reason not in ("pause", "warm-up"):
                    raise
                waits.append(why)
                continue
            if not other:
                return attempted
            unusable.append(attempted)
        if waits:
            raise min(waits, key=lambda why: why.wait_s)
        return next((each for each in unusable if each.ending.state != "bind"), unusable[-1])

    async def _from_one(self, trip: _Trip, source: str | None) -> tuple[Attempted, bool]:
        """Try *source*; the second part tells whether another one may do better."""
        message, transaction, patience, control = trip.message, trip.transaction, trip.patience, self._orders.control
        way = Way(domain=trip.domain, site=trip.route.site, source=source)
        pools, now = control.pools_of(source), self._clock()
        self._check_pause(way, transaction.reverse_path, message)
        domain, site = way.domain, way.site
        today = now.astimezone(UTC).date()
        daily = control.daily_cap(source=source, pools=pools, domain=domain, site=site, today=today)
        parked = patience.parked
        try:
            ending = await self._dispatcher.deliver(
                transaction,
                trip.route,
                source=source,
                tls=trip.tls,
                deadline=patience.deadline,
                limits=control.limits(source=source, pools=pools, domain=domain, site=site),
                daily=daily,
                parked=parked,
                early_s=0.0 if parked is None else (parked.until - now).total_seconds(),
                patience_s=(patience.expires_at - now).total_seconds(),
            )
        except NotYet as why:
            if why.reason == "warm-up":
                why.wait_s = self._until_tomorrow_s(now)
            raise
        if trip.tls.reported and ending.peer is not None:
            self._tls.tell(trip.domain, ending.peer.sessions)
        if ending.next_source:
            return Attempted(ending, trip.route.site, message), True
        heard = self._orders.hear(ending, way, message)
        return Attempted(heard.ending, trip.route.site, message, heard.changes, heard.delay_s), heard.other_source

    def _until_tomorrow_s(self, now: datetime) -> float:
        today = now.astimezone(UTC).date()
        tomorrow = datetime.combine(today + timedelta(days=1), time(), UTC)
        return (tomorrow - now).total_seconds() + self._rng.uniform(0.0, WARM_UP_SPREAD_S)


def _no_pool(name: str) -> Ending:
    text = f"there is no pool of source addresses called {name}"
    return Ending(state="bind", result="error", code=451, status="4.3.5", description=text)
