"""Opens a connection to a site: tries its addresses in turn until one has taken our EHLO, with TLS where asked for.

The next address follows on no connection, no greeting, any refusal up to EHLO, or a host that does not prove itself as
``tls_policy`` wants it. TLS that breaks where less would do is tried once more with less, on a new connection (RFC 7435
§3); a password never goes in clear. What came of each handshake is noted (``TlsSession``).
Where connections have a rate, whoever opens has a turn for the first one, and each that follows waits for its own.
Raises ``HostFailure`` when nothing is left, with the last transient ending where there was one: one host's final
"no" is not the site's while another could not be asked.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass, replace

from mtaq.config import DeliverOptions
from mtaq.deliver.connection import Connection, Distrusted
from mtaq.deliver.ending import Ending, HostFailure, PeerFacts
from mtaq.deliver.offline import OfflineAddresses
from mtaq.deliver.ports import Connect, SourceUnusable, Surroundings
from mtaq.deliver.route import Login, Route, Router, Target, is_ip
from mtaq.deliver.tls_policy import Check, Demand, Refused, Terms, TlsPolicies
from mtaq.deliver.tls_session import Objection, TlsSession, counted, kind_of
from mtaq.smtp.client_session import ClientSession

#: Waiting for a turn, how often it is looked whether there is any use in it still.
LOOK_S = 1.0

_REPEATED = "not logged in; the host answered with what it had heard, which is not repeated here"
_NOT_OFFERED = Objection("starttls-not-supported", "the host offers no TLS")


@dataclass(slots=True)
class _Turns:
    """Connections under one rate: the first has its turn."""

    take: Callable[[], float]
    used: int = 0


@dataclass(frozen=True, slots=True)
class _Way:
    """One address that is tried."""

    target: Target
    source: str | None
    terms: Terms
    deadline: float
    turns: _Turns


class Opener:
    """Opens connections.

    Attributes:
        options: May be replaced at any time.
    """

    def __init__(
        self,
        options: DeliverOptions,
        *,
        router: Router,
        connect: Connect,
        surroundings: Surroundings,
        ehlo_name: Callable[[str | None], str],
        now: Callable[[], float],
        offline: OfflineAddresses,
        tls: TlsPolicies,
    ) -> None:
        self.options = options
        self._router = router
        self._connect = connect
        self._surroundings = surroundings
        self._ehlo_name = ehlo_name
        self._now = now
        self._offline = offline
        self._tls = tls

    async def open(
        self, route: Route, source: str | None, tls: Demand, take_turn: Callable[[], float] = lambda: 0.0
    ) -> Connection:
        """
        Return a connection on which a transaction may begin.

        Args:
            source: Source address; ``None`` for the kernel's choice.
            take_turn: Counts one more connection after the first and returns 0; or the seconds until one may be opened,
                ``inf`` when none is wanted any more.

        Raises:
            HostFailure: No host of the site can be used now, or never from *source* (``next_source``).
        """
        if source is not None and not is_ip(source):
            raise HostFailure(_unbindable(f"{source} is no IP address"))
        targets = await self._router.targets(route)
        fitting = [target for target in targets if source is None or _family(target.address) == _family(source)]
        if not fitting:
            raise HostFailure(_wrong_family(route, source))
        fitting = self._offline.online(fitting, source)
        if not fitting:
            raise HostFailure(_all_offline(route))
        deadline = self._now() + self.options.delivery_attempt_timeout
        failures: list[Ending] = []
        sessions: list[TlsSession] = []
        turns = _Turns(take_turn)
        for target in fitting:
            try:
                connection = await self._open_one(target, source, tls, route.login, deadline, sessions, turns)
            except HostFailure as failure:
                failures.append(failure.ending)
                if _is_silence(failure.ending):
                    self._offline.failed(source, target, failure.ending.description)
                if failure.ending.next_source or self._now() >= deadline:
                    break
            else:
                connection.arrived_by(tuple(sessions))
                return connection
        last = next((ending for ending in reversed(failures) if not ending.final), failures[-1])
        raise HostFailure(_after(sessions, last))

    async def _open_one(
        self,
        target: Target,
        source: str | None,
        tls: Demand,
        login: Login | None,
        deadline: float,
        sessions: list[TlsSession],
        turns: _Turns,
    ) -> Connection:
        way = _Way(target, source, await self._terms(tls, target, sessions), deadline, turns)
        connection = await self._secured(way, sessions)
        if login is None:
            return connection
        try:
            if not connection.is_secure:
                raise HostFailure(_no_tls(way))
            await connection.log_in(login.user, login.password, deadline)
        except HostFailure as failure:
            await connection.close()
            if login.is_told_by(failure.ending.description):
                raise HostFailure(replace(failure.ending, description=_REPEATED)) from None
            raise
        except BaseException:
            connection.abort()
            raise
        return connection

    async def _terms(self, tls: Demand, target: Target, sessions: list[TlsSession]) -> Terms:
        try:
            return await self._tls.terms(tls, target)
        except Refused as refusal:
            sessions.append(refusal.session)
            raise

    async def _secured(self, way: _Way, sessions: list[TlsSession]) -> Connection:
        """Shake hands as the terms want it; each handshake that fails costs a connection."""
        failure: HostFailure | None = None
        for check in way.terms.checks:
            connection = await self._greeted(way)
            try:
                done = await self._shaken_hands(connection, check, way)
            except HostFailure as error:
                await connection.close()
                if error.ending.code is not None:
                    if failure is None and connection.is_secure:
                        sessions.append(_session(way, connection, None))
                    raise
                # A TLS 1.3 host tells what it disliked only after the handshake: a connection lost at EHLO counts too.
                if failure is None:
                    sessions.append(_session(way, connection, _objection_of(error)))
                failure = HostFailure(_as_wanted(error, way))
            except BaseException:
                connection.abort()
                raise
            else:
                if failure is None:
                    sessions.append(_session(way, connection, None if done else _NOT_OFFERED))
                if done or way.terms.clear:
                    return connection
                await connection.close()
                raise HostFailure(_no_tls(way))
        if failure is None or way.terms.clear:
            return await self._greeted(way)
        raise failure

    async def _shaken_hands(self, connection: Connection, check: Check, way: _Way) -> bool:
        """Begin TLS where the host offers it; False when it does not."""
        if not connection.offers_tls:
            return False
        around = self._surroundings
        context = around.verified if check.by_authorities else around.unverified
        return await connection.start_tls(context, check, way.deadline, today=self._tls.clock())

    async def _greeted(self, way: _Way) -> Connection:
        connection = await self._connected(way)
        try:
            await connection.greet(way.deadline)
        except HostFailure:
            await connection.close()
            raise
        except BaseException:
            connection.abort()
            raise
        self._offline.succeeded(way.source, way.target)
        return connection

    async def _wait_for_turn(self, way: _Way) -> None:
        way.turns.used += 1
        while way.turns.used > 1 and (wait_s := way.turns.take()) > 0:
            if self._now() + wait_s >= way.deadline:
                raise HostFailure(_no_turn(way.target))
            await asyncio.sleep(min(wait_s, LOOK_S))

    async def _connected(self, way: _Way) -> Connection:
        await self._wait_for_turn(way)
        target, source = way.target, way.source
        facts = PeerFacts(host=target.host, source=source, destination=target.address, tls_policy=way.terms.word)
        timeouts = self.options.delivery_timeouts
        try:
            async with asyncio.timeout_at(min(way.deadline, self._now() + timeouts.connect)):
                stream = await self._connect(target.address, target.port, source=source)
        except SourceUnusable as error:
            raise HostFailure(_unbindable(str(error))) from error
        except OSError as error:
            raise HostFailure(_not_connected(error, facts)) from error
        session = ClientSession(self._ehlo_name(stream.local_ip or source))
        return Connection(stream, session, timeouts, facts)


def _session(way: _Way, connection: Connection, problem: Objection | None) -> TlsSession:
    facts, terms = connection.facts, way.terms
    problem = problem or terms.flaw
    return counted(
        terms.word,
        TlsSession(
            judged=terms.judged,
            mx_host=facts.host,
            mx_helo=facts.mta or "",
            remote_ip=facts.destination or "",
            local_ip=facts.source or "",
            failure=problem.kind if problem is not None else None,
            reason=problem.text if problem is not None else "",
        ),
    )


def _objection_of(failure: HostFailure) -> Objection:
    """Return what was wrong with a handshake, for reports."""
    if isinstance(failure, Distrusted):
        return failure.objection
    return Objection(kind_of(failure.__cause__), failure.ending.description)


def _as_wanted(failure: HostFailure, way: _Way) -> Ending:
    """A host that is not who it should be ends the matter where that is wanted; a broken handshake never does."""
    is_other = isinstance(failure, Distrusted) or isinstance(failure.__cause__, ssl.SSLCertVerificationError)
    return _for_good(failure.ending) if is_other and way.terms.final else failure.ending


def _for_good(ending: Ending) -> Ending:
    return replace(ending, code=550, status="5.7.10", final=True)


def _after(sessions: list[TlsSession], ending: Ending) -> Ending:
    """Return *ending* with the handshakes before it."""
    if not sessions:
        return ending
    peer = ending.peer or PeerFacts(host=sessions[-1].mx_host)
    return replace(ending, peer=peer._replace(sessions=tuple(sessions)))


def _family(ip: str) -> int:
    return 6 if ":" in ip else 4


def _is_silence(ending: Ending) -> bool:
    """Was there no connection, or one without a greeting?"""
    return (
        ending.state in ("connect", "intro") and ending.code is None and ending.result in ("error", "timeout", "lost")
    )


def _all_offline(route: Route) -> Ending:
    text = f"every mail host of {route.site} refused connections or was silent again and again; tried again later"
    return Ending(state="connect", result="error", status="4.4.1", description=text)


def _not_connected(error: OSError, facts: PeerFacts) -> Ending:
    timed_out = isinstance(error, TimeoutError)
    text = f"no connection to {facts.host} [{facts.destination}]"
    return Ending(
        state="connect",
        result="timeout" if timed_out else "error",
        status="4.4.1",
        description=f"{text} in time" if timed_out else f"{text}: {error.strerror or error}",
        peer=facts,
    )


def _no_turn(target: Target) -> Ending:
    text = f"no further connection may be opened in time, to {target.host} [{target.address}]"
    return Ending(state="process", result="timeout", status="4.4.5", description=text)


def _no_tls(way: _Way) -> Ending:
    text = f"{way.target.host} offers no TLS, which is required"
    peer = PeerFacts(host=way.target.host, destination=way.target.address, tls_policy=way.terms.word)
    ending = Ending(state="starttls", result="error", status="4.7.4", description=text, peer=peer)
    return _for_good(ending) if way.terms.final else ending


def _unbindable(description: str) -> Ending:
    return Ending(state="bind", result="error", status="5.3.5", description=description, final=True, next_source=True)


def _wrong_family(route: Route, source: str | None) -> Ending:
    text = f"no mail host of {route.site} has an address of the family of {source}"
    return Ending(state="connect", result="error", status="4.4.4", description=text, next_source=True)
