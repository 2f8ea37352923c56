"""Where the queues are: ``rabbitmq-address``, read.

Decides nothing else; who connects, and how, is the adapters' work. A mistake is a ``ConfigError`` whose text never
repeats the address, because the password stands in it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from mtaq.model.errors import ConfigError

_KEY = "rabbitmq-address"
_DEFAULT_PORTS = {"amqp": 5672, "amqps": 5671}
_EXPECTED = "expected amqp://user:password@host:port/vhost, amqps://… or embedded:///path/to/folder"


@dataclass(frozen=True, slots=True, kw_only=True)
class RabbitMQAddress:
    """One RabbitMQ cluster.

    Attributes:
        nodes: Host and port of each node, in the order they are tried; never empty.
        tls: Is every connection TLS from its first byte (``amqps``)?
        user: Login name.
        password: Its password; left out of ``repr`` and ``str``.
        vhost: Virtual host, ``/`` unless named.
        parameters: What followed ``?``, for the client library (``cafile``, ``certfile``, ``keyfile``).
    """

    nodes: tuple[tuple[str, int], ...]
    tls: bool
    user: str
    password: str = field(repr=False)
    vhost: str = "/"
    parameters: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        scheme = "amqps" if self.tls else "amqp"
        hosts = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.nodes)
        return f"{scheme}://{hosts}{'' if self.vhost == '/' else '/' + self.vhost}"


@dataclass(frozen=True, slots=True)
class EmbeddedAddress:
    """The built-in queue of a single host.

    Attributes:
        path: Its folder; absolute.
    """

    path: Path

    def __str__(self) -> str:
        return f"embedded://{self.path}"


BrokerAddress = RabbitMQAddress | EmbeddedAddress


def parse_addresses(text: str) -> BrokerAddress:
    """Read the value of ``rabbitmq-address``: one address, or the nodes of one cluster separated by commas.

    User, password and vhost are percent-decoded; a comma inside them is written ``%2C``.

    Raises:
        ConfigError: Not such an address, or nodes that differ in more than host and port.
    """
    parts = [part.strip() for part in text.split(",")]
    if parts[0].startswith("embedded:"):
        return _embedded(parts)
    clusters = [_cluster(part, position) for position, part in enumerate(parts, 1)]
    first = clusters[0]
    for position, other in enumerate(clusters[1:], 2):
        if _login(other) != _login(first):
            raise _mistake("nodes of one cluster differ only in host and port", position)
    return RabbitMQAddress(
        nodes=tuple(node for cluster in clusters for node in cluster.nodes),
        tls=first.tls,
        user=first.user,
        password=first.password,
        vhost=first.vhost,
        parameters=first.parameters,
    )


def _embedded(parts: list[str]) -> EmbeddedAddress:
    if len(parts) > 1:
        raise _mistake("the embedded queue stands alone, it has no other nodes", 2)
    split = _split(parts[0], 1)
    if split.netloc or not split.path.startswith("/") or split.query or split.fragment:
        raise _mistake("expected embedded:///path/to/folder, with three slashes", 1)
    return EmbeddedAddress(Path(unquote(split.path)))


def _cluster(text: str, position: int) -> RabbitMQAddress:
    split = _split(text, position)
    if split.scheme not in _DEFAULT_PORTS or not split.hostname or split.fragment:
        raise _mistake(_EXPECTED, position)
    if "/" in split.path[1:]:
        raise _mistake("a slash inside the name of a virtual host is written %2F", position)
    return RabbitMQAddress(
        nodes=((split.hostname, _port(split, position)),),
        tls=split.scheme == "amqps",
        user=unquote(split.username) if split.username is not None else "guest",
        password=unquote(split.password) if split.password is not None else "guest",
        vhost=unquote(split.path[1:]) or "/",
        parameters=tuple(parse_qsl(split.query, keep_blank_values=True)),
    )


def _split(text: str, position: int) -> SplitResult:
    try:
        return urlsplit(text)
    except ValueError:
        raise _mistake(_EXPECTED, position) from None


def _port(split: SplitResult, position: int) -> int:
    try:
        port = split.port
    except ValueError:
        raise _mistake("the port is not a number from 1 to 65535", position) from None
    if port == 0:
        raise _mistake("the port is not a number from 1 to 65535", position)
    return port if port is not None else _DEFAULT_PORTS[split.scheme]


def _login(address: RabbitMQAddress) -> tuple[object, ...]:
    return (address.tls, address.user, address.password, address.vhost, address.parameters)


def _mistake(problem: str, position: int) -> ConfigError:
    where = f"address {position}: " if position > 1 else ""
    return ConfigError(where + problem, key=_KEY)
