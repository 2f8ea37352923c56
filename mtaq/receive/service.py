"""Reception in one process: its ports, its open connections, its deadlines, its end.

Knows every connection; one sweep a second looks after all time-outs, so a command costs no timer. Stopping lets
transactions under way finish and answers everybody else 421.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

from mtaq.limits.memory import MemoryBudget
from mtaq.model.reply import Reply
from mtaq.receive.clients import Misdeeds
from mtaq.receive.connection import SmtpConnection
from mtaq.receive.domains import DomainCheck
from mtaq.receive.endpoints import plain_ip
from mtaq.receive.envelope import EnvelopeDesk
from mtaq.receive.evidence import Evidence
from mtaq.receive.intake import Intake, IntakeOptions
from mtaq.receive.listener import Acceptor, Handshake
from mtaq.receive.logins import LoginDesk
from mtaq.receive.policy import PortPolicy
from mtaq.receive.ports import Counts, Publisher, RuntimeState, Slots, Tls
from mtaq.receive.proxy import ProxyHeader
from mtaq.smtp import codes
from mtaq.telemetry.events import EventLog
from mtaq.telemetry.metrics import counter, gauge

T = TypeVar("T")

SWEEP_S = 1.0
#: Connections shown at once.
MOST_SHOWN = 5000

SESSIONS = counter("mtaq_sessions", "SMTP sessions opened by clients.")
SESSIONS_REFUSED = counter("mtaq_sessions_refused", "Connections answered with a refusal at once.", ("code",))
#: Ends of sessions that count against the client.
_ABUSES = (codes.TOO_MANY_ERRORS, codes.NOT_HTTP, codes.EARLY_TALKER)

PROXY_HEADERS_REFUSED = counter("mtaq_proxy_headers_refused", "Proxies closed for a missing or wrong PROXY header.")
SESSIONS_OPEN = gauge("mtaq_sessions_open", "SMTP sessions open now.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """One listening socket, handed down by whoever bound it.

    Attributes:
        sock: Bound and listening, non-blocking.
        number: The port.
        policy: What holds for connections accepted here.
        tls: Its certificate; ``None`` when it has none.
        implicit_tls: TLS from the first byte.
    """

    sock: socket.socket
    number: int
    policy: PortPolicy
    tls: Tls | None
    implicit_tls: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Facilities:
    """What reception is given: adapters, and what the processes of an instance share.

    Attributes:
        publisher: The broker.
        slots: The caps on connections.
        state: What operators change while we run.
        rates: Messages per minute, by client.
        counts: Misdeeds, by client.
        domains: Judge of the domains in envelopes.
        memory: The budget of content in this process.
        events: The log.
        clock: Timezone-aware.
        now: Seconds, the same clock in all processes of the instance.
    """

    publisher: Publisher
    slots: Slots
    state: RuntimeState
    rates: Counts
    counts: Counts
    domains: DomainCheck
    memory: MemoryBudget
    events: EventLog
    clock: Callable[[], datetime]
    now: Callable[[], float]


class ReceptionService:
    """Accepts mail on some ports until stopped.

    Attributes:
        envelopes: Answers MAIL and RCPT.
        logins: Answers AUTH.
        intake: Answers content.
        memory: The budget of content.
    """

    def __init__(self, options: IntakeOptions, facilities: Facilities, *, slot_wait_s: float) -> None:
        given = facilities
        self.loop = asyncio.get_running_loop()
        self.stopping = False
        self.memory = given.memory
        self._publisher = given.publisher
        self._slots = given.slots
        self._state = given.state
        self._slot_wait_s = slot_wait_s
        self._events = given.events
        self._misdeeds = Misdeeds(counts=given.counts, state=given.state, now=given.now)
        self.logins = LoginDesk(misdeeds=self._misdeeds, events=given.events)
        evidence = Evidence(
            options.refused, publisher=given.publisher, watch=self.watch, max_bytes=options.broker_max_bytes,
            identify=options.identify, clock=given.clock,
        )  # fmt: skip
        self.envelopes = EnvelopeDesk(
            addresses=given.state,
            rates=given.rates,
            domains=given.domains,
            evidence=evidence,
            events=given.events,
            now=given.now,
        )
        self.intake = Intake(
            options,
            publisher=given.publisher,
            addresses=given.state,
            evidence=evidence,
            events=given.events,
            clock=given.clock,
        )
        self._acceptors: list[Acceptor] = []
        self._policies: dict[int, PortPolicy] = {}
        self._tls: dict[int, Tls] = {}
        self._connections: set[SmtpConnection] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._session_numbers = itertools.count(1)
        self._session_prefix = f"{int(given.clock().timestamp()):x}"
        self._sweeper: asyncio.TimerHandle | None = None
        self._new_sessions = 0

    # Life.

    def start(self, ports: list[Port]) -> None:
        """Accept connections on *ports*."""
        self.configure({port.number: port.policy for port in ports}, {p.number: p.tls for p in ports if p.tls})
        for port in ports:
            acceptor = Acceptor(
                port.sock,
                partial(self._connection, port.number),
                slots=self._slots,
                is_proxy=partial(self._is_proxy, port.number),
                admits=partial(self._admits, port.number),
                header_refused=self._header_refused,
                handshake=partial(self._handshake, port.number) if port.implicit_tls else None,
                wait_s=self._slot_wait_s,
            )
            acceptor.start()
            self._acceptors.append(acceptor)
        self._sweep()

    def configure(self, policies: Mapping[int, PortPolicy], tls: Mapping[int, Tls]) -> None:
        """Use these from the next connection on; those that are open keep what they began with."""
        self._policies.update(policies)
        self._tls.update(tls)

    async def stop(self, grace_s: float) -> None:
        """Accept nothing more, let transactions under way finish for *grace_s* seconds, answer everybody else 421."""
        self.stopping = True
        for acceptor in self._acceptors:
            acceptor.stop()
        for connection in list(self._connections):
            if not connection.is_busy:
                connection.finish(codes.SHUTTING_DOWN)
        deadline = self.loop.time() + grace_s
        while any(connection.is_busy for connection in self._connections) or self._tasks:
            if self.loop.time() >= deadline:
                break
            await asyncio.sleep(0.05)
        for connection in list(self._connections):
            connection.finish(codes.SHUTTING_DOWN)
        await asyncio.sleep(0)
        if self._sweeper is not None:
            self._sweeper.cancel()
        for connection in list(self._connections):
            connection.abort()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._count()

    def show(self, what: str) -> list[dict[str, Any]]:
        """Return what this process has to say of ``connections``; of anything else nothing."""
        if what != "connections":
            return []
        now = self.loop.time()
        return [connection.shown(now) for connection in itertools.islice(self._connections, MOST_SHOWN)]

    def _is_proxy(self, port: int, peer_ip: str) -> bool:
        proxies = self._policies[port].options.smtp_proxy
        return bool(proxies) and proxies.contains(peer_ip)

    def _admits(self, port: int, remote_ip: str, slot: int) -> bool:
        """May this client begin a handshake? It can be told nothing before."""
        return self.refuse_connection(self._policies[port], plain_ip(remote_ip), slot) is None

    def _handshake(self, port: int) -> Handshake:
        return Handshake(self._tls[port].context, self._policies[port].handshake_timeout_s)

    def _connection(self, port: int, slot: int | None, header: ProxyHeader | None, spoke_early: bool) -> SmtpConnection:
        session_id = f"{self._session_prefix}-{next(self._session_numbers)}"
        return SmtpConnection(self, self._policies[port], slot, session_id, header, spoke_early=spoke_early)

    def _header_refused(self, peer_ip: str, peer_port: int, reason: str) -> None:
        PROXY_HEADERS_REFUSED.inc()
        self._events.proxy_refused(peer_ip=plain_ip(peer_ip), peer_port=peer_port, reason=reason)

    def _sweep(self) -> None:
        now = self.loop.time()
        for connection in list(self._connections):
            connection.check_deadlines(now)
        self._count()
        self._sweeper = self.loop.call_later(SWEEP_S, self._sweep)

    def _count(self) -> None:
        """Write the numbers of sessions to where metrics are read; too dear to be done for each of them."""
        if self._new_sessions:
            SESSIONS.inc(self._new_sessions)
            self._new_sessions = 0
        SESSIONS_OPEN.set(len(self._connections))

    # What connections ask.

    def refuse_connection(
        self, policy: PortPolicy, remote_ip: str, slot: int | None, *, is_proxy: bool = False
    ) -> Reply | None:
        """
        Return why a client is turned away before its greeting; the order is the contract's.

        Args:
            policy: Of the port.
            remote_ip: The client's address, not its proxy's.
            slot: Its slot; ``None`` when there was none.
            is_proxy: It is a trusted proxy that speaks for itself; the range is for its clients.
        """
        if self.stopping:
            return codes.SHUTTING_DOWN
        if slot is None:
            return codes.TOO_MANY_CONNECTIONS
        if not self._slots.claim(slot, remote_ip, policy.options.smtp_connections_per_ip):
            return codes.TOO_MANY_FROM_CLIENT
        blocked = self._state.block_for(remote_ip) is not None
        return policy.refuse_connection(remote_ip, self._publisher.state, blocked=blocked, any_ip=is_proxy)

    async def guarded(self, answer: Coroutine[Any, Any, T], connection: SmtpConnection) -> T | Reply:
        """Return the answer that is awaited; whatever surprises, the client is told to try again."""
        try:
            return await answer
        except Exception as error:  # the top of a command: a bug may delay mail, never lose it
            self._events.bug(error, session_id=connection.session_id)
            return codes.TRY_LATER

    def tls(self, policy: PortPolicy) -> Tls:
        """Return the TLS of a port that has it."""
        return self._tls[policy.port]

    def watch(self, task: asyncio.Task[None]) -> None:
        """Keep *task* running even when its connection is gone."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def release(self, slot: int) -> None:
        """Free a connection slot."""
        self._slots.release(slot)

    # What connections report.

    def tls_failed(self, connection: SmtpConnection, error: Exception) -> None:
        """A handshake after STARTTLS failed."""
        connection.close_reason = f"TLS handshake failed: {error}"

    def opened(self, connection: SmtpConnection) -> None:
        """A client connected."""
        self._new_sessions += 1
        self._connections.add(connection)

    def refused(self, connection: SmtpConnection, reply: Reply) -> None:
        """A client was turned away before its greeting."""
        SESSIONS_REFUSED.labels(str(reply.code)).inc()
        facts = connection.facts()
        self._events.session_refused(
            session_id=connection.session_id,
            peer_ip=facts.remote_ip,
            peer_port=facts.remote_port,
            proxy_ip=facts.proxy[0] if facts.proxy else None,
            local_ip=facts.local_ip,
            reply_code=reply.code,
            enhanced_code=reply.status,
            reason=reply.text,
        )

    def closed(self, connection: SmtpConnection, error: Exception | None) -> None:
        """A connection is gone; one line tells its story."""
        if connection not in self._connections:
            return
        self._connections.discard(connection)
        facts = connection.facts()
        if connection.smtp.farewell in _ABUSES:
            block = connection.policy.options.smtp_protection
            self.watch(self.loop.create_task(self._misdeeds.abused(facts.remote_ip, block=block)))
        self._events.session_closed(
            session_id=connection.session_id,
            peer_ip=facts.remote_ip,
            peer_port=facts.remote_port,
            proxy_ip=facts.proxy[0] if facts.proxy else None,
            local_ip=facts.local_ip,
            helo=facts.helo,
            tls_version=facts.tls.version if facts.tls else None,
            session_messages=connection.messages,
            duration_ms=int((self.loop.time() - connection.progress.opened_at) * 1000),
            reason=connection.close_reason or (str(error) if error else None),
        )
