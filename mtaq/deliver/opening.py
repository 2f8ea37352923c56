"""Opens a connection to a site: tries its addresses in turn until one has taken our EHLO, with TLS where asked for.

The next address follows on no connection, no greeting, or any refusal up to EHLO. TLS under ``opportunistic`` that
breaks is tried once more without, on a new connection (RFC 7435 §3); ``required`` and ``verified`` never go in clear,
and neither does a password.
Raises ``HostFailure`` when nothing is left, with the last transient ending where there was one: one host's final
"no" is not the site's while another could not be asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from mtaq.config import DeliverOptions, Security
from mtaq.deliver.connection import Connection
from mtaq.deliver.ending import Ending, HostFailure, PeerFacts
from mtaq.deliver.offline import OfflineAddresses
from mtaq.deliver.ports import Connect, SourceUnusable, Surroundings
from mtaq.deliver.route import Login, Route, Router, Target, is_ip
from mtaq.smtp.client_session import ClientSession


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
    ) -> None:
        self.options = options
        self._router = router
        self._connect = connect
        self._surroundings = surroundings
        self._ehlo_name = ehlo_name
        self._now = now
        self._offline = offline

    async def open(self, route: Route, source: str | None, security: Security) -> Connection:
        """
        Return a connection on which a transaction may begin.

        Args:
            source: Source address; ``None`` for the kernel's choice.

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
        for target in fitting:
            try:
                return await self._open_one(target, source, security, route.login, deadline)
            except HostFailure as failure:
                failures.append(failure.ending)
                if _is_silence(failure.ending):
                    self._offline.failed(source, target, failure.ending.description)
                if failure.ending.next_source or self._now() >= deadline:
                    break
        raise HostFailure(next((ending for ending in reversed(failures) if not ending.final), failures[-1]))

    async def _open_one(
        self, target: Target, source: str | None, security: Security, login: Login | None, deadline: float
    ) -> Connection:
        connection = await self._greeted_securely(target, source, security, deadline)
        if login is None:
            return connection
        try:
            if not connection.is_secure:
                raise HostFailure(_no_tls(target))
            await connection.log_in(login.user, login.password, deadline)
        except HostFailure:
            await connection.close()
            raise
        except BaseException:
            connection.abort()
            raise
        return connection

    async def _greeted_securely(
        self, target: Target, source: str | None, security: Security, deadline: float
    ) -> Connection:
        connection = await self._greeted(target, source, security, deadline)
        if security == "optional":
            return connection
        try:
            if await self._secured(connection, target, security, deadline):
                return connection
        except HostFailure as failure:
            await connection.close()
            # A TLS 1.3 host tells what it disliked only after the handshake, so a connection lost at EHLO counts too.
            if security != "opportunistic" or failure.ending.code is not None:
                raise
            return await self._greeted(target, source, security, deadline)
        except BaseException:
            connection.abort()
            raise
        if security == "opportunistic":
            return connection
        await connection.close()
        raise HostFailure(_no_tls(target))

    async def _secured(self, connection: Connection, target: Target, security: Security, deadline: float) -> bool:
        """Begin TLS where the host offers it; False when it does not."""
        if not connection.offers_tls:
            return False
        around = self._surroundings
        context = around.verified if security == "verified" else around.unverified
        return await connection.start_tls(context, target.host, deadline)

    async def _greeted(self, target: Target, source: str | None, security: Security, deadline: float) -> Connection:
        connection = await self._connected(target, source, security, deadline)
        try:
            await connection.greet(deadline)
        except HostFailure:
            await connection.close()
            raise
        except BaseException:
            connection.abort()
            raise
        self._offline.succeeded(source, target)
        return connection

    async def _connected(self, target: Target, source: str | None, security: Security, deadline: float) -> Connection:
        policy = "none" if security == "optional" else security
        facts = PeerFacts(host=target.host, source=source, destination=target.address, tls_policy=policy)
        timeouts = self.options.delivery_timeouts
        try:
            async with asyncio.timeout_at(min(deadline, self._now() + timeouts.connect)):
                stream = await self._connect(target.address, target.port, source=source)
        except SourceUnusable as error:
            raise HostFailure(_unbindable(str(error))) from error
        except OSError as error:
            raise HostFailure(_not_connected(error, facts)) from error
        session = ClientSession(self._ehlo_name(stream.local_ip or source))
        return Connection(stream, session, timeouts, facts)


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


def _no_tls(target: Target) -> Ending:
    text = f"{target.host} offers no TLS, which is required"
    return Ending(state="starttls", result="error", status="4.7.4", description=text, peer=PeerFacts(host=target.host))


def _unbindable(description: str) -> Ending:
    return Ending(state="bind", result="error", status="5.3.5", description=description, final=True, next_source=True)


def _wrong_family(route: Route, source: str | None) -> Ending:
    text = f"no mail host of {route.site} has an address of the family of {source}"
    return Ending(state="connect", result="error", status="4.4.4", description=text, next_source=True)
