"""What a reception and a delivery are both made of."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from mtaq.broker.port import Broker
from mtaq.config import ReceiveOptions, Settings
from mtaq.dns.resolver import CachingResolver, ResolverOptions
from mtaq.model.errors import ResolverError
from mtaq.net import streams
from mtaq.net.addresses import own_addresses
from mtaq.net.http import request
from mtaq.net.slots import Side, Slots
from mtaq.spam.filter import SpamFilter
from mtaq.spam.rspamd import Rspamd
from mtaq.spam.spamassassin import SpamAssassin
from mtaq.state.state import State, open_state
from mtaq.telemetry.events import EventLog

#: Longest wait until the broker has told others of a change; they look by themselves as well.
ANNOUNCE_S = 5.0

#: Longest time a transaction or an attempt under way is waited for when stopping.
GRACE_S = 30.0


def utc_now() -> datetime:
    """The clock of the services."""
    return datetime.now(UTC)


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
            trust_ad=dns.dns_trust_ad,
        )
    )


def slots_for(settings: Settings, side: Side) -> Slots:
    """Return the connection slots of one side of the instance. A process opens them once."""
    listen = settings.listen
    cap = listen.smtp_connections_in if side == "in" else listen.smtp_connections_out
    return Slots(Path(settings.process.run_directory) / "slots", listen.smtp_connections, side=side, cap=cap)


def spam_filter_for(options: ReceiveOptions, on_unavailable: Callable[[str, str], None]) -> SpamFilter:
    """Return the spam filter of *options*; *on_unavailable* is told engine and reason when it gives no answer."""
    engine = (
        Rspamd(options.rspamd_address, request=request)
        if options.rspamd_address
        else SpamAssassin(options.spamassassin_host, options.spamassassin_port, connect=streams.connected)
    )
    return SpamFilter(engine, on_unavailable=on_unavailable)


def host_ips() -> list[str]:
    """Return the single addresses of this host that are not loopback."""
    networks = [network for network in own_addresses() if network.num_addresses == 1]
    return [str(network[0]) for network in networks if not network[0].is_loopback]


def state_for(settings: Settings, broker: Broker, events: EventLog, *, for_delivery: bool) -> State:
    """Return the runtime state as a process whose broker is *broker* sees it, not started."""
    exchange = settings.state.cluster_exchange
    return open_state(
        settings.database_address,
        events=events,
        clock=utc_now,
        ttl_s=settings.state.database_ttl,
        announce=partial(broker.broadcast, exchange, timeout_s=ANNOUNCE_S) if exchange else None,
        for_delivery=for_delivery,
    )


def hear_of_changes(settings: Settings, broker: Broker, state: State) -> None:
    """Have *state* look at once when another process says that something changed."""
    if settings.state.cluster_exchange:
        broker.subscribe(settings.state.cluster_exchange, state.notice)
