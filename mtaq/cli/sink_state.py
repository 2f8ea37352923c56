"""What all connections to one address of the sink share."""

from __future__ import annotations

import ipaddress
import ssl
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from mtaq.cli.sink_addresses import Place
from mtaq.cli.sink_faults import Faults
from mtaq.cli.sink_limits import Limits
from mtaq.cli.sink_profile import Profile
from mtaq.cli.sink_record import Ends, Record
from mtaq.model.reply import Reply
from mtaq.smtp import codes
from mtaq.smtp.server_session import MessageComplete, SessionOptions


class Closable(Protocol):
    """A connection, as far as the server has to know it."""

    def shut_down(self) -> None:
        """Say that the server goes away, and close."""


@dataclass(slots=True)
class Sink:
    """What all connections to one address share.

    Attributes:
        context: For TLS; ``None`` when it is not offered.
        implicit_tls: TLS from the first byte.
        connections: Those that are open.
    """

    record: Record
    profile: Profile = field(default_factory=Profile)
    faults: Faults = field(default_factory=Faults)
    context: ssl.SSLContext | None = None
    implicit_tls: bool = False
    options: SessionOptions = field(init=False)
    limits: Limits = field(init=False)
    connections: set[Closable] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.limits = Limits(self.profile)
        self.options = _options(self.profile, offers_tls=self.context is not None)

    @property
    def is_plain(self) -> bool:
        """Says yes to everything: no command has to be looked at, only what the session asks."""
        return not self.faults and self.profile.is_plain and not self.record.everything

    def take(self, ends: Callable[[], Ends], message: MessageComplete) -> Reply:
        """Keep *message* and return the answer to it: one that cannot be written is the client's to keep."""
        try:
            self.record.take(ends, message.transaction, message.content)
        except OSError as error:
            print(f"not stored: {error}", file=sys.stderr)
            return codes.TRY_LATER
        return codes.ACCEPTED


def _options(profile: Profile, *, offers_tls: bool) -> SessionOptions:
    return SessionOptions(
        hostname=profile.hostname,
        max_size_bytes=profile.max_size_bytes,
        max_recipients=100_000,
        strict_addresses=False,
        starttls=offers_tls and "STARTTLS" not in profile.without,
        auth_mechanisms=("PLAIN", "LOGIN") if profile.logins is not None else (),
        dsn="DSN" not in profile.without,
        requiretls=offers_tls and "REQUIRETLS" not in profile.without,
    )


def ends_of(connection: str, sockname: Any, peername: Any) -> Ends:
    """Return between which sockets *connection* is; a peer that is gone already has no name."""
    local, remote = place_of(sockname), place_of(peername)
    return Ends(
        connection=connection,
        local_ip=local.ip,
        local_port=local.port,
        remote_ip=remote.ip,
        remote_port=remote.port,
    )


def place_of(name: Any) -> Place:
    """Return the address and port of a socket's name; an IPv4 address that is mapped as itself."""
    if not name:
        return Place("", 0)
    address = ipaddress.ip_address(name[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return Place(str(mapped or address), name[1])
