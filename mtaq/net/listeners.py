"""Listening sockets: bound once, before privileges are dropped, and handed down to the processes that accept.

Raises ``OSError`` with a sentence for the operator; after an error nothing is left open.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

#: Where "all addresses" is: not a mistake but the default, who may connect is `smtp-range`'s business.
ALL_ADDRESSES = ("0.0.0.0", "::")  # noqa: S104 - see above
#: Connections the kernel holds until they are accepted; it caps this at ``net.core.somaxconn``.
BACKLOG = 1024


@dataclass(frozen=True, slots=True)
class Listener:
    """One listening socket.

    Attributes:
        ip: Address it is bound to; ``0.0.0.0`` or ``::`` for all of a family.
        implicit_tls: TLS from the first byte (RFC 8314 §3.3).
    """

    sock: socket.socket
    ip: str
    port: int
    implicit_tls: bool = False

    @classmethod
    def from_fd(cls, fd: int, *, implicit_tls: bool = False) -> Self:
        """
        Take over the inherited listening socket *fd*; no program that we start inherits it in turn.

        Raises:
            OSError: It is not a socket.
        """
        sock = socket.socket(fileno=fd)
        sock.set_inheritable(False)
        return cls._of(sock, implicit_tls)

    @classmethod
    def _of(cls, sock: socket.socket, implicit_tls: bool) -> Self:
        sock.setblocking(False)
        name = sock.getsockname()
        return cls(sock, name[0], name[1], implicit_tls)

    def __str__(self) -> str:
        return _spell(self.ip, self.port)


def listen(ips: Sequence[str], ports: Sequence[int], *, implicit_tls: bool = False) -> list[Listener]:
    """
    Listen on every one of *ports* of every one of *ips*; of all addresses when *ips* is empty.

    "All" is a socket for IPv4 and one for IPv6, each for its own family, so that an IPv4 client is never seen under a
    mapped IPv6 address. A host without IPv6 gets the first alone.

    Raises:
        OSError: A port is in use or not ours to take; says which one.
    """
    listeners: list[Listener] = []
    try:
        for port in ports:
            for ip in ips or ALL_ADDRESSES:
                try:
                    listeners.append(Listener._of(_bound(ip, port), implicit_tls))
                except OSError as error:
                    if ips or ip != "::" or error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                        raise
    except OSError:
        for listener in listeners:
            listener.sock.close()
        raise
    return listeners


def _bound(ip: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ipaddress.ip_address(ip).version == 6 else socket.AF_INET
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((ip, port))
            sock.listen(BACKLOG)
        except OSError:
            sock.close()
            raise
    except OSError as error:
        raise OSError(error.errno, f"cannot listen on {_spell(ip, port)}: {_reason(error, port)}") from error
    return sock


def _reason(error: OSError, port: int) -> str:
    reason = error.strerror or str(error)
    if error.errno == errno.EACCES and port < 1024:
        return f"{reason} (ports below 1024 need root or CAP_NET_BIND_SERVICE)"
    return reason


def _spell(ip: str, port: int) -> str:
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"
