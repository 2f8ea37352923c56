"""The options of delivery and of its DNS look-ups."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from mtaq.config.addresses import HostPort, host, ip_addresses, nameservers, port, sink_host
from mtaq.config.mailboxes import mailbox
from mtaq.config.option import option
from mtaq.config.reception import Strictness
from mtaq.config.values import (
    DeliveryTimeouts,
    boolean,
    choice,
    credential,
    delivery_timeouts,
    exact_seconds,
    integer,
    mask_all,
    optional,
    seconds,
    seconds_list,
    seconds_or_zero,
    split,
)
from mtaq.model.dsn import Ret, parse_notify_words

Security = Literal["optional", "opportunistic", "required", "verified"]
_security: Callable[[str], Security] = choice("optional", "opportunistic", "required", "verified")
TlsPolicyName = Literal["dane", "mta-sts"]
_tls_policy: Callable[[str], TlsPolicyName] = choice("dane", "mta-sts")


def _tls_policies(text: str) -> tuple[TlsPolicyName, ...]:
    """Words separated by `,`, each once."""
    return tuple(dict.fromkeys(map(_tls_policy, split(text, ","))))


# One option is one paragraph here; the formatter would give every argument a line. option() stands for a field.
# fmt: off
# ruff: noqa: RUF009

@dataclass(frozen=True, kw_only=True)
class DeliverOptions:
    """Where mail goes, from which address, how often and how long it is tried."""

    smtp_default_ips: tuple[str, ...] = option(
        ip_addresses, "", words="the kernel chooses", unit="IP addresses, `;`", reload=True,
        aliases=("smtp-defaultips", "smtp-defaultip"), example="192.0.2.10;192.0.2.11",
        doc="Source addresses of messages that name none.")
    smtp_sink_address: str | None = option(
        sink_host, "", reload=True, aliases=("smtp-sink-ip",), example="127.0.0.1",
        doc="Test sink: queues and limits as always, each domain a site of its own, but every TCP connection goes to "
            "this host and no MX is looked up. Empty or `0.0.0.0`: off.")
    smtp_sink_port: int = option(port, "25", reload=True, doc="Port of the test sink.")
    smarthost: str | None = option(
        optional(host), "", reload=True, example="relay.example.com",
        doc="Host that gets everything instead of the recipients' MX hosts.")
    smarthost_port: int = option(port, "25", reload=True, doc="Port of the smarthost.")
    smarthost_username: str | None = option(
        optional(credential), "", reload=True, rfc="RFC 4954", example="mtaq",
        doc="User to log in as at the smarthost, by PLAIN or LOGIN and by TLS only.")
    smarthost_password: str | None = option(
        optional(credential), "", reload=True, secret=mask_all, example="change-me",
        doc="Its password; `MTAQ_SMARTHOST_PASSWORD_FILE` names a file that holds it.")
    smarthost_security: Security | None = option(
        optional(_security), "", words="that of the message",
        reload=True, rfc="RFC 3207", example="verified",
        doc="As `delivery-security`, for the smarthost; with a login it is `required` at least.")
    delivery_port: int = option(port, "25", reload=True, doc="Port of the recipients' MX hosts.")
    delivery_security: Security = option(
        _security, "opportunistic", reload=True,
        rfc="RFC 3207, RFC 7435",
        doc="`optional` does without STARTTLS. `opportunistic` uses it where it is offered, without verifying; "
            "a broken handshake is retried in plain text. `required` never sends in plain text. "
            "`verified` also checks the certificate against the name of the host.")
    delivery_tls_policies: tuple[TlsPolicyName, ...] = option(
        _tls_policies, "dane,mta-sts", unit="words, `,`", reload=True, rfc="RFC 7672, RFC 8461", example="mta-sts",
        doc="Policies of recipients' domains that may demand more than `delivery-security`, unless that is `optional`: "
            "`dane`, which takes `dns-trust-ad` as well, and `mta-sts`. Empty: nobody's.")
    tls_report_from: str | None = option(
        optional(lambda text: str(mailbox(text))), "", words="postmaster at our name", reload=True,
        rfc="RFC 8460 §5.3", example="tls-reports@example.com",
        doc="Address in the `From:` of reports on TLS, and for questions about them; its domain should sign with DKIM.")
    max_delivertime: int = option(
        seconds, "86400", unit="seconds", reload=True, aliases=("max-deliver-time",), rfc="RFC 5321 §4.5.4.1",
        doc="Time from the first pick-up until a message is given up.")
    max_attempts: int = option(
        integer(0, 1_000_000), "0", words="0 = unlimited", reload=True,
        doc="Attempts until a message is given up.")
    retry_interval: tuple[int, ...] = option(
        seconds_list, "600,600,1800,1800,3600,3600,7200", unit="seconds, `,`", reload=True, rfc="RFC 5321 §4.5.4.1",
        doc="Waits after the first, second, … transient failure; the last repeats.")
    retry_jitter: int = option(
        integer(0, 100), "10", unit="per cent", reload=True,
        doc="How far a wait may vary at random, so that deferred messages do not return in one wave.")
    validate_envelope: Strictness = option(
        choice("strict", "loose"), "strict", reload=True, rfc="RFC 5321 §4.1.2",
        doc="Syntax demanded of the reverse-path of an outbox message, as `smtp-validate-address`.")
    validate_recipient: Strictness = option(
        choice("strict", "loose"), "strict", reload=True, rfc="RFC 5321 §4.1.2",
        doc="Syntax demanded of the forward-path of an outbox message, as `smtp-validate-address`.")
    dsn_notify: tuple[str, ...] = option(
        parse_notify_words, "FAILURE", reload=True, rfc="RFC 3461 §4.1", example="FAILURE,DELAY",
        doc="Which notices a sender gets who asked for nothing: `NEVER`, or some of `FAILURE`, `DELAY` and `SUCCESS`. "
            "None are made without `rabbitmq-dsn`.")
    dsn_ret: Ret = option(
        choice("HDRS", "FULL"), "HDRS", reload=True, rfc="RFC 3461 §4.3",
        doc="How much of a message its notice returns when its sender did not say: the header section, or all of it. "
            "Of more than 1 MB it is the header section.")
    dsn_from: str | None = option(
        optional(lambda text: str(mailbox(text))), "", words="MAILER-DAEMON at our name", reload=True,
        rfc="RFC 3464 §2", example="postmaster@example.com",
        doc="Address in the `From:` of notices. Their reverse-path is always the null one.")
    dsn_delay_after: int = option(
        seconds, "14400", unit="seconds", reload=True, rfc="RFC 3461 §4.1",
        doc="How long a message has been tried when a sender who wants to know of delays is told, once.")
    idempotency_ttl: int = option(
        seconds, "86400", unit="seconds", reload=True,
        doc="How long another message with the same `idempotency-key` and recipient is not sent.")
    delivery_connections_per_site: int = option(
        integer(1, 100_000), "20", reload=True,
        doc="Connections open at once to one site, all domains with the same MX hosts, over all processes of the "
            "instance. A throttle of the runtime state takes its place.")
    delivery_messages_per_connection: int = option(
        integer(1, 1_000_000), "100", reload=True, doc="Messages sent over one connection before it is closed.")
    delivery_idle: int = option(
        seconds, "5", unit="seconds", reload=True, doc="How long a connection without work is kept open.")
    delivery_timeouts: DeliveryTimeouts = option(
        delivery_timeouts, "connect=30,banner=300,ehlo=300,tls=60,auth=60,mail=300,rcpt=300,data=120,block=180,dot=600",
        unit="phase=seconds, `,`", reload=True, rfc="RFC 5321 §4.5.3.2", example="connect=10,banner=60",
        doc="Longest waits for the peer, one per phase; what is not named keeps its default.")
    delivery_attempt_timeout: int = option(
        seconds, "1500", unit="seconds", reload=True,
        doc="Longest time for one attempt, further MX hosts included; what has been sent whole has the time of `dot` "
            "besides. Keep it below the broker's `consumer_timeout`, 1800 as RabbitMQ is installed.")
    delivery_allow_private: bool = option(
        boolean, "false", reload=True,
        doc="Whether an MX look-up may lead to loopback, private or own addresses. "
            "A smarthost or sink named here is always allowed.")


@dataclass(frozen=True, kw_only=True)
class DnsOptions:
    """Look-ups."""

    dns_nameserver: tuple[HostPort, ...] = option(
        nameservers, "", words="the system's", unit="IP addresses with optional port, `,`",
        example="192.0.2.53,[2001:db8::53]:5353", doc="Name servers to ask instead of those in /etc/resolv.conf.")
    dns_min_ttl: int = option(
        seconds_or_zero, "60", unit="seconds", doc="Shortest time an answer is kept; 0 keeps it as long as published.")
    dns_timeout: float = option(
        exact_seconds, "60", unit="seconds", doc="Longest wait for an answer, all attempts together.")
    dns_interval: float = option(
        exact_seconds, "3", unit="seconds", doc="Wait before a query is sent again.")
    dns_attempts: int = option(integer(1, 100), "5", doc="Queries sent before a look-up fails.")
    dns_capacity: int = option(integer(1, 100_000), "100", doc="Look-ups in flight at once, per process.")
    dns_rotate: bool = option(boolean, "true", doc="Spread queries over the name servers.")
    dns_trust_ad: bool = option(
        boolean, "false", rfc="RFC 6840 §5.8",
        doc="Believe the name servers when they say that DNSSEC proved an answer. DANE needs it. Right only for "
            "validating resolvers of your own, over a path that nobody else can write to: best on this host.")
