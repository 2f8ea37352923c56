"""One delivery worker."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mtaq.assembly.parts import GRACE_S, Names, hear_of_changes, host_ips, resolver_for, slots_for, state_for, utc_now
from mtaq.assembly.queues import SETTLE_S, broker_for, connected, is_embedded
from mtaq.assembly.sweeping import AutomaticSweeps
from mtaq.assembly.tls import TlsParts
from mtaq.broker.claims import Claims
from mtaq.broker.idempotency import IdempotencyKeys
from mtaq.broker.journal import Journal
from mtaq.config import Settings
from mtaq.deliver.gate import MINUTE_S
from mtaq.deliver.orders import Orders
from mtaq.deliver.ports import DeliveryNames, Meters, Surroundings
from mtaq.deliver.recall import Recall
from mtaq.deliver.service import DeliveryService
from mtaq.model.parcel import BrokerState, QueueSpec
from mtaq.net.addresses import is_own, is_private, own_addresses
from mtaq.net.connect import connect
from mtaq.net.counters import CountTable, RateTable, TallyTable, uptime_s
from mtaq.net.tls import client_context
from mtaq.telemetry.events import EventLog

#: How long the keys of a chain of seals are asked for, where reception did not judge it.
CHAIN_TIMEOUT_S = 20.0
#: How long RabbitMQ may not know what is done with: who is handed it again finds it in the journal.
SETTLE_WITHIN_S = 0.02


class _Tables:
    """What the delivery processes of the instance count together, in its run directory.

    Attributes:
        meters: For the service.
    """

    def __init__(self, folder: Path, *, processes: int) -> None:
        self._rates = RateTable(folder / "delivery-rates")
        self._lines = RateTable(folder / "delivery-lines")
        self._volumes = CountTable(folder / "delivery-volumes", window_s=MINUTE_S)
        self._tallies = TallyTable(folder / "delivery-days")
        self.meters = Meters(
            rates=self._rates,
            lines=self._lines,
            volumes=self._volumes,
            tallies=self._tallies,
            now=uptime_s,
            processes=processes,
        )

    def close(self) -> None:
        """Close the files; what they hold stays."""
        for table in (self._rates, self._lines, self._volumes, self._tallies):
            table.close()


class Delivery:
    """One delivery worker."""

    def __init__(self, settings: Settings, events: EventLog, *, number: int) -> None:
        self._settings = settings
        self._events = events
        self._broker = broker_for(settings, f"deliver {number}", settle_within_s=SETTLE_WITHIN_S)
        self._state = state_for(settings, self._broker, events, for_delivery=True)
        self._names = Names(self._state)
        folder = Path(settings.process.data_directory) / "journal"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._journal = Journal(folder, on_state=self._tell_journal)
        self._claims = Claims(folder / "claims")
        self._keys = IdempotencyKeys(folder.with_name("idempotency"))
        self._slots = slots_for(settings, "out")
        self._meters = _Tables(Path(settings.process.run_directory), processes=settings.process.smtp_threads)
        self._service: DeliveryService | None = None
        self._number = number
        self._tls: TlsParts | None = None
        self._sweeps: AutomaticSweeps | None = None

    @property
    def broker_state(self) -> BrokerState:
        """How the broker is."""
        return self._broker.state if self._service is not None else BrokerState.DOWN

    async def start(self) -> None:
        """Open what belongs to this host."""
        await self._journal.start()
        await self._keys.start()

    async def queues_ready(self) -> None:
        """
        Connect to the broker, read the runtime state, and begin to deliver.

        Raises:
            ConfigError: The database cannot be used.
        """
        await asyncio.gather(connected(self._broker, self._events), self._state.start())
        hear_of_changes(self._settings, self._broker, self._state)
        settings, resolver = self._settings, resolver_for(self._settings)
        if settings.reception.smtp_hostname is None:
            await self._names.find([*host_ips(), *settings.deliver.smtp_default_ips], resolver)
        queues = settings.queues
        tls = TlsParts(
            settings,
            resolver=resolver,
            queues=self._broker,
            events=self._events,
            hostname=self._ehlo_name(None),
            number=self._number,
        )
        service = DeliveryService(
            settings.deliver,
            DeliveryNames(
                ehlo_name=self._ehlo_name,
                outbox=queues.rabbitmq_outbox,
                dead=queues.rabbitmq_dead,
                results=queues.rabbitmq_results,
                success=queues.rabbitmq_success,
                failure=queues.rabbitmq_failure,
                retry=queues.rabbitmq_retry,
                authserv_id=settings.reception.smtp_authserv_id or settings.reception.smtp_hostname,
                dsn=queues.rabbitmq_dsn,
                server_id=settings.process.server_id,
            ),
            queues=self._broker,
            resolver=resolver,
            connect=connect,
            journal=self._journal,
            claims=self._claims,
            slots=self._slots,
            meters=self._meters.meters,
            control=self._state.control,
            events=self._events,
            clock=utc_now,
            rng=random.SystemRandom(),
            prefetch=queues.rabbitmq_qos,
            surroundings=Surroundings(
                is_own=partial(is_own, networks=own_addresses()),
                is_private=is_private,
                unverified=client_context(verified=False),
                verified=client_context(verified=True),
            ),
            tls=tls.policies,
            declare=self._declare if queues.rabbitmq_declare else None,
            inquire=partial(resolver.inquiry, timeout_s=CHAIN_TIMEOUT_S),
            keys=self._keys,
        )
        await tls.start()
        service.start()
        self._service, self._tls = service, tls
        self._sweeps = self._automatic_sweeps()
        self._sweeps.start()

    def show(self, what: str) -> Sequence[Mapping[str, Any]]:
        """Return what this process has to say of *what* for ``mtaq show``."""
        return self._service.show(what) if self._service is not None else []

    def reload(self, settings: Settings) -> None:
        """Use what of *settings* can change while running, for new attempts."""
        self._settings = settings
        if self._service is not None:
            self._service.reload(settings.deliver)
        if self._tls is not None:
            self._tls.reload(settings)

    async def stop(self) -> None:
        """Finish the attempts under way, give the rest back, then go."""
        if self._sweeps is not None:
            await self._sweeps.stop()
        if self._service is not None:
            await self._service.stop(GRACE_S)
        if self._tls is not None:
            await self._tls.stop()
        await self._state.stop()
        await self._broker.close()
        await self._journal.close()
        await self._keys.close()
        self._claims.close()
        self._slots.close()
        self._meters.close()

    def _automatic_sweeps(self) -> AutomaticSweeps:
        control = self._state.control
        recall = Recall(
            self._settings.deliver,
            control=control,
            orders=Orders(control, events=self._events, rng=random.Random(), on_flood=lambda: None),  # noqa: S311 - spreads waits
            meters=self._meters.meters,
            clock=utc_now,
        )
        sweeps = AutomaticSweeps(
            recall,
            broker=self._broker,
            outbox=self._settings.queues.rabbitmq_outbox,
            run_directory=Path(self._settings.process.run_directory),
            events=self._events,
            clock=utc_now,
        )
        control.on_change(sweeps.changed)
        return sweeps

    def _tell_journal(self, state: BrokerState, reason: str) -> None:
        if state is BrokerState.UP:
            self._events.journal_restored()
        else:
            self._events.journal_lost(reason=reason)

    async def _declare(self, queue: str) -> None:
        """Create a queue that a message names."""
        created = await self._broker.declare(
            [QueueSpec(name=queue, dead_letter_to=self._settings.queues.rabbitmq_dead)]
        )
        if created and not is_embedded(self._settings):
            await asyncio.sleep(SETTLE_S)

    def _ehlo_name(self, source: str | None) -> str:
        configured = source and self._names.configured_for(source)
        return configured or self._settings.reception.smtp_hostname or self._names.found_for(source or "")
