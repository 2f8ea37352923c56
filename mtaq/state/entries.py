"""The entries of the runtime state, and what an operator may write into them.

Everything is brought into one spelling before it is stored, so that a look-up compares plain texts. A mistake is a
``ValueError`` that says what is expected; the verbs show it to whoever typed it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_network
from typing import Literal, get_args

from mtaq.config.addresses import smtp_name
from mtaq.config.ranges import Network, plain_address, plain_network
from mtaq.smtp.grammar import parse_address_literal, parse_domain, parse_mailbox

Kind = Literal["exact", "wildcard", "regex"]
KINDS: tuple[Kind, ...] = get_args(Kind)

#: Longest pattern, reason and comment, in characters.
LONGEST = 500

#: An automatic entry about an IPv6 client holds its whole network, as everything that counts clients does.
IPV6_CLIENT_PREFIX = 64

_find_unprintable = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]").search
_is_wildcard = re.compile("[*?]").search


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalAddress:
    """Addresses whose mail is for us.

    Attributes:
        pattern: As ``parse_pattern`` spells it.
        kind: How the pattern is read.
        comment: The operator's note; may be empty.
        created_at: When it was added, or its comment last changed.
    """

    pattern: str
    kind: Kind
    comment: str = ""
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A network that may not connect.

    Attributes:
        network: In CIDR notation, as ``parse_network`` spells it.
        reason: Why, for log and operator.
        expires_at: When it ends by itself; ``None`` for never.
        automatic: Did mtaq add it by itself?
        created_at: When it was added, or last changed.
    """

    network: str
    reason: str
    expires_at: datetime | None
    automatic: bool
    created_at: datetime

    def is_over(self, now: datetime) -> bool:
        """Has it ended by itself?"""
        return self.expires_at is not None and self.expires_at <= now


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One of our addresses and the name that goes with it.

    Attributes:
        ip: As ``parse_ip`` spells it.
        ehlo_name: The name in greeting and EHLO.
        created_at: When it was set.
    """

    ip: str
    ehlo_name: str
    created_at: datetime


def parse_pattern(text: str, kind: Kind | None = None) -> tuple[str, Kind]:
    """Read a pattern of local addresses; without *kind*, one with ``*`` or ``?`` in it is a wildcard.

    Raises:
        ValueError: No such pattern.
    """
    kind = kind or ("wildcard" if _is_wildcard(text) else "exact")
    _check_text(text, "the pattern")
    if kind == "exact":
        return _exact(text), kind
    if kind == "wildcard":
        return _wildcard(text), kind
    if not text:
        raise ValueError("an empty pattern matches nothing; expected a regular expression")
    return text, kind


def _exact(text: str) -> str:
    if text.lower() == "postmaster":
        return "postmaster"
    try:
        address = parse_mailbox(text, strict=False, smtputf8=True)
    except ValueError as error:
        raise ValueError(f"{text!r} is no address: {error}; expected local-part@domain, or postmaster") from None
    return f"{plain_local_part(address.local_part)}@{address.domain}"


def plain_local_part(local_part: str) -> str:
    """Return a local-part as it is compared: without quotes (RFC 5321 §4.1.2 says they mean nothing), in lower case."""
    if local_part.startswith('"') and local_part.endswith('"') and len(local_part) > 1:
        local_part = re.sub(r"\\(.)", r"\1", local_part[1:-1])
    return local_part.lower()


def _wildcard(text: str) -> str:
    local_part, at, domain = text.rpartition("@")
    if not at or not local_part or not domain:
        raise ValueError(f"{text!r} has no @ between two parts; expected a wildcard like *@example.com")
    if domain.startswith("["):
        return f"{local_part.lower()}@{parse_address_literal(domain)}"
    try:
        labels = [label.lower() if _is_wildcard(label) else parse_domain(label) for label in domain.split(".")]
    except ValueError:
        raise ValueError(
            f"{domain!r} is no domain; expected a wildcard like *@example.com or *@*.example.com"
        ) from None
    return f"{local_part.lower()}@{'.'.join(labels)}"


def parse_network(text: str) -> Network:
    """Read a network in CIDR notation, or a single address.

    Raises:
        ValueError: It is neither, or has bits set behind its prefix.
    """
    try:
        return plain_network(text)
    except ValueError:
        pass
    try:
        meant = ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"{text!r} is not a network; expected an address, or CIDR like 192.0.2.0/24") from None
    raise ValueError(f"{text!r} has bits set behind its prefix; expected {meant}")


def client_network(text: str) -> Network:
    """Return the network of one client, given its address: an IPv6 client is its /64. A network stays as it is.

    Raises:
        ValueError: Neither an address nor a network.
    """
    network = parse_network(text)
    if network.version == 6 and network.prefixlen == network.max_prefixlen:
        return network.supernet(new_prefix=IPV6_CLIENT_PREFIX)
    return network


def end_after(now: datetime, duration_s: float) -> datetime:
    """Return when something ends that begins *now*: the first whole second that is not too early."""
    return (now + timedelta(seconds=duration_s, microseconds=999_999)).replace(microsecond=0)


def parse_ip(text: str) -> str:
    """Read an IP address and return it as RFC 5952 spells it.

    Raises:
        ValueError: It is none.
    """
    try:
        return str(plain_address(text))
    except ValueError:
        raise ValueError(f"{text!r} is not an IP address; expected one like 192.0.2.10 or 2001:db8::10") from None


def parse_name(text: str) -> str:
    """Read a name for greeting and EHLO.

    Raises:
        ValueError: It is neither a domain nor an address literal.
    """
    return smtp_name(text)


def parse_note(text: str, what: str) -> str:
    """Read a reason or a comment; *what* names it in the mistake.

    Raises:
        ValueError: Too long, or with control characters in it.
    """
    text = text.strip()
    _check_text(text, what)
    return text


def _check_text(text: str, what: str) -> None:
    if len(text) > LONGEST:
        raise ValueError(f"{what} has {len(text)} characters; expected at most {LONGEST}")
    if _find_unprintable(text):
        raise ValueError(f"{what} holds a control character; expected plain text")
