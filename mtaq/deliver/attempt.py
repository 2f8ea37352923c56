"""One attempt for one message: prepared, routed, given a source, carried; back comes how it ended.

Walks the stages in order; each of them decides for itself. A source address that cannot be used leads to the next
one, and only when none is left to ``bind``/``error``.
"""

from __future__ import annotations

import random
from dataclasses import replace

from mtaq.config import DeliverOptions, Security
from mtaq.deliver.dispatch import Dispatcher
from mtaq.deliver.egress import choose_sources
from mtaq.deliver.ending import Ending, HostFailure
from mtaq.deliver.intake import prepare
from mtaq.deliver.route import Route, Router
from mtaq.model.message import OutboxMessage
from mtaq.smtp.client_commands import Transaction
from mtaq.telemetry.events import EventLog


def demanded_security(message: OutboxMessage, route: Route, options: DeliverOptions) -> Security:
    """Return what *message* demands of a connection on *route*."""
    if message.requiretls:
        return "verified"  # RFC 8689 §4.2.1: TLS, with a certificate that proves the host
    security = route.security or message.security or options.delivery_security
    if route.login is not None and security in ("optional", "opportunistic"):
        return "required"  # RFC 4954 §4: no password in clear
    return security


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
        events: EventLog,
        rng: random.Random,
    ) -> None:
        self.options = options
        self._router = router
        self._dispatcher = dispatcher
        self._events = events
        self._rng = rng

    async def make(self, message: OutboxMessage, *, deadline: float) -> tuple[Ending, str]:
        """
        Try to deliver *message* once; return how it ended and the name of the site.

        Args:
            deadline: The loop's time at which it must have ended.

        Raises:
            BadMessage: The message cannot be understood.
            Stopped: Nothing was begun.
        """
        site = ""
        try:
            transaction = prepare(message, self.options)
            route = await self._router.route(transaction.forward_paths[0].domain, message.smarthost)
            site = route.site
            return await self._from_sources(message, transaction, route, deadline), site
        except HostFailure as failure:
            return failure.ending, site

    async def _from_sources(
        self, message: OutboxMessage, transaction: Transaction, route: Route, deadline: float
    ) -> Ending:
        sources = choose_sources(message, self.options.smtp_default_ips, self._rng)
        ending = await self._from_any(message, transaction, route, sources.wanted, deadline)
        if ending.state == "bind" and sources.fallback:
            self._events.delivery_fallback(
                message_id=message.message_id,
                forward_path=message.recipient,
                local_ip=sources.wanted[0],
                egress_source=sources.fallback[0],
                error=ending.description,
            )
            ending = await self._from_any(message, transaction, route, sources.fallback, deadline)
        if ending.state == "bind" and (sources.fallback or not message.ips):
            # The configuration is wrong, or an address is gone for a while: no reason to bounce everything.
            return replace(ending, final=False, status="4.3.5")
        return ending

    async def _from_any(
        self,
        message: OutboxMessage,
        transaction: Transaction,
        route: Route,
        sources: tuple[str | None, ...],
        deadline: float,
    ) -> Ending:
        """Try *sources* in turn while they cannot be used; a wrong address family is not ``bind``/``error``."""
        unusable: list[Ending] = []
        security = demanded_security(message, route, self.options)
        for source in sources:
            ending = await self._dispatcher.deliver(
                transaction, route, source=source, security=security, deadline=deadline
            )
            if not ending.next_source:
                return ending
            unusable.append(ending)
        return next((ending for ending in unusable if ending.state != "bind"), unusable[-1])
