"""Builds everything from the settings, and starts and stops it in order.

The only place that knows every room. A worker is either a reception or a delivery; both need the queues, which the
supervisor has declared before they are told so.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from mtaq.broker import BrokerOptions, open_broker
from mtaq.broker.address import EmbeddedAddress, parse_addresses
from mtaq.broker.claims import Claims
from mtaq.broker.journal import Journal
from mtaq.broker.port import Broker
from mtaq.config import ReceiveOptions, Settings
from mtaq.config.logins import Login
from mtaq.deliver.ports import DeliveryNames, Surroundings
from mtaq.deliver.service import DeliveryService
from mtaq.dns.resolver import CachingResolver, ResolverOptions
from mtaq.hooks.loading import Hooks
from mtaq.limits.memory import MemoryBudget
from mtaq.model.errors import BrokerUnavailable, ResolverError
from mtaq.model.parcel import BrokerState, Parcel, QueueSpec
from mtaq.net import streams
from mtaq.net.addresses import is_own, is_private, own_addresses
from mtaq.net.certificates import ServerTls, TlsOptions, tls_options
from mtaq.net.connect import connect
from mtaq.net.counters import CountTable, uptime_s
from mtaq.net.http import request
from mtaq.net.listeners import Listener
from mtaq.net.slots import Side, Slots
from mtaq.net.tls import client_context
from mtaq.receive.clients import WINDOW_S as MISDEEDS_S
from mtaq.receive.domains import DomainCheck
from mtaq.receive.intake import IntakeOptions
from mtaq.receive.policy import PortPolicy
from mtaq.receive.service import Facilities, Port, ReceptionService
from mtaq.receive.spool import Spool
from mtaq.receive.spool_intake import SpoolIntake, spool_receive_options
from mtaq.smtpauth import Authenticator, Network, authenticator_for
from mtaq.state.state import State, open_state
from mtaq.telemetry.events import EventLog

#: Least and longest wait between attempts to reach the broker.
CONNECT_FIRST_S = 0.5
CONNECT_LAST_S = 5.0

#: A node killed within a second of a quorum queue's declaration comes back with that queue empty.
SETTLE_S = 3.0

#: Longest wait until the broker has told others of a change; they look by themselves as well.
ANNOUNCE_S = 5.0

#: Longest time a transaction or an attempt under way is waited for when stopping.
GRACE_S = 30.0


def utc_now() -> datetime:
    """The clock of the services."""
    return datetime.now(UTC)


def is_embedded(settings: Settings) -> bool:
    """Is the queue the built-in one?"""
    return isinstance(parse_addresses(",".join(settings.queues.rabbitmq_address)), EmbeddedAddress)


def broker_for(settings: Settings, name: str) -> Broker:
    """Return the broker of *settings*, not yet connected; *name* is what its own console calls us."""
    queues = settings.queues
    return open_broker(
        BrokerOptions(
            addresses=parse_addresses(",".join(queues.rabbitmq_address)),
            verify=queues.rabbitmq_verify,
            exchange=queues.rabbitmq_exchange or "",
            declare=queues.rabbitmq_declare,
            type=queues.rabbitmq_type,
            durable=queues.rabbitmq_durable,
            persistent=queues.rabbitmq_persistent,
            max_priority=queues.rabbitmq_maxpriority,
            encoding=queues.rabbitmq_encoding,
            throttle=queues.rabbitmq_throttle,
            max_size_bytes=broker_max_bytes(settings) or 2**30,
            heartbeat_s=queues.rabbitmq_heartbeat,
            name=f"mtaq {name} on {settings.process.server_id}",
        )
    )


def broker_max_bytes(settings: Settings) -> int | None:
    """Return the largest JSON the queue takes; the embedded one has no limit of its own."""
    return None if is_embedded(settings) else settings.queues.rabbitmq_maxsize


def topology(settings: Settings) -> list[QueueSpec]:
    """Return the queues that must exist, each once."""
    queues = settings.queues
    dead = queues.rabbitmq_dead
    specs = {dead: QueueSpec(name=dead)}
    specs[queues.rabbitmq_outbox] = QueueSpec(name=queues.rabbitmq_outbox, ladder=True, dead_letter_to=dead)
    for name in (
        queues.rabbitmq_inbox,
        queues.rabbitmq_local,
        queues.rabbitmq_refused,
        *archive_queues(settings),
        queues.rabbitmq_results,
        queues.rabbitmq_success,
        queues.rabbitmq_failure,
        queues.rabbitmq_retry,
    ):
        if name:
            specs.setdefault(name, QueueSpec(name=name, dead_letter_to=dead))
    return list(specs.values())


def archive_queues(settings: Settings) -> list[str]:
    """Return the queues that some port's ``smtp-archive`` names."""
    archives = [options.smtp_archive for options in (settings.reception, *settings.ports.values())]
    return [archive.queue for archive in archives if archive is not None and archive.queue is not None]


async def prepare_queues(settings: Settings, events: EventLog) -> None:
    """
    Declare and verify the topology, waiting for the broker as long as it takes.

    Raises:
        TopologyMismatch: A queue exists with other arguments.
    """
    while True:
        broker = broker_for(settings, "topology")
        try:
            await connected(broker, events)
            created = await broker.declare(topology(settings))
            break
        except BrokerUnavailable as error:
            events.broker_lost(reason=str(error))
            await asyncio.sleep(CONNECT_FIRST_S)
        finally:
            await broker.close()
    if created and not is_embedded(settings):
        await asyncio.sleep(SETTLE_S)


async def connected(broker: Broker, events: EventLog) -> None:
    """Start *broker*, again and again until it answers."""
    wait_s, told = CONNECT_FIRST_S, False
    while True:
        try:
            await broker.start()
            return
        except BrokerUnavailable as error:
            if not told:
                events.broker_lost(reason=str(error))
                told = True
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, CONNECT_LAST_S)


class Gate:
    """The broker as reception sees it: down until the queues are declared and the connection stands."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self.opened = False

    @property
    def state(self) -> BrokerState:
        """How the broker is."""
        return self._broker.state if self.opened else BrokerState.DOWN

    async def publish(self, queue: str, parcel: Parcel, *, timeout_s: float) -> None:
        """Publish, once open."""
        if not self.opened:
            raise BrokerUnavailable("the queues are not ready yet")
        await self._broker.publish(queue, parcel, timeout_s=timeout_s)


class Names:
    """Our names: those that operators gave to local IPs; found by reverse DNS at start, else the system's."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._system = socket.getfqdn()
        self._found: dict[str, str] = {}

    async def find(self, ips: Sequence[str], resolver: CachingResolver) -> None:
        """Ask reverse DNS for each of *ips*; what has no name keeps the system's."""

        async def find_one(ip: str) -> None:
            with contextlib.suppress(ResolverError):
                name = await resolver.reverse(ip)
                if name:
                    self._found[ip] = name

        await asyncio.gather(*(find_one(ip) for ip in ips))

    def configured_for(self, local_ip: str) -> str | None:
        """Return the name that operators gave this local IP, or ``None``."""
        return self._state.ehlo_name(local_ip)

    def found_for(self, local_ip: str) -> str:
        """Return the reverse name of *local_ip*, or the system's."""
        return self._found.get(local_ip, self._system)


def resolver_for(settings: Settings) -> CachingResolver:
    """Return the resolver that *settings* describe."""
    dns = settings.dns
    return CachingResolver(
        ResolverOptions(
            nameservers=tuple((server.host, server.port) for server in dns.dns_nameserver),
            min_ttl_s=dns.dns_min_ttl,
            timeout_s=dns.dns_timeout,
            interval_s=dns.dns_interval,
            attempts=dns.dns_attempts,
            capacity=dns.dns_capacity,
            rotate=dns.dns_rotate,
        )
    )


def slots_for(settings: Settings, side: Side) -> Slots:
    """Return the connection slots of one side of the instance. A process opens them once."""
    listen = settings.listen
    cap = listen.smtp_connections_in if side == "in" else listen.smtp_connections_out
    return Slots(Path(settings.process.run_directory) / "slots", listen.smtp_connections, side=side, cap=cap)


def host_ips() -> list[str]:
    """Return the single addresses of this host that are not loopback."""
    networks = [network for network in own_addresses() if network.num_addresses == 1]
    return [str(network[0]) for network in networks if not network[0].is_loopback]


def database_url(settings: Settings) -> str:
    """Return where the runtime state is kept."""
    return settings.state.database_address or f"sqlite:///{settings.process.data_directory}/mtaq.db"


def state_for(settings: Settings, broker: Broker, events: EventLog) -> State:
    """Return the runtime state as a process whose broker is *broker* sees it, not started."""
    exchange = settings.state.cluster_exchange
    return open_state(
        database_url(settings),
        events=events,
        clock=utc_now,
        ttl_s=settings.state.database_ttl,
        announce=partial(broker.broadcast, exchange, timeout_s=ANNOUNCE_S) if exchange else None,
    )


def hear_of_changes(settings: Settings, broker: Broker, state: State) -> None:
    """Have *state* look at once when another process says that something changed."""
    if settings.state.cluster_exchange:
        broker.subscribe(settings.state.cluster_exchange, state.notice)


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
        self._state = state_for(settings, self._broker, events)
        self._names = Names(self._state)
        self._resolver = resolver_for(settings)
        self._slots = slots_for(settings, "in")
        folder = Path(settings.process.run_directory)
        self._rates = CountTable(folder / "rates", window_s=60)
        self._misdeeds = CountTable(folder / "misdeeds", window_s=MISDEEDS_S)
        self._hooks: Hooks | None = None
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
        service = ReceptionService(
            IntakeOptions(
                inbox=queues.rabbitmq_inbox,
                local=queues.rabbitmq_local,
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
        policy = self._policy(options, port=listener.port, starttls=tls is not None and not listener.implicit_tls)
        return Port(
            sock=listener.sock, number=listener.port, policy=policy, tls=tls, implicit_tls=listener.implicit_tls
        )

    def _policy(self, options: ReceiveOptions, *, port: int, starttls: bool) -> PortPolicy:
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
        return self._policy(spool_receive_options(settings.reception, settings.spool), port=0, starttls=False)

    def _server_tls(self, options: TlsOptions | None) -> ServerTls | None:
        """Ports with the same files share them; a reload reads none that is in use already."""
        if options is not None and options not in self._tls:
            self._tls[options] = ServerTls(options, events=self._events)
        return None if options is None else self._tls[options]

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


class Delivery:
    """One delivery worker."""

    def __init__(self, settings: Settings, events: EventLog, *, number: int) -> None:
        self._settings = settings
        self._events = events
        self._broker = broker_for(settings, f"deliver {number}")
        self._state = state_for(settings, self._broker, events)
        self._names = Names(self._state)
        folder = Path(settings.process.data_directory) / "journal"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._journal = Journal(folder, on_state=self._tell_journal)
        self._claims = Claims(folder / "claims")
        self._slots = slots_for(settings, "out")
        self._service: DeliveryService | None = None

    @property
    def broker_state(self) -> BrokerState:
        """How the broker is."""
        return self._broker.state if self._service is not None else BrokerState.DOWN

    async def start(self) -> None:
        """Open what belongs to this host."""
        await self._journal.start()

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
            ),
            queues=self._broker,
            resolver=resolver,
            connect=connect,
            journal=self._journal,
            claims=self._claims,
            slots=self._slots,
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
            declare=self._declare if queues.rabbitmq_declare else None,
        )
        service.start()
        self._service = service

    def reload(self, settings: Settings) -> None:
        """Use what of *settings* can change while running, for new attempts."""
        self._settings = settings
        if self._service is not None:
            self._service.reload(settings.deliver)

    async def stop(self) -> None:
        """Finish the attempts under way, give the rest back, then go."""
        if self._service is not None:
            await self._service.stop(GRACE_S)
        await self._state.stop()
        await self._broker.close()
        await self._journal.close()
        self._claims.close()
        self._slots.close()

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
