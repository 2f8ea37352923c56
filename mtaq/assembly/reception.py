"""One reception worker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mtaq.assembly.parts import (
    GRACE_S,
    Names,
    hear_of_changes,
    host_ips,
    resolver_for,
    slots_for,
    spam_filter_for,
    state_for,
    utc_now,
)
from mtaq.assembly.queues import Gate, broker_for, broker_max_bytes, connected
from mtaq.config import ReceiveOptions, Settings
from mtaq.config.logins import Login
from mtaq.hooks.loading import Hooks
from mtaq.limits.memory import MemoryBudget
from mtaq.model.parcel import BrokerState
from mtaq.net import streams
from mtaq.net.certificates import ServerTls, TlsOptions, tls_options
from mtaq.net.counters import CountTable, uptime_s
from mtaq.net.http import request
from mtaq.net.listeners import Listener
from mtaq.receive.checks import Checks
from mtaq.receive.clients import WINDOW_S as MISDEEDS_S
from mtaq.receive.domains import DomainCheck
from mtaq.receive.intake import IntakeOptions
from mtaq.receive.policy import PortPolicy
from mtaq.receive.service import Facilities, Port, ReceptionService
from mtaq.receive.spool import Spool
from mtaq.receive.spool_intake import SpoolIntake, spool_receive_options
from mtaq.smtpauth import Authenticator, Network, authenticator_for
from mtaq.spam.filter import SpamFilter
from mtaq.telemetry.events import EventLog


def own_names(settings: Settings) -> frozenset[str]:
    """Return the names that any port of this instance may write Authentication-Results under."""
    ports = (settings.reception, *settings.ports.values())
    return frozenset(name for port in ports for name in (port.smtp_hostname, port.smtp_authserv_id) if name)


class Reception:
    """One reception worker."""

    def __init__(
        self, settings: Settings, listeners: Sequence[Listener], events: EventLog, *, number: int, secret: bytes
    ) -> None:
        """Prepare worker *number* of its role; *secret* is what all of them share to disguise unknown users."""
        self._settings = settings
        self._listeners = listeners
        self._events = events
        self._secret = secret
        self._broker = broker_for(settings, f"receive {number}")
        self._gate = Gate(self._broker)
        self._state = state_for(settings, self._broker, events, for_delivery=False)
        self._names = Names(self._state)
        self._resolver = resolver_for(settings)
        self._slots = slots_for(settings, "in")
        folder = Path(settings.process.run_directory)
        self._rates = CountTable(folder / "rates", window_s=60)
        self._misdeeds = CountTable(folder / "misdeeds", window_s=MISDEEDS_S)
        self._hooks: Hooks | None = None
        self._checks: Checks | None = None
        self._spam_filters: dict[tuple[str, int] | str, SpamFilter] = {}
        self._tls: dict[TlsOptions, ServerTls] = {}
        self._logins: dict[tuple[Login, ...], Authenticator] = {}
        self._service: ReceptionService | None = None
        self._spool_intake: SpoolIntake | None = None
        self._spool: Spool | None = None
        self._naming: asyncio.Task[None] | None = None

    @property
    def broker_state(self) -> BrokerState:
        """How the broker is."""
        return self._gate.state

    async def start(self) -> None:
        """Accept connections; until the queues are ready they are told 421."""
        settings, queues = self._settings, self._settings.queues
        self._hooks = Hooks(request=request, events=self._events)
        self._checks = Checks(self._resolver, events=self._events)
        service = ReceptionService(
            IntakeOptions(
                inbox=queues.rabbitmq_inbox,
                local=queues.rabbitmq_local,
                reports=queues.rabbitmq_reports,
                refused=queues.rabbitmq_refused,
                server_id=settings.process.server_id,
                broker_max_bytes=broker_max_bytes(settings),
            ),
            Facilities(
                publisher=self._gate,
                slots=self._slots,
                state=self._state,
                rates=self._rates,
                counts=self._misdeeds,
                domains=DomainCheck(self._resolver),
                memory=MemoryBudget(settings.listen.smtp_memory // settings.process.smtp_threads),
                events=self._events,
                clock=utc_now,
                now=uptime_s,
            ),
            slot_wait_s=settings.listen.smtp_connections_wait,
        )
        if settings.reception.smtp_hostname is None:
            self._naming = asyncio.create_task(self._names.find(host_ips(), self._resolver))
        service.start([self._port(listener, settings) for listener in self._listeners])
        self._service = service
        self._watch_spool(service, settings)

    async def queues_ready(self) -> None:
        """
        Connect to the broker, read the runtime state, and take mail from then on.

        Raises:
            ConfigError: The database cannot be used.
        """
        await asyncio.gather(connected(self._broker, self._events), self._state.start())
        hear_of_changes(self._settings, self._broker, self._state)
        self._gate.opened = True

    def show(self, what: str) -> Sequence[Mapping[str, Any]]:
        """Return what this process has to say of *what* for ``mtaq show``."""
        return self._service.show(what) if self._service is not None else []

    def reload(self, settings: Settings) -> None:
        """
        Use what of *settings* can change while running, for new connections.

        Raises:
            ConfigError: A certificate or a hook cannot be loaded; nothing was changed.
        """
        assert self._service is not None
        ports = [self._port(listener, settings) for listener in self._listeners]
        if self._spool_intake is not None:
            self._spool_intake.policy = self._spool_policy(settings)
        self._settings = settings
        self._service.configure({port.number: port.policy for port in ports}, {p.number: p.tls for p in ports if p.tls})

    async def stop(self) -> None:
        """Finish what is under way, then go."""
        if self._naming is not None:
            self._naming.cancel()
        parts = [part for part in (self._spool, self._service) if part is not None]
        await asyncio.gather(*(part.stop(GRACE_S) for part in parts))
        if self._hooks is not None:
            await self._hooks.close()
        for authenticator in self._logins.values():
            await authenticator.close()
        await self._state.stop()
        await self._broker.close()
        for table in (self._slots, self._rates, self._misdeeds):
            table.close()

    def _port(self, listener: Listener, settings: Settings) -> Port:
        options = settings.receive(listener.port)
        tls = self._server_tls(tls_options(options))
        policy = self._policy(
            options, settings, port=listener.port, starttls=tls is not None and not listener.implicit_tls
        )
        return Port(
            sock=listener.sock, number=listener.port, policy=policy, tls=tls, implicit_tls=listener.implicit_tls
        )

    def _policy(self, options: ReceiveOptions, settings: Settings, *, port: int, starttls: bool) -> PortPolicy:
        hooks = self._hooks
        assert hooks is not None
        return PortPolicy(
            options,
            port=port,
            hostnames=self._names,
            broker_max_bytes=broker_max_bytes(self._settings),
            starttls=starttls,
            logins=self._authenticator(options.smtp_auth),
            hook=hooks.hook(options.smtp_hook, timeout_s=options.smtp_hook_timeout),
            pipeline=hooks.pipeline(options.smtp_pipeline, timeout_s=options.smtp_hook_timeout),
            checks=self._checks,
            spam=self._spam_filter(options) if "spam" in options.smtp_check else None,
            own_names=own_names(settings),
            scram_secret=self._secret,
        )

    def _watch_spool(self, service: ReceptionService, settings: Settings) -> None:
        """Take in the files of the spool directory, if there is one; they wait while the broker is away."""
        directory = settings.spool.spool_directory
        if directory is None:
            return
        self._spool_intake = SpoolIntake(service.intake, self._spool_policy(settings))
        self._spool = Spool(
            settings.spool,
            directory,
            take=self._spool_intake.take,
            is_ready=lambda: self._gate.state is BrokerState.UP,
            max_bytes=settings.reception.smtp_maxsize,
            strict=settings.reception.smtp_validate_address == "strict",
            events=self._events,
            clock=utc_now,
        )
        self._spool.start()

    def _spool_policy(self, settings: Settings) -> PortPolicy:
        options = spool_receive_options(settings.reception, settings.spool)
        return self._policy(options, settings, port=0, starttls=False)

    def _server_tls(self, options: TlsOptions | None) -> ServerTls | None:
        """Ports with the same files share them; a reload reads none that is in use already."""
        if options is not None and options not in self._tls:
            self._tls[options] = ServerTls(options, events=self._events)
        return None if options is None else self._tls[options]

    def _spam_filter(self, options: ReceiveOptions) -> SpamFilter:
        """Ports that ask the same filter share the bounds of how many ask it at once."""
        address = options.rspamd_address or (options.spamassassin_host, options.spamassassin_port)
        if address not in self._spam_filters:
            self._spam_filters[address] = spam_filter_for(
                options, lambda engine, reason: self._events.spam_filter_lost(engine=engine, reason=reason)
            )
        return self._spam_filters[address]

    def _authenticator(self, logins: tuple[Login, ...]) -> Authenticator | None:
        """Ports with the same logins share what is remembered of them."""
        if logins and logins not in self._logins:
            self._logins[logins] = authenticator_for(
                logins,
                network=Network(connect=streams.connected, exchange=streams.exchange, request=request),
                clock=time.monotonic,
                on_unavailable=lambda form, reason: self._events.login_back_end_lost(form=form, reason=reason),
                scram_secret=self._secret,
            )
        return self._logins[logins] if logins else None
