"""Both ends of a connection: their addresses, the TLS between them, and who the client is.

What a trusted proxy says of its client counts in place of what we see of the proxy, TLS included. A client that shows
a certificate of an authority that the port trusts counts as logged in.
"""

from __future__ import annotations

import asyncio
import ssl

from mtaq.model.message import ConnectionFacts, TlsFacts
from mtaq.receive.ports import Tls
from mtaq.receive.proxy import ProxyHeader


class Endpoints:
    """What is known of one connection.

    Attributes:
        remote: The client's address and port.
        local: Those that it connected to.
        proxy: Those of the proxy that told us the rest; ``None`` without one.
        tls: What TLS the client has now.
        user: Who has logged in; ``None`` as long as nobody has.
    """

    __slots__ = ("local", "proxy", "remote", "tls", "user")

    def __init__(self, remote: tuple[str, int], local: tuple[str, int]) -> None:
        self.remote = remote
        self.local = local
        self.proxy: tuple[str, int] | None = None
        self.tls: TlsFacts | None = None
        self.user: str | None = None

    def note_tls(self, tls: Tls, session: ssl.SSLObject) -> None:
        """A handshake is over: note what it agreed on, and who the client's certificate says it is."""
        self.tls = tls.facts(session)
        self.user = tls.peer_user(session)

    def believe(self, header: ProxyHeader) -> None:
        """Note what a trusted proxy says."""
        self.proxy = self.remote
        self.remote = header.source or self.remote
        self.local = header.destination or self.local
        self.tls = header.tls or self.tls

    def facts(self, helo: str) -> ConnectionFacts:
        """Return what the JSON and the logs say; *helo* is the client's name for itself."""
        return ConnectionFacts(
            local_ip=self.local[0],
            local_port=self.local[1],
            remote_ip=self.remote[0],
            remote_port=self.remote[1],
            helo=helo,
            tls=self.tls,
            user=self.user,
            proxy=self.proxy,
        )


def endpoints_of(transport: asyncio.BaseTransport) -> Endpoints | None:
    """Return the ends of *transport*; ``None`` when the client was gone before anybody looked."""
    remote, local = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
    if not remote or not local:
        return None
    return Endpoints((plain_ip(remote[0]), remote[1]), (plain_ip(local[0]), local[1]))


def plain_ip(address: str) -> str:
    """Return an address as the JSON spells it: IPv4-mapped IPv6 as IPv4, without a zone."""
    address = address.partition("%")[0]
    return address[7:] if address.startswith("::ffff:") and "." in address else address
