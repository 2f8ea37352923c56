"""Value types that name places: IP addresses, ranges of them, ports, hosts, the broker.

Syntax only; nothing is looked up or opened. A parser raises ``ValueError`` saying what is wrong and what is expected;
those of values that may hold a password never repeat the value.
"""

from __future__ import annotations

import re
from ipaddress import ip_network
from typing import NamedTuple
from urllib.parse import SplitResult, parse_qsl, urlsplit

from mtaq.config.ranges import EVERYTHING, LOOPBACK, Network, Ranges, plain_address, plain_network
from mtaq.config.values import integer, split

_port = integer(1, 65535)
_BROKER_PARAMETERS = ("cafile", "certfile", "keyfile")
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?", re.ASCII)


class HostPort(NamedTuple):
    """A host, by IP address or name, without brackets; and a TCP or UDP port."""

    host: str
    port: int


def port(text: str) -> int:
    """One port, 1-65535."""
    return _port(text)


def ports(text: str) -> tuple[int, ...]:
    """Ports and ranges, ``25,2525,1024-1026``, in the order written, each once."""
    found: list[int] = []
    for item in split(text, ","):
        first, dash, last = (part.strip() for part in item.partition("-"))
        low, high = _port(first), _port(last if dash else first)
        if low > high:
            raise ValueError(f"{item!r} runs backwards; expected {high}-{low}")
        found.extend(range(low, high + 1))
    return tuple(dict.fromkeys(found))


def ip_addresses(text: str) -> tuple[str, ...]:
    """IP addresses separated by ``;``, each in its canonical text (RFC 5952)."""
    return tuple(dict.fromkeys(_ip_text(item) for item in split(text, ";")))


def _ip_text(text: str) -> str:
    try:
        return str(plain_address(_without_brackets(text)))
    except ValueError:
        raise ValueError(f"{text!r} is not an IP address; expected addresses separated by ;") from None


def ranges(text: str) -> Ranges:
    """Networks in CIDR notation or single addresses, separated by ``;``; empty holds nobody."""
    return Ranges(_network(item) for item in split(text, ";"))


def mappable_ranges(text: str) -> Ranges:
    """As ``ranges``, or the word ``non-loopback`` for every address that leaves this host."""
    return Ranges(EVERYTHING, excluding=LOOPBACK) if text == "non-loopback" else ranges(text)


def _network(text: str) -> Network:
    try:
        return plain_network(text)
    except ValueError:
        try:
            meant = ip_network(text, strict=False)
        except ValueError:
            raise ValueError(f"{text!r} is not a network; expected CIDR like 192.0.2.0/24, separated by ;") from None
        raise ValueError(f"{text!r} has bits set behind its prefix; expected {meant}") from None


def host(text: str) -> str:
    """A host name or an IP address, without brackets."""
    bare = _without_brackets(text)
    try:
        return str(plain_address(bare))
    except ValueError:
        if len(bare) > 253 or not _HOST_NAME.fullmatch(bare) or re.fullmatch("[0-9.]+", bare):
            raise ValueError(f"{text!r} is not a host; expected a host name or an IP address") from None
        return bare.rstrip(".").lower()


def sink_host(text: str) -> str | None:
    """As ``host``; empty and MailerQ's ``0.0.0.0`` mean none."""
    return host(text) if text not in ("", "0.0.0.0") else None  # noqa: S104 - compared with, not bound to


def smtp_name(text: str) -> str:
    """A name for the banner and EHLO: a domain or an address literal like ``[192.0.2.1]`` (RFC 5321 §4.1.3)."""
    if text.startswith("[") and text.endswith("]"):
        tag, address = ("IPv6:", text[6:-1]) if text[1:6].lower() == "ipv6:" else ("", text[1:-1])
        try:
            found = plain_address(address)
        except ValueError:
            raise ValueError(
                f"{text!r} is not an address literal; expected [192.0.2.1] or [IPv6:2001:db8::1]"
            ) from None
        if (found.version == 6) == bool(tag):
            return f"[{tag}{found}]"
    elif len(text) <= 253 and _HOST_NAME.fullmatch(text) and not re.fullmatch("[0-9.]+", text):
        return text.rstrip(".").lower()
    raise ValueError(f"{text!r} is not a host name; expected one like mail.example.com, or [192.0.2.1]")


def nameservers(text: str) -> tuple[HostPort, ...]:
    """Name servers separated by ``,``: an IP address, with a port if it is not 53."""
    found = []
    for item in split(text, ","):
        server = _host_port(item, default_port=53)
        try:
            found.append(HostPort(str(plain_address(server.host)), server.port))
        except ValueError:
            raise ValueError(
                f"{item!r} is not an IP address; expected like 192.0.2.1, 192.0.2.1:5353, [::1]:53"
            ) from None
    return tuple(found)


def listen_address(text: str) -> HostPort:
    """``[host:]port`` with an IP address; without a host only this machine may connect."""
    host_text, colon, port_text = text.rpartition(":")
    if not colon:
        return HostPort("127.0.0.1", _port(text))
    return HostPort(_ip_text(host_text), _port(port_text))


def _host_port(text: str, *, default_port: int) -> HostPort:
    bracketed = re.fullmatch(r"\[([^\]]*)\](?::([0-9]+))?", text)
    if bracketed:
        return HostPort(bracketed[1], _port(bracketed[2]) if bracketed[2] else default_port)
    if text.count(":") == 1:
        host_text, _, port_text = text.partition(":")
        return HostPort(host_text, _port(port_text))
    return HostPort(text, default_port)


def _without_brackets(text: str) -> str:
    return text[1:-1] if text.startswith("[") and text.endswith("]") else text


def broker_addresses(text: str) -> tuple[str, ...]:
    """Nodes of one RabbitMQ cluster, ``amqp(s)://user:password@host:port/vhost``, or one ``embedded:///folder``.

    Raises:
        ValueError: What is expected; the value itself is never repeated, it may hold a password.
    """
    found = split(text, ",")
    if not found:
        raise ValueError("no address given; expected amqp://user:password@host/vhost or embedded:///folder")
    for number, address in enumerate(found, start=1):
        try:
            _check_broker_address(address)
        except ValueError as error:
            which = f"address {number} of {len(found)}: " if len(found) > 1 else ""
            raise ValueError(f"{which}{error}") from None
    if len(found) > 1 and any(address.startswith("embedded:") for address in found):
        raise ValueError("the embedded queue stands alone; expected one embedded:///folder, or amqp addresses only")
    if len({_but_host_and_port(address) for address in found}) > 1:
        raise ValueError("the nodes of one cluster differ only in host and port; expected the rest to be the same")
    return tuple(found)


def _but_host_and_port(address: str) -> tuple[str, str, str, str]:
    parts = urlsplit(address)
    return parts.scheme, parts.netloc.rpartition("@")[0], parts.path.strip("/"), parts.query


def _check_broker_address(address: str) -> None:
    try:
        parts = urlsplit(address)
        has_port = parts.port != 0
    except ValueError:
        raise ValueError(
            "not a URL with a port from 1 to 65535; expected amqp://user:password@host:5672/vhost"
        ) from None
    if parts.scheme == "embedded":
        _check_embedded(address, parts)
    elif parts.scheme not in ("amqp", "amqps"):
        raise ValueError("unknown form; expected amqp://, amqps:// or embedded:/// (a comma in a password is %2C)")
    elif not parts.hostname or not has_port or "/" in parts.path[1:] or parts.fragment:
        raise ValueError("expected amqp://user:password@host:port/vhost (elsewhere, / is %2F, ? is %3F, # is %23)")
    elif any(name not in _BROKER_PARAMETERS for name, _ in parse_qsl(parts.query, keep_blank_values=True)):
        raise ValueError("unknown parameter behind the ?; expected cafile, certfile or keyfile (elsewhere, ? is %3F)")


def _check_embedded(address: str, parts: SplitResult) -> None:
    if not address.startswith("embedded:///") or parts.path in ("", "/") or parts.query or parts.fragment:
        raise ValueError(
            "a folder is missing; expected embedded:/// and an absolute path: embedded:///var/lib/mtaq/queue"
        )


def mask_urls(text: str) -> str:
    """Hide the passwords in a list of URLs; a text without the form of a URL is hidden whole."""
    return ",".join(_mask_url(item) for item in split(text, ","))


def _mask_url(text: str) -> str:
    scheme, slashes, rest = text.partition("://")
    credentials, at, place = rest.rpartition("@")
    if not slashes:
        return "***"
    user, colon, _ = credentials.partition(":")
    return f"{scheme}://{user}{colon}{'***' if colon else ''}{at}{place}"
