"""What delivery knows of TLS beside connections: policies of domains, and reports to their owners."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

from mtaq.assembly.parts import utc_now
from mtaq.config import Settings
from mtaq.deliver.mta_sts_policies import StsPolicies
from mtaq.deliver.mta_sts_store import PolicyStore
from mtaq.deliver.ports import Queues
from mtaq.deliver.tls_policy import TlsPolicies
from mtaq.deliver.tls_reports import FLUSH_S, Destination, TlsReports
from mtaq.deliver.tls_session import ResultType
from mtaq.deliver.tls_tally import TlsTally
from mtaq.dns.resolver import CachingResolver
from mtaq.net.addresses import is_private
from mtaq.net.policy_fetch import PolicyFetcher
from mtaq.net.tls import client_context
from mtaq.reports.tlsrpt_compose import Submitter
from mtaq.telemetry.events import EventLog

#: How often policies are looked through for those that end soon.
KEEP_FRESH_S = 3600.0


class TlsParts:
    """The policies and reports of one delivery worker.

    Args:
        hostname: Our name, where the configuration does not say who reports.
        number: Of the worker; the first one does what one process must do.

    Attributes:
        policies: For the service.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        resolver: CachingResolver,
        queues: Queues,
        events: EventLog,
        hostname: str,
        number: int,
    ) -> None:
        self._settings = settings
        self._events = events
        self._hostname = hostname
        self._is_first = number == 1
        self._tasks: list[asyncio.Task[None]] = []
        self._reports = self._reports_for(resolver, queues, number)
        self._sts = self._sts_for(resolver)
        self.policies = TlsPolicies(
            settings.deliver.delivery_tls_policies,
            names=resolver,
            trusts_dnssec=settings.dns.dns_trust_ad,
            sts=self._sts,
            tell=self._reports.tally.count if self._reports is not None else None,
            clock=utc_now,
        )

    def _sts_for(self, resolver: CachingResolver) -> StsPolicies:
        context = client_context(verified=True)
        context.hostname_checks_common_name = False  # RFC 8461 §3.3
        return StsPolicies(
            ask=resolver.ask,
            fetch=PolicyFetcher(addresses=resolver.addresses, is_allowed=self._is_allowed, context=context),
            store=PolicyStore(Path(self._settings.process.data_directory) / "mta-sts"),
            clock=utc_now,
            events=self._events,
            tell=self._tell_policy,
        )

    def _reports_for(self, resolver: CachingResolver, queues: Queues, number: int) -> TlsReports | None:
        queue = self._settings.queues.rabbitmq_tls_reports
        if queue is None:
            return None
        folder = Path(self._settings.process.data_directory) / "tls-reports"
        return TlsReports(
            folder,
            TlsTally(folder, str(number), ask=resolver.ask, clock=utc_now),
            self._destination(queue),
            queues=queues,
            ask=resolver.ask,
            events=self._events,
            clock=utc_now,
            rng=random.SystemRandom(),
        )

    def _destination(self, queue: str) -> Destination:
        settings = self._settings
        contact = settings.deliver.tls_report_from or f"postmaster@{self._hostname}"
        return Destination(
            queue=queue,
            sends=queue == settings.queues.rabbitmq_outbox,
            submitter=Submitter(name=self._hostname, contact=contact),
            server_id=settings.process.server_id,
        )

    def _is_allowed(self, ip: str) -> bool:
        return self._settings.deliver.delivery_allow_private or not is_private(ip)

    def _tell_policy(self, domain: str, kind: ResultType, reason: str) -> None:
        if self._reports is not None:
            self._reports.tally.count_policy(domain, kind, reason)

    async def start(self) -> None:
        """Begin what is done beside mail; what was counted today is read first."""
        if self._reports is not None:
            await self._reports.tally.load()
        if self._reports is not None:
            self._tasks.append(asyncio.create_task(self._repeat(self._reports.work, FLUSH_S)))
        if self._is_first:
            self._tasks.append(asyncio.create_task(self._repeat(self._keep_fresh, KEEP_FRESH_S)))

    async def _repeat(self, work: Callable[[], Awaitable[None]], every_s: float) -> None:
        while True:
            await asyncio.sleep(every_s)
            try:
                await work()
            except Exception as error:  # the top of a task: mail goes on, and so does the next time
                self._events.bug(error, role="deliver")

    async def _keep_fresh(self) -> None:
        if "mta-sts" in self.policies.policies:
            await self._sts.keep_fresh()

    def reload(self, settings: Settings) -> None:
        """Use what of *settings* can change while running."""
        self._settings = settings
        if self._reports is not None:
            self._reports.where = self._destination(self._reports.where.queue)

    async def stop(self) -> None:
        """Write down what was counted, and go."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._sts.stop()
        if self._reports is not None:
            await self._reports.stop()
