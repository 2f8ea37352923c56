"""How an operator's text becomes a part of an entry about delivery: a domain, a rate, a pattern, a host.

A parser returns the one spelling that is stored, or raises ``ValueError`` saying what is expected; the verbs show it to
whoever typed it.
"""

from __future__ import annotations

import json
import re
from typing import Any

from mtaq.config.addresses import host
from mtaq.config.values import integer
from mtaq.model.control import OverrideHost, PoolMember
from mtaq.smtp.grammar import parse_domain
from mtaq.state.entries import parse_ip, parse_note, parse_pattern
from mtaq.state.patterns import compiled

#: Longest value of a property, as JSON.
LONGEST_VALUE = 2000

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?", re.ASCII)
_PROPERTY = re.compile(r"[a-z][a-z0-9_-]{0,63}", re.ASCII)
_CODE = re.compile(r"[245](?:[0-9]{1,2})?", re.ASCII)
_STATUS = re.compile(r"[245](?:\.[0-9]{1,3}){0,2}", re.ASCII)
_RATE = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)(?:/([smhd]))?", re.ASCII)
_RATE_UNITS = {"s": 60.0, "m": 1.0, "h": 1 / 60, "d": 1 / 1440}

_HIGHEST = 10**12
_whole = integer(0, _HIGHEST)
_port = integer(1, 65535)
_weight = integer(1, 1_000_000)

#: What a rule may not touch: who a message is, what it holds, and what became of it.
_OURS = "attempt envelope extracted idempotency-key key message-id mime mime-base64 recipient results seen tags"
RESERVED = frozenset(re.findall(r"\S+", _OURS))


def parse_scope_domain(text: str) -> str:
    """Read a domain, or ``*.example.com`` for all below it.

    Raises:
        ValueError: It is neither.
    """
    wildcard = "*." if text.startswith("*.") else ""
    try:
        return wildcard + parse_domain(text.removeprefix("*."))
    except ValueError:
        raise ValueError(f"{text!r} is no domain; expected example.com, or *.example.com for all below it") from None


def parse_site(text: str) -> str:
    """Read the name of a site or of a mail host, or ``*.example.com`` for mail hosts below it.

    Raises:
        ValueError: It is none of these.
    """
    name = text.lower()
    if not re.fullmatch(r"(?:\*\.)?[a-z0-9_.:,-]{1,4000}", name, re.ASCII):
        raise ValueError(f"{text!r} is no site; expected the name of a mail host, or *.example.com for all below it")
    return name


def parse_word(text: str) -> str:
    """Read the name of a pool or a selector.

    Raises:
        ValueError: It has signs that names do not have.
    """
    if not _NAME.fullmatch(text):
        raise ValueError(f"{text!r} is no name; expected letters, digits, dots, dashes and underscores, 64 at most")
    return text


def parse_tag(text: str) -> str:
    """Read a tag.

    Raises:
        ValueError: Empty, too long, or with control characters in it.
    """
    if not parse_note(text, "the tag"):
        raise ValueError("an empty tag is on no message; expected a word")
    return text


def parse_sender_domain(text: str) -> str:
    """Read the domain of a reverse-path; ``<>`` is the null one.

    Raises:
        ValueError: It is neither.
    """
    return "" if text == "<>" else parse_domain_only(text)


def parse_domain_only(text: str) -> str:
    """Read a domain, no wildcard.

    Raises:
        ValueError: It is none.
    """
    try:
        return parse_domain(text)
    except ValueError:
        raise ValueError(f"{text!r} is no domain; expected one like example.com") from None


def parse_recipients(text: str) -> str:
    """Read a pattern of recipients: an address, a domain, or a wildcard of either.

    Raises:
        ValueError: It is none of these.
    """
    if "@" not in text:
        return parse_scope_domain(text)
    pattern, _ = parse_pattern(text)
    local_part, _, domain = pattern.rpartition("@")
    is_domain = local_part == "*" and not set(domain.removeprefix("*.")) & set("*?")
    return domain if is_domain else pattern


def parse_rate(text: str) -> float:
    """Read how many a minute: ``60``, ``2/s``, ``100/h``, ``1000/d``; 0 is no limit.

    Raises:
        ValueError: It is no rate.
    """
    match = _RATE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no rate; expected so many a minute, or a number with /s, /m, /h or /d")
    rate = float(match[1]) * _RATE_UNITS[match[2] or "m"]
    return int(rate) if rate == int(rate) else rate


def parse_count(text: str) -> int:
    """Read a whole number; 0 is no limit.

    Raises:
        ValueError: It is none.
    """
    return _whole(text)


def parse_member(text: str) -> PoolMember:
    """Read a member of a pool: ``192.0.2.1``, or with its weight ``192.0.2.1=3``.

    Raises:
        ValueError: It is neither.
    """
    ip, equals, weight = text.partition("=")
    return PoolMember(parse_ip(ip), _weight(weight) if equals else 1)


def parse_override_host(text: str) -> OverrideHost:
    """Read a mail host: a name or an IP address, and perhaps a port: ``host:25``, ``[2001:db8::1]:25``.

    Raises:
        ValueError: It is neither.
    """
    match = re.fullmatch(r"(?:\[([^\]]+)\]|([^:]+))(?::([0-9]+))?", text)
    name, port = (match[1] or match[2], match[3]) if match else (text, None)
    return OverrideHost(host(name), _port(port) if port else None)


def parse_code(text: str) -> str:
    """Read a reply code or its beginning.

    Raises:
        ValueError: It is neither.
    """
    if not _CODE.fullmatch(text.rstrip("xyz")):
        raise ValueError(f"{text!r} is no reply code; expected one like 421, or the beginning of some: 4, 45")
    return text.rstrip("xyz")


def parse_status(text: str) -> str:
    """Read an enhanced status code or its beginning.

    Raises:
        ValueError: It is neither.
    """
    if not _STATUS.fullmatch(text):
        raise ValueError(f"{text!r} is no enhanced status code; expected one like 4.7.0, or the beginning of some: 4.7")
    return text


def parse_text(text: str) -> str:
    """Read a regular expression for the text of replies.

    Raises:
        ValueError: It is none of RE2, too long, or too large.
    """
    compiled(parse_note(text, "the pattern"), "regex")
    return text


def parse_property(text: str) -> tuple[str, Any]:
    """Read ``name=value``; the value is JSON where it is, else text; nothing behind ``=`` takes the property out.

    Raises:
        ValueError: No name of a property, one that rules leave alone, or a value that is too long.
    """
    name, equals, value = text.partition("=")
    if not equals or not _PROPERTY.fullmatch(name):
        raise ValueError(f"{text!r} is no property; expected name=value")
    if name in RESERVED:
        raise ValueError(f"{name} cannot be set by a rule")
    if len(value) > LONGEST_VALUE:
        raise ValueError(f"the value of {name} has {len(value)} characters; expected at most {LONGEST_VALUE}")
    try:
        return name, json.loads(value) if value else None
    except (ValueError, RecursionError):
        return name, parse_note(value, f"the value of {name}")
