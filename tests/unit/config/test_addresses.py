"""Values that name places."""

from __future__ import annotations

import pytest

from mtaq.config import addresses
from mtaq.config.addresses import HostPort


@pytest.mark.parametrize(
    ("parser", "text", "value"),
    [
        (addresses.ports, "25,2525,1024-1026", (25, 2525, 1024, 1025, 1026)),
        (addresses.ports, "25, 25", (25,)),
        (addresses.ports, "", ()),
        (addresses.ip_addresses, "192.0.2.1; 2001:DB8:0::1 ;", ("192.0.2.1", "2001:db8::1")),
        (addresses.ip_addresses, "::ffff:192.0.2.1", ("192.0.2.1",)),
        (addresses.ip_addresses, "[::1]", ("::1",)),
        (addresses.host, "Relay.Example.COM.", "relay.example.com"),
        (addresses.host, "[2001:db8::1]", "2001:db8::1"),
        (addresses.host, "rabbit_1", "rabbit_1"),
        (addresses.sink_host, "0.0.0.0", None),
        (addresses.sink_host, "sink", "sink"),
        (addresses.smtp_name, "Mail.Example.com", "mail.example.com"),
        (addresses.smtp_name, "[192.0.2.1]", "[192.0.2.1]"),
        (addresses.smtp_name, "[ipv6:2001:DB8::1]", "[IPv6:2001:db8::1]"),
        (addresses.nameservers, "192.0.2.53", (HostPort("192.0.2.53", 53),)),
        (
            addresses.nameservers,
            "127.0.0.1:5353, [2001:db8::53]:54, 2001:db8::54",
            (HostPort("127.0.0.1", 5353), HostPort("2001:db8::53", 54), HostPort("2001:db8::54", 53)),
        ),
        (addresses.listen_address, "9100", HostPort("127.0.0.1", 9100)),
        (addresses.listen_address, "0.0.0.0:9100", HostPort("0.0.0.0", 9100)),
        (addresses.listen_address, "[::]:9100", HostPort("::", 9100)),
        (addresses.broker_addresses, "embedded:///var/lib/mtaq/queue", ("embedded:///var/lib/mtaq/queue",)),
        (
            addresses.broker_addresses,
            "amqps://a:b%2Cc@one:5673/mail?cafile=/ca.pem, amqps://a:b%2Cc@two/mail?cafile=/ca.pem",
            ("amqps://a:b%2Cc@one:5673/mail?cafile=/ca.pem", "amqps://a:b%2Cc@two/mail?cafile=/ca.pem"),
        ),
    ],
)
def test_accepts(parser, text, value):
    """A place written in any documented form is understood."""
    assert parser(text) == value


@pytest.mark.parametrize(
    ("parser", "text"),
    [
        (addresses.ports, "0"),
        (addresses.ports, "65536"),
        (addresses.ports, "30-20"),
        (addresses.ports, "25;26"),
        (addresses.ports, "smtp"),
        (addresses.ip_addresses, "localhost"),
        (addresses.ip_addresses, "192.0.2.1,192.0.2.2"),
        (addresses.ranges, "192.0.2.0/33"),
        (addresses.ranges, "10.0.0.0/8,11.0.0.0/8"),
        (addresses.ranges, "nobody"),
        (addresses.mappable_ranges, "loopback"),
        (addresses.host, "two words"),
        (addresses.host, "192.0.2.300"),
        (addresses.host, "-x.example"),
        (addresses.smtp_name, "192.0.2.1"),
        (addresses.smtp_name, "[2001:db8::1]"),
        (addresses.smtp_name, "[IPv6:192.0.2.1]"),
        (addresses.smtp_name, "mail example"),
        (addresses.nameservers, "dns.example.com"),
        (addresses.nameservers, "192.0.2.1:0"),
        (addresses.listen_address, "9100:127.0.0.1"),
        (addresses.listen_address, ":9100"),
    ],
)
def test_refuses_and_says_what_is_expected(parser, text):
    """A place of the wrong form is refused with words that say what is expected."""
    with pytest.raises(ValueError, match="expected"):
        parser(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "amqp://u:hunter2@",
        "ampq://u:hunter2@host/",
        "amqp://u:hunter2@host:0/",
        "amqp://u:hunter2@host:99999/",
        "amqp://u:hunter2@host:port/",
        "amqp://u:hunter2#x@host/",
        "amqp://u:hunter2?x@host/",
        "amqp://u:hunter2,x@host/",
        "amqp://u:hunter2@[::1/",
        "amqp://u@host/?password=hunter2",
        "amqp://u@host/hunter2/x",
        "amqp://u:hunter2@one/,amqp://u:other@two/",
        "amqp://u:hunter2@one/,amqps://u:hunter2@two/",
        "amqp://u:hunter2@one/a,amqp://u:hunter2@two/b",
        "embedded://relative/hunter2",
        "embedded:/hunter2",
        "embedded:hunter2",
        "embedded:///",
        "embedded:///hunter2?x=1",
        "embedded:///hunter2,amqp://host/",
    ],
)
def test_broker_address_of_the_wrong_form_is_refused_without_repeating_it(text):
    """What is wrong with a broker's address is said without printing what may be its password."""
    with pytest.raises(ValueError, match="expected") as caught:
        addresses.broker_addresses(text)
    assert "hunter2" not in str(caught.value)


def test_host_bits_are_refused_with_the_network_that_was_meant():
    """A network with bits behind its prefix is refused, and the message names the right one."""
    with pytest.raises(ValueError, match=r"192\.0\.2\.0/24"):
        addresses.ranges("192.0.2.7/24")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("amqp://mtaq:hunter2@host/vhost", "amqp://mtaq:***@host/vhost"),
        ("amqp://mtaq@host/", "amqp://mtaq@host/"),
        ("amqps://host", "amqps://host"),
        ("amqp://a:hunter2@one,amqp://a:hunter2@two", "amqp://a:***@one,amqp://a:***@two"),
        ("amqp://a:hun@ter2@one", "amqp://a:***@one"),
        ("hunter2", "***"),
    ],
)
def test_masks_passwords(text, shown):
    """Passwords in URLs are masked, user and place stay."""
    assert addresses.mask_urls(text) == shown
