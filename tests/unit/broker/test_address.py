"""Reading rabbitmq-address."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtaq.broker.address import EmbeddedAddress, RabbitMQAddress, parse_addresses
from mtaq.broker.options import BrokerOptions
from mtaq.broker.rabbitmq.link import connection_url
from mtaq.model.errors import ConfigError


def _rabbitmq(text: str) -> RabbitMQAddress:
    address = parse_addresses(text)
    assert isinstance(address, RabbitMQAddress)
    return address


def test_default() -> None:
    """The default of the setting is guest on the local host."""
    assert _rabbitmq("amqp://guest:guest@localhost/") == RabbitMQAddress(
        nodes=(("localhost", 5672),), tls=False, user="guest", password="guest", vhost="/"
    )


def test_everything() -> None:
    """Scheme, login, port, vhost and parameters are read, percent-decoded."""
    address = _rabbitmq("amqps://m%40il:p%2Fw%2C%3A%20@mq.example.test:5999/a%2Fb?cafile=/etc/ca.pem")
    assert (address.tls, address.nodes) == (True, (("mq.example.test", 5999),))
    assert (address.user, address.password, address.vhost) == ("m@il", "p/w,: ", "a/b")
    assert address.parameters == (("cafile", "/etc/ca.pem"),)


@pytest.mark.parametrize(
    ("text", "node", "vhost"),
    [
        ("amqp://host", ("host", 5672), "/"),
        ("amqps://host/", ("host", 5671), "/"),
        ("amqp://host/%2F", ("host", 5672), "/"),
        ("amqp://host/mail", ("host", 5672), "mail"),
        ("amqp://[2001:db8::1]:1234/", ("2001:db8::1", 1234), "/"),
        ("AMQP://HOST/Mail", ("host", 5672), "Mail"),
    ],
)
def test_forms(text: str, node: tuple[str, int], vhost: str) -> None:
    """Port and vhost have defaults; addresses stand in brackets."""
    address = _rabbitmq(text)
    assert (address.nodes, address.vhost) == ((node,), vhost)


def test_several_nodes() -> None:
    """Commas separate the nodes of one cluster."""
    address = _rabbitmq("amqp://u:p@a/v, amqp://u:p@b:2/v,amqp://u:p@c/v")
    assert address.nodes == (("a", 5672), ("b", 2), ("c", 5672))


def test_embedded() -> None:
    """embedded:// names a folder."""
    assert parse_addresses("embedded:///var/lib/m%20q") == EmbeddedAddress(Path("/var/lib/m q"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "localhost",
        "http://u:s3cret@h/",
        "amqp://",
        "amqp://u:s3cret@/",
        "amqp://u:s3cret@h:port/",
        "amqp://u:s3cret@h:70000/",
        "amqp://u:s3cret@h:0/",
        "amqp://u:s3cret@[::1/",
        "amqp://u:s3cret@h/a/b",
        "amqp://u:s3cret@h/#fragment",
        "amqp://u:s3cret@h/,",
        "amqp://u:s3cret@h/,amqp://u:other@h2/",
        "amqp://u:s3cret@h/,amqps://u:s3cret@h2/",
        "amqp://u:s3,cret@h/",
        "embedded://relative/path",
        "embedded:path",
        "embedded:///a,embedded:///b",
        "embedded:///a,amqp://u:s3cret@h/",
    ],
)
def test_mistakes(text: str) -> None:
    """Anything else is a ConfigError that names the key and tells no password."""
    with pytest.raises(ConfigError) as refused:
        parse_addresses(text)
    assert refused.value.key == "rabbitmq-address"
    assert "s3" not in str(refused.value)


def test_password_is_not_shown() -> None:
    """Neither str nor repr of an address contains its password."""
    address = _rabbitmq("amqp://user:s3cret@h/v")
    assert "s3cret" not in repr(address) + str(address)
    assert str(address) == "amqp://h:5672/v"


@given(st.text(max_size=60))
def test_any_text(text: str) -> None:
    """Any text is an address or a ConfigError."""
    with contextlib.suppress(ConfigError):
        parse_addresses(text)


@pytest.mark.parametrize("odd", ["pässword", "a b%/:@?#[]&=+,", "%2F", "/", "x"])
def test_connection_url(odd: str) -> None:
    """User, password and vhost reach the client library as they are meant, whatever characters they have."""
    address = RabbitMQAddress(
        nodes=(("::1", 5672),), tls=True, user=odd, password=odd, vhost=f"v{odd.replace('%', '')}"
    )
    url = connection_url(address, BrokerOptions(addresses=address, verify=False, heartbeat_s=7))
    assert (url.scheme, url.host, url.port, url.user, url.password) == ("amqps", "::1", 5672, odd, odd)
    assert url.path[1:].replace("%2F", "/") == address.vhost
    assert dict(url.query) == {"heartbeat": "7", "no_verify_ssl": "1"}
