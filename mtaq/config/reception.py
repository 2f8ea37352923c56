"""The options of accepting mail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from mtaq.config.addresses import ip_addresses, mappable_ranges, ports, ranges, smtp_name
from mtaq.config.option import option
from mtaq.config.ranges import Ranges
from mtaq.config.values import absolute_path, boolean, byte_count, choice, integer, optional, seconds

Strictness = Literal["strict", "loose"]
Relay = Literal["range", "none"]

_relay_word: Callable[[str], Relay] = choice("range", "none")


def relay(text: str) -> Relay:
    """For whom mail is relayed; MailerQ's operators may expect logins here, so say that there are none."""
    if text.lower() == "authenticated":
        raise ValueError("'authenticated' needs logins, which this version does not have; expected range or none")
    return _relay_word(text)


# One option is one paragraph here; the formatter would give every argument a line. option() stands for a field.
# fmt: off
# ruff: noqa: RUF009

@dataclass(frozen=True, kw_only=True)
class ListenOptions:
    """Where connections are accepted."""

    smtp_ip: tuple[str, ...] = option(
        ip_addresses, "", words="all addresses", unit="IP addresses, `;`", example="192.0.2.10;2001:db8::10",
        doc="Local IP addresses to listen on, IPv4 and IPv6.")
    smtp_port: tuple[int, ...] = option(
        ports, "25", unit="ports and ranges, `,`", example="25,2525,1024-1026",
        doc="Ports where a session starts in plain text; STARTTLS is offered when a certificate is set. "
            "Empty opens none.")
    smtp_secure_port: tuple[int, ...] = option(
        ports, "", unit="ports and ranges, `,`", rfc="RFC 8314 §3.3", example="465",
        doc="Ports where TLS is spoken from the first byte; needs `smtp-certificate` and `smtp-key`.")
    smtp_connections: int = option(
        integer(1, 1_000_000), "1000",
        doc="Connections open at once, from clients and to mail hosts together, over all processes of the instance.")
    smtp_connections_in: int | None = option(
        optional(integer(1, 1_000_000)), "", words="`smtp-connections`", example="750",
        doc="Of these, connections from clients. What one side's cap leaves free is the other's reserve.")
    smtp_connections_out: int | None = option(
        optional(integer(1, 1_000_000)), "", words="`smtp-connections`", example="750",
        doc="Of these, connections to mail hosts. Mail beyond it waits for a connection to become free.")
    smtp_connections_wait: int = option(
        integer(0, 300), "5", unit="seconds",
        doc="How long a client beyond these caps is left waiting before it is told `421 4.7.0`.")
    smtp_memory: int = option(
        byte_count, "256MB", unit="bytes",
        doc="Content held in memory by reception, divided evenly among its processes. Beyond it new content waits, "
            "and is told `452 4.3.1` when that takes too long.")


@dataclass(frozen=True, kw_only=True)
class ReceiveOptions:
    """Sessions, access and size limits of one port.

    The source address rules stand here as well, because reception writes the mapped address into the message.
    """

    smtp_hostname: str | None = option(
        optional(smtp_name), "", per_port=True, reload=True, rfc="RFC 5321 §4.3.1", example="mail.example.com",
        words="reverse DNS of the local IP, then the system's name",
        doc="Name in the banner, the reply to EHLO and the Received field.")
    smtp_range: Ranges = option(
        ranges, "", words="nobody", unit="networks, `;`", per_port=True, reload=True, aliases=("smtp-ranges",),
        example="127.0.0.0/8;192.168.0.0/16",
        doc="Who may connect. Others get `554 5.7.1` and the connection is closed. Empty: nobody.")
    smtp_proxy: Ranges = option(
        ranges, "", words="nobody", unit="networks, `;`", reload=True, example="192.0.2.5",
        doc="Proxies that begin every connection with a PROXY header, version 1 or 2. The addresses in it then count "
            "everywhere: for `smtp-range`, limits, mapping, logs and JSON. Whoever of them sends none is closed; "
            "from everybody else such a header is bad SMTP.")
    smtp_connections_per_ip: int = option(
        integer(1, 1_000_000), "100", per_port=True, reload=True,
        doc="Connections from one client address, over all ports and processes; an IPv6 /64 counts as one. More get "
            "`421 4.7.0`.")
    smtp_rate_per_ip: int | None = option(
        optional(integer(1, 1_000_000)), "", words="unlimited", per_port=True, reload=True, example="600",
        doc="Messages from one client address in any 60 seconds, over all ports and processes; an IPv6 /64 counts as "
            "one. They may come all at once; more get `450 4.7.1`.")
    smtp_certificate: str | None = option(
        optional(absolute_path), "", per_port=True, rfc="RFC 3207", example="/etc/mtaq/mail.example.com.pem",
        doc="PEM file with the certificate and its chain. A renewed file is read by `mtaq reload`; "
            "another path needs a restart.")
    smtp_key: str | None = option(
        optional(absolute_path), "", per_port=True, aliases=("smtp-privatekey",),
        example="/etc/mtaq/mail.example.com.key",
        doc="PEM file with the private key of `smtp-certificate`, without a pass phrase.")
    smtp_enabled: bool = option(
        boolean, "true", per_port=True,
        doc="`false` closes the port without touching the others: `smtp-enabled@2525: false`.")
    smtp_relay: Relay = option(
        relay, "range", per_port=True, reload=True,
        doc="For whom mail is taken: `range` for everybody in `smtp-range`, `none` for nobody (`550 5.7.1`).")
    smtp_validate_address: Strictness = option(
        choice("strict", "loose"), "strict", per_port=True, reload=True, rfc="RFC 5321 §4.1.2, RFC 6531 §3.3",
        doc="Syntax demanded of envelope addresses. `loose` takes any local-part, one `@` and a valid domain; "
            "control characters, `<` and `>` are refused in both.")
    smtp_maxsize: int = option(
        byte_count, "100MB", unit="bytes", per_port=True, reload=True, rfc="RFC 1870",
        doc="Largest content accepted, announced with SIZE; more gets `552 5.3.4`. "
            "What `rabbitmq-maxsize` cannot hold once encoded is not announced either.")
    smtp_max_recipients: int = option(
        integer(1, 1_000_000), "1000", per_port=True, reload=True, rfc="RFC 5321 §4.5.3.1.8",
        doc="Recipients of one mail transaction; more get `452 4.5.3`.")
    smtp_timeout: int = option(
        seconds, "300", unit="seconds", per_port=True, reload=True, rfc="RFC 5321 §4.5.3.2.7",
        doc="Longest silence inside a session before `421 4.4.2` is sent.")
    smtp_session_timeout: int = option(
        seconds, "3600", unit="seconds", per_port=True, reload=True,
        doc="Longest duration of a session, so that one that trickles ends as well.")
    smtp_max_hops: int = option(
        integer(1, 1000), "50", reload=True, rfc="RFC 5321 §6.3",
        doc="Received fields in a message; more is taken for a loop and gets `554 5.4.6`.")
    smtp_mappable_ips: Ranges = option(
        mappable_ranges, "non-loopback", unit="networks, `;`", reload=True,
        example="192.0.2.0/24;2001:db8::/64",
        doc="Mail accepted on a local IP address in one of these leaves from that address; it is written into the "
            "message's `ips`. `non-loopback` stands for every address but 127.0.0.0/8 and ::1; empty maps none. "
            "A process that cannot bind the address uses `smtp-default-ips` and logs it.")
    smtp_unmappable_ips: Ranges = option(
        ranges, "", unit="networks, `;`", reload=True, example="192.0.2.28",
        doc="Exceptions from `smtp-mappable-ips`.")
