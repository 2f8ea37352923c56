"""Where does mail for a domain go? First its site, by MX; then, when a connection is opened, the addresses to try.

Null MX, loops and forbidden addresses are decided here (RFC 5321 §5.1, RFC 7505); the look-ups themselves, and the
fall-back to A and AAAA, are the resolver's. Raises ``HostFailure`` with the ending that holds for every message to
that domain; DNS that is silent is transient, DNS that says no is final.
"""

from __future__ import annotations

import ipaddress
import random
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby

from mtaq.config import DeliverOptions, Security
from mtaq.deliver.ending import Ending, HostFailure
from mtaq.deliver.ports import Control, MailHost, Resolver, Surroundings
from mtaq.model.control import DnsOverride
from mtaq.model.errors import NoSuchDomain, ResolverTimeout
from mtaq.model.message import Smarthost
from mtaq.smtp.grammar import a_label_domain

#: MX hosts that are looked at; no honest domain has more.
MAX_HOSTS = 20
#: Addresses tried in one attempt.
MAX_TARGETS = 20
#: So many characters in a row are no accident.
TELLING = 8

_Located = tuple[MailHost, Sequence[str]]

RouteKey = tuple[str, int, bool, tuple[tuple[int, str, int], ...]]
"""What must be equal in two routes that share a connection."""


@dataclass(frozen=True, slots=True)
class Login:
    """User and password at a smarthost (RFC 4954)."""

    user: str
    password: str = field(repr=False)

    def is_told_by(self, text: str) -> bool:
        """Does *text* hold the password or a part of it, as it is or as it is sent (RFC 4616 §2)?"""
        password = self.password.encode()
        sent = (b64encode(secret).decode() for secret in (password, b"\0%b\0%b" % (self.user.encode(), password)))
        return any(_shares(text, secret) for secret in (self.password, *sent))


@dataclass(frozen=True, slots=True)
class Route:
    """The way to one site.

    Attributes:
        site: Its name: equal for all domains with the same MX hosts (or the same smarthost).
        hosts: By preference.
        port: At all of them.
        named: The operator named the host: any address of it is allowed.
        login: Who we are there; ``None`` without a login.
        security: What is demanded there, whatever the message says; ``None`` for nothing of its own.
    """

    site: str
    hosts: tuple[MailHost, ...]
    port: int
    named: bool = False
    login: Login | None = None
    security: Security | None = None

    @property
    def key(self) -> RouteKey:
        """
        The site, who is tried there in which order, by which port, and who said so.

        Anybody can write the hosts of others into his DNS, in an order of his own, and hosts that an operator named for
        somebody: what is allowed there, and what fails there, is not for the others.
        """
        ranks = {preference: rank for rank, preference in enumerate(sorted({host.preference for host in self.hosts}))}
        order = sorted((ranks[host.preference], host.name, host.port or 0) for host in self.hosts)
        return self.site, self.port, self.named, tuple(order)


@dataclass(frozen=True, slots=True)
class Target:
    """One address to connect to, and the name its certificate must have."""

    host: str
    address: str
    port: int


class Router:
    """Finds routes.

    Attributes:
        options: May be replaced at any time.
    """

    def __init__(
        self,
        options: DeliverOptions,
        *,
        resolver: Resolver,
        control: Control,
        surroundings: Surroundings,
        rng: random.Random,
    ) -> None:
        self.options = options
        self._control = control
        self._resolver = resolver
        self._surroundings = surroundings
        self._rng = rng

    async def route(self, domain: str, smarthost: Smarthost | None = None) -> Route:
        """
        Return the way to *domain* (as in an ``Address``), or to the *smarthost* that the message names.

        With a sink every domain is a site of its own and DNS is not asked: a test must not depend on it.

        Raises:
            HostFailure: It has no mail host, or DNS was silent.
        """
        options = self.options
        if smarthost is None and options.smarthost is not None:
            smarthost = Smarthost(
                hostname=options.smarthost,
                port=options.smarthost_port,
                username=options.smarthost_username,
                password=options.smarthost_password,
                security=options.smarthost_security,
            )
        if smarthost is not None:
            return _to_smarthost(smarthost)
        if options.smtp_sink_address is not None:
            return Route(domain, (), options.delivery_port)
        if domain.startswith("["):
            address = domain[1:-1].removeprefix("IPv6:")
            return Route(address, (MailHost(0, address),), options.delivery_port)
        override = self._control.dns_override(domain)
        if override is not None:
            return _overridden(override, options.delivery_port)
        hosts = await self._mail_hosts(domain)
        return Route(",".join(sorted(host.name for host in hosts)), tuple(hosts), options.delivery_port)

    async def _mail_hosts(self, domain: str) -> Sequence[MailHost]:
        try:
            hosts = await self._resolver.mail_hosts(a_label_domain(domain))
        except NoSuchDomain as error:
            if error.null_mx:
                raise HostFailure(_dns_error(556, "5.1.10", f"{domain} takes no mail (null MX)")) from error
            raise HostFailure(_dns_error(550, "5.1.2", str(error))) from error
        except ResolverTimeout as error:
            raise HostFailure(_dns_timeout(str(error))) from error
        except ValueError as error:
            raise HostFailure(_dns_error(550, "5.1.2", f"{domain}: {error}")) from error
        return sorted(hosts, key=lambda host: host.preference)[:MAX_HOSTS]

    async def targets(self, route: Route) -> list[Target]:
        """
        Return the addresses of *route* in the order to try them: by preference, hosts of equal preference shuffled.

        Raises:
            HostFailure: There is none that may be connected to.
        """
        if self.options.smtp_sink_address is not None:
            sink = self.options.smtp_sink_address
            return await self._at(Route(sink, (MailHost(0, sink),), self.options.smtp_sink_port, named=True))
        return await self._at(route)

    async def _at(self, route: Route) -> list[Target]:
        found: list[_Located] = []
        silent: ResolverTimeout | None = None
        for host in route.hosts:
            try:
                found.append((host, await self._resolver.addresses(host.name)))
            except NoSuchDomain:
                continue
            except ResolverTimeout as error:
                silent = error
        if not found:
            if silent is not None:
                raise HostFailure(_dns_timeout(str(silent)))
            raise HostFailure(_dns_error(550, "5.4.4", f"no address for the mail hosts of {route.site}"))
        if not route.named and not self.options.delivery_allow_private:
            found = self._allowed(route, found, certain=silent is None)
        return self._in_order(route, found)

    def _allowed(self, route: Route, found: list[_Located], *, certain: bool) -> list[_Located]:
        """Leave out us and everything behind us (RFC 5321 §5.1), and what is no address of the Internet."""
        own = [host.preference for host, addresses in found if any(map(self._surroundings.is_own, addresses))]
        if own:
            found = [(host, addresses) for host, addresses in found if host.preference < min(own)]
            if not found and certain:
                raise HostFailure(_dns_error(554, "5.4.6", f"mail for {route.site} loops back to this host"))
        is_private = self._surroundings.is_private
        allowed: list[_Located] = [(host, [ip for ip in addresses if not is_private(ip)]) for host, addresses in found]
        if any(addresses for _, addresses in allowed):
            return allowed
        if not certain:
            raise HostFailure(_dns_timeout(f"no answer about some mail hosts of {route.site}"))
        raise HostFailure(_dns_error(550, "5.4.4", f"the mail hosts of {route.site} have only private addresses"))

    def _in_order(self, route: Route, found: list[_Located]) -> list[Target]:
        targets = []
        for _, group in groupby(found, key=lambda item: item[0].preference):
            equal = list(group)
            self._rng.shuffle(equal)
            targets += [Target(host.name, ip, host.port or route.port) for host, addresses in equal for ip in addresses]
        return targets[:MAX_TARGETS]


def _overridden(override: DnsOverride, port: int) -> Route:
    named = enumerate(override.hosts)
    hosts = tuple(MailHost(preference, host.host, host.port) for preference, host in named)
    site = ",".join(sorted({f"{host.name}:{host.port}" if host.port else host.name for host in hosts}))
    return Route(site, hosts, port, named=True)


def _to_smarthost(smarthost: Smarthost) -> Route:
    login = None
    if smarthost.username is not None and smarthost.password is not None:
        login = Login(smarthost.username, smarthost.password)
    host, security = smarthost.hostname, smarthost.security
    return Route(host, (MailHost(0, host),), smarthost.port, named=True, login=login, security=security)


def _shares(text: str, secret: str) -> bool:
    length = min(len(secret), TELLING)
    return any(secret[at : at + length] in text for at in range(len(secret) - length + 1))


def is_ip(text: str) -> bool:
    """Is *text* an IP address?"""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _dns_error(code: int, status: str, description: str) -> Ending:
    return Ending(state="dns", result="error", code=code, status=status, description=description, final=True)


def _dns_timeout(description: str) -> Ending:
    return Ending(state="dns", result="timeout", code=451, status="4.4.3", description=description)
