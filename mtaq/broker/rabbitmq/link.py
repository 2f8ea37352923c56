"""One AMQP connection that comes back by itself, and what its failures are called.

``aio_pika.RobustConnection`` connects and reconnects, every second, over the nodes in turn; channels are opened on the
``aiormq`` connection below it and are not restored: who used one opens another. Every foreign exception stops here or
in ``translated`` and becomes ``BrokerUnavailable``.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from aio_pika import RobustConnection
from aio_pika.exceptions import CONNECTION_EXCEPTIONS
from aiormq.abc import AbstractConnection
from aiormq.channel import Channel
from aiormq.connection import TCPTransportFactory, TLSTransportFactory, TransportFactory
from yarl import URL

from mtaq.broker.address import RabbitMQAddress
from mtaq.broker.options import BrokerOptions
from mtaq.broker.rabbitmq.wire import Wire
from mtaq.model.errors import BrokerUnavailable
from mtaq.version import __version__

#: Longest wait for the answer to one AMQP method. A quorum queue that is electing its leader takes seconds.
RPC_TIMEOUT_S = 20.0

_RECONNECT_S = 1
_CLOSE_TIMEOUT_S = 5.0


@contextlib.contextmanager
def translated(doing: str) -> Iterator[None]:
    """Turn whatever the client library raises inside into ``BrokerUnavailable``, *doing* first in its text."""
    try:
        yield
    except CONNECTION_EXCEPTIONS as error:
        raise BrokerUnavailable(f"{doing}: {str(error) or type(error).__name__}") from error
    except asyncio.CancelledError as error:
        # aiormq ends those who wait on a lost connection with CancelledError; only a task that is being cancelled
        # may believe it.
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise BrokerUnavailable(f"{doing}: connection lost") from error


class Link:
    """A connection for one purpose, opened on first use."""

    def __init__(self, address: RabbitMQAddress, options: BrokerOptions, purpose: str) -> None:
        self._address = address
        self._url = connection_url(address, options)
        self._nodes = _Nodes(address, options.connect_timeout_s)
        self._timeout_s = options.connect_timeout_s
        self._properties = {
            "connection_name": f"{options.name} {purpose}",
            "product": "mtaq",
            "version": __version__,
            "information": "",
        }
        self._connection: RobustConnection | None = None
        self._opening = asyncio.Lock()

    @property
    def is_open(self) -> bool:
        """Was it opened? It may be down all the same."""
        return self._connection is not None

    @property
    def is_up(self) -> bool:
        """Is there a connection now?"""
        return self._underlying() is not None

    @property
    def is_blocked(self) -> bool:
        """Has the broker said that it takes nothing (``connection.blocked``)?"""
        wire = self._nodes.wire
        return wire is not None and wire.is_blocked

    @property
    def server_version(self) -> tuple[int, ...]:
        """The broker's version, ``(3, 10, 8)``; empty when unknown."""
        connection = self._underlying()
        text = str(connection.server_properties.get("version", "")) if connection is not None else ""
        return tuple(int(part) for part in text.split(".") if part.isdigit())

    async def open(self) -> None:
        """Connect, unless that was done; from then on it reconnects by itself.

        Raises:
            BrokerUnavailable: No node answered in time, or the login was refused.
        """
        async with self._opening:
            if self._connection is None:
                self._connection = await self._connect()

    async def channel(self, *, confirms: bool) -> Channel:
        """Open a channel on the connection of this moment.

        Raises:
            BrokerUnavailable: There is none, or it does not answer.
        """
        channel, _ = await self.wired_channel(confirms=confirms)
        return channel

    async def wired_channel(self, *, confirms: bool) -> tuple[Channel, Wire]:
        """As ``channel``, and what is under its connection."""
        connection, wire = self._underlying(), self._nodes.wire
        if connection is None or wire is None:
            raise BrokerUnavailable(f"not connected to {self._address}")
        with translated("cannot open a channel"):
            # Not aiormq's own timeout: it stands on wait_for, which before Python 3.12 may swallow a cancellation.
            async with asyncio.timeout(RPC_TIMEOUT_S):
                channel = await connection.channel(publisher_confirms=confirms, on_return_raises=False)
        assert isinstance(channel, Channel)
        return channel, wire

    async def close(self) -> None:
        """End the connection; never raises and takes a few seconds at most."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(*CONNECTION_EXCEPTIONS):
                async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                    await connection.close()

    def _underlying(self) -> AbstractConnection | None:
        robust = self._connection
        if robust is None or robust.transport is None or not robust.connected.is_set():
            return None
        connection = robust.transport.connection
        return connection if connection.is_opened else None

    async def _connect(self) -> RobustConnection:
        connection = RobustConnection(
            self._url, client_properties=dict(self._properties), reconnect_interval=_RECONNECT_S
        )
        connection.kwargs["transport_factory"] = self._nodes
        with translated(f"cannot connect to {self._address}"):
            try:
                await connection.connect(timeout=self._timeout_s)
            except BaseException:
                await connection.close()
                raise
        return connection


class _Nodes(TransportFactory):
    """Connects to the nodes of a cluster in turn; each attempt begins behind the one tried last.

    Attributes:
        wire: Under the connection that was made last.
    """

    def __init__(self, address: RabbitMQAddress, timeout_s: float) -> None:
        self.wire: Wire | None = None
        self._nodes = address.nodes
        self._factory = TLSTransportFactory() if address.tls else TCPTransportFactory()
        self._timeout_s = timeout_s / len(address.nodes)
        self._tried = 0

    async def create(self, url: URL, **kwargs: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        failure: Exception = ConnectionError("no node to connect to")
        for _ in self._nodes:
            host, port = self._nodes[self._tried % len(self._nodes)]
            self._tried += 1
            try:
                async with asyncio.timeout(self._timeout_s):
                    reader, writer = await self._factory.create(url.with_host(host).with_port(port), **kwargs)
                self.wire = Wire(writer.transport)
                return reader, writer
            except OSError as error:  # aiormq's connection errors and TimeoutError are OSErrors as well
                failure = error
        raise failure


def connection_url(address: RabbitMQAddress, options: BrokerOptions) -> URL:
    """Return what ``aio_pika`` wants to know as an URL; the nodes beyond the first are not in it."""
    host, port = address.nodes[0]
    login = f"{quote(address.user, safe='')}:{quote(address.password, safe='')}"
    url = URL(
        f"{'amqps' if address.tls else 'amqp'}://{login}@{f'[{host}]' if ':' in host else host}:{port}"
        f"/{quote(address.vhost, safe='')}",
        encoded=True,
    )
    query = dict(address.parameters) | {"heartbeat": str(options.heartbeat_s)}
    return url.with_query(query if options.verify else query | {"no_verify_ssl": "1"})
