"""The options of accepting mail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from mtaq.config.addresses import host, ip_addresses, mappable_ranges, port, ports, ranges, smtp_name
from mtaq.config.hooks import HookTarget, Step, hook, hook_timeout, mask_hooks, pipeline
from mtaq.config.logins import Login, logins, mask_logins
from mtaq.config.mailboxes import Archive, archive, cipher_string, reverse_paths, tags
from mtaq.config.message_checks import Check, Recipients, Reject, auth_results, checks, filter_address, rejects
from mtaq.config.option import option
from mtaq.config.ranges import Ranges
from mtaq.config.values import (
    absolute_path,
    boolean,
    byte_count,
    choice,
    integer,
    optional,
    seconds,
    seconds_or_zero,
)
from mtaq.model.address import Address

Strictness = Literal["strict", "loose"]
TlsFloor = Literal["1.2", "1.3"]
DomainDemand = Literal["any", "qualified", "resolvable"]
Relay = Literal["authenticated", "range", "none"]
Extract = Literal["true", "false", "trusted"]
Parse = Literal["none", "headers", "full"]

_relay: Callable[[str], Relay] = choice("authenticated", "range", "none")


def extract(text: str) -> Extract:
    """``true``, ``false`` (or any other spelling of a boolean), or ``trusted``."""
    if text.lower() == "trusted":
        return "trusted"
    try:
        return "true" if boolean(text) else "false"
    except ValueError:
        raise ValueError(f"{text!r} is not known here; expected true, false or trusted") from None


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
        doc="PEM file with the certificate and its chain. A renewed file is read within a second; another path needs "
            "a restart.")
    smtp_key: str | None = option(
        optional(absolute_path), "", per_port=True, aliases=("smtp-privatekey",),
        example="/etc/mtaq/mail.example.com.key",
        doc="PEM file with the private key of `smtp-certificate`, without a pass phrase.")
    smtp_ciphers: str | None = option(
        optional(cipher_string), "", per_port=True, reload=True, words="OpenSSL's default",
        example="ECDHE+AESGCM:ECDHE+CHACHA20",
        doc="OpenSSL cipher string for TLS 1.2. The ciphers of TLS 1.3 are all good, and are not chosen by it.")
    smtp_tls_min: TlsFloor = option(
        choice("1.2", "1.3"), "1.2", per_port=True, reload=True, rfc="RFC 8996",
        doc="Oldest version of TLS spoken.")
    smtp_tls_client_ca: str | None = option(
        optional(absolute_path), "", per_port=True, reload=True, rfc="RFC 8446 §4.3.2",
        example="/etc/mtaq/clients-ca.pem",
        doc="PEM file of certificate authorities. Clients are asked for a certificate, and one signed by these counts "
            "as login; without one they may go on, with one of another authority the handshake fails. Re-read like "
            "`smtp-certificate`.")
    smtp_auth: tuple[Login, ...] = option(
        logins, "", unit="one or several forms, blanks between, asked in order", per_port=True, reload=True,
        secret=mask_logins, rfc="RFC 4954", example="file:///etc/mtaq/users",
        doc="Who may log in: `hardcoded://user:password,…`, `file:///path`, `exec:///path`, `http(s)://host/path`, "
            "`ldap(s)://host:port/base_dn`, `radius://identifier:secret@host:port`, `users://name,pattern*`. Only "
            "announced and taken under TLS, so that the port needs a certificate.")
    smtp_auth_failures: int = option(
        integer(1, 1_000_000), "5", reload=True,
        doc="Failed logins from one client address within 10 minutes before it is refused for 10 minutes.")
    smtp_enabled: bool = option(
        boolean, "true", per_port=True,
        doc="`false` closes the port without touching the others: `smtp-enabled@2525: false`.")
    smtp_relay: Relay | None = option(
        optional(_relay), "", per_port=True, reload=True,
        words="`authenticated` where `smtp-auth` is set, else `range`",
        doc="For whom mail to other than local addresses is taken: `authenticated` for who has logged in (others get "
            "`530 5.7.0`), `range` for everybody in `smtp-range`, `none` for nobody (`550 5.7.1`).")
    smtp_validate_address: Strictness = option(
        choice("strict", "loose"), "strict", per_port=True, reload=True, rfc="RFC 5321 §4.1.2, RFC 6531 §3.3",
        doc="Syntax demanded of envelope addresses. `loose` takes any local-part, one `@` and a valid domain; "
            "control characters, `<` and `>` are refused in both.")
    smtp_sender_domain: DomainDemand = option(
        choice("any", "qualified", "resolvable"), "qualified", per_port=True, reload=True, rfc="RFC 5321 §2.3.5",
        doc="What is demanded of the domain of the reverse-path: `any` nothing, `qualified` that there is one "
            "(`postmaster` alone excepted), `resolvable` that it has MX, A or AAAA records (`550 5.1.8`, and "
            "`451 4.4.3` while DNS does not answer).")
    smtp_recipient_domain: DomainDemand = option(
        choice("any", "qualified", "resolvable"), "qualified", per_port=True, reload=True, rfc="RFC 5321 §2.3.5",
        doc="The same of forward-paths (`550 5.1.2`).")
    smtp_probe_senders: tuple[Address, ...] = option(
        reverse_paths, "", unit="addresses, `;`", reload=True, example="double-bounce@relay.example.com",
        doc="Reverse-paths of servers that only ask whether an address exists: RCPT is answered as always, DATA "
            "with `554 5.7.1`.")
    smtp_maxsize: int = option(
        byte_count, "100MB", unit="bytes", per_port=True, reload=True, rfc="RFC 1870",
        doc="Largest content accepted, announced with SIZE; more gets `552 5.3.4`. "
            "What `rabbitmq-maxsize` cannot hold once encoded is not announced either.")
    smtp_max_recipients: int = option(
        integer(1, 1_000_000), "1000", per_port=True, reload=True, rfc="RFC 5321 §4.5.3.1.8",
        doc="Recipients of one mail transaction; more get `452 4.5.3`.")
    smtp_protection: bool = option(
        boolean, "true", per_port=True, reload=True,
        doc="Refuse clients on the blocked list (`mtaq block`) with `554 5.7.1`, and let it grow by itself: failed "
            "logins (`smtp-auth-failures`) and repeated abuse of the protocol block a client for ten minutes.")
    smtp_timeout: int = option(
        seconds, "300", unit="seconds", per_port=True, reload=True, rfc="RFC 5321 §4.5.3.2.7",
        doc="Longest silence inside a session before `421 4.4.2` is sent.")
    smtp_session_timeout: int = option(
        seconds, "3600", unit="seconds", per_port=True, reload=True,
        doc="Longest duration of a session, so that one that trickles ends as well.")
    smtp_greeting_delay: int = option(
        seconds_or_zero, "0", unit="seconds", per_port=True, reload=True, rfc="RFC 5321 §4.3.1", example="2",
        doc="How long clients wait for their greeting, so that those that speak before it show themselves; they get "
            "`554 5.5.1`. Never under `smtp-secure-port` nor behind a proxy. With 0 only those are refused that have "
            "spoken by the time they are accepted.")
    smtp_max_hops: int = option(
        integer(1, 1000), "50", reload=True, rfc="RFC 5321 §6.3",
        doc="Received fields in a message; more is taken for a loop and gets `554 5.4.6`.")
    smtp_tags: tuple[str, ...] = option(
        tags, "", unit="words, `,`", per_port=True, reload=True, example="newsletter,customer-9",
        doc="Tags put on each message received.")
    smtp_archive: Archive | None = option(
        optional(archive), "", per_port=True, example="journal@archive.example.com",
        doc="Gets a copy of every message accepted. A name with `@` is an address: one more recipient, without "
            "notices. Any other is a queue: it gets the JSON of each recipient.")
    smtp_extract: Extract = option(
        extract, "true", per_port=True, reload=True, example="trusted",
        doc="What is done with `x-mq-*` header fields. `true`: they become properties of the JSON and leave the "
            "content. `trusted`: only for clients that logged in and for those in `smtp-extract-range`; from others "
            "they are taken out and ignored. `false`: they stay where they are.")
    smtp_extract_range: Ranges = option(
        ranges, "", words="nobody", unit="networks, `;`", per_port=True, reload=True, example="192.168.0.0/16",
        doc="Clients whose `x-mq-*` fields are believed under `smtp-extract: trusted` without a login.")
    smtp_parse: Parse = option(
        choice("none", "headers", "full"), "headers", per_port=True, reload=True,
        doc="What is read of the content and written into `extracted`: nothing, the header section, or (`full`) the "
            "text and HTML bodies and a description of each attachment as well.")
    smtp_check: tuple[Check, ...] = option(
        checks, "", unit="words, `,`", per_port=True, reload=True, rfc="RFC 8601", example="spf,dkim,dmarc,spam",
        doc="What is found out about a message after its content: `spf`, `dkim`, `dmarc`, `arc`, `iprev` and `spam`. "
            "The results stand in `checks`; nothing is refused for them.")
    smtp_check_reject: tuple[Reject, ...] = option(
        rejects, "", unit="words, `,`", per_port=True, reload=True, rfc="RFC 7372", example="dmarc,spam",
        doc="For what of it a message is refused: `spf` (its result is `fail`: `550 5.7.23`), `dmarc` (it failed, and "
            "the owner of the domain wants such mail rejected: `550 5.7.1`), `spam` (over the threshold: "
            "`550 5.7.1`). Mail of who has logged in is never refused for `spf` and `dmarc`.")
    smtp_auth_results: tuple[Recipients, ...] = option(
        auth_results, "", unit="words, `,`", per_port=True, reload=True, rfc="RFC 8601 §2", example="local",
        doc="For which recipients the results are written into an Authentication-Results field: `local`, `nonlocal`. "
            "Fields that claim to be ours are taken out of all mail, whatever stands here.")
    smtp_received_spf: bool = option(
        boolean, "false", per_port=True, reload=True, rfc="RFC 7208 §9.1",
        doc="Write a Received-SPF field as well, for the recipients of `smtp-auth-results`.")
    smtp_authserv_id: str | None = option(
        optional(smtp_name), "", reload=True, words="our name in the session", rfc="RFC 8601 §2.5",
        example="mx1.example.com",
        doc="Our name in Authentication-Results. Fields that claim it, or the `smtp-hostname` of a port, are taken "
            "out of all mail, so hosts that hand mail to one another need different names.")
    spamassassin_host: str = option(
        host, "localhost", reload=True, doc="Where spamd listens, which `spam` asks.")
    spamassassin_port: int = option(port, "783", reload=True, doc="Its port.")
    rspamd_address: str | None = option(
        optional(filter_address), "", reload=True, secret=mask_hooks, example="http://localhost:11333",
        doc="`http(s)://host:port` of Rspamd's normal worker. When it is set, `spam` asks Rspamd in place of spamd.")
    smtp_hook: HookTarget | None = option(
        optional(hook), "", per_port=True, reload=True, secret=mask_hooks, example="exec:///usr/local/lib/mtaq/decide",
        doc="Your own code that decides about senders, recipients and messages: `python://module:object`, "
            "`exec:///path` or `http(s)://host/path`. Without an answer the client is told `451 4.7.1`.")
    smtp_pipeline: tuple[Step, ...] = option(
        pipeline, "", unit="steps, `,`", per_port=True, reload=True, secret=mask_hooks,
        example="sanitize-html=basic,parse-full",
        doc="Steps that an accepted message goes through before it is published, in order; each may change or drop "
            "it. Built in: `sanitize-html`, with a level `sanitize-html=strict|basic|relaxed` (`basic` unless given), "
            "and `parse-full`. Other steps are written as `smtp-hook` is.")
    smtp_hook_timeout: float = option(
        hook_timeout, "10", unit="seconds", per_port=True, reload=True, rfc="RFC 5321 §4.5.3.2",
        doc="Longest wait for an answer of the hook, and of each step of the pipeline. At most 300.")
    smtp_mappable_ips: Ranges = option(
        mappable_ranges, "non-loopback", unit="networks, `;`", reload=True,
        example="192.0.2.0/24;2001:db8::/64",
        doc="Mail accepted on a local IP address in one of these leaves from that address; it is written into the "
            "message's `ips`. `non-loopback` stands for every address but 127.0.0.0/8 and ::1; empty maps none. "
            "A process that cannot bind the address uses `smtp-default-ips` and logs it.")
    smtp_unmappable_ips: Ranges = option(
        ranges, "", unit="networks, `;`", reload=True, example="192.0.2.28",
        doc="Exceptions from `smtp-mappable-ips`.")
    dsn_advertise: bool = option(
        boolean, "true", reload=True, rfc="RFC 3461",
        doc="Offer DSN to clients that have logged in, that are in `smtp-extract-range`, or that may relay from a "
            "`smtp-range` smaller than the Internet.")

    @property
    def relay(self) -> Relay:
        """``smtp_relay``, decided."""
        if self.smtp_relay is not None:
            return self.smtp_relay
        return "authenticated" if self.smtp_auth or self.smtp_tls_client_ca else "range"
