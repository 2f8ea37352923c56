"""Which octets are a path, a mailbox, a domain (RFC 5321 §4.1.2, RFC 6531 §3.3)?

Strict is that grammar. Loose takes any local-part in front of a valid domain, and a path without angle brackets, as
most servers do. Refused in both: control characters, line ends, ``<`` and ``>`` inside an address, which no
later line or log can then be broken by. Whether a domain exists or a mailbox is wanted is somebody else's question.
What does not fit raises ``ValueError`` with a reason fit for the sender of the address.
"""

from __future__ import annotations

import ipaddress
import re

import idna

from mtaq.model.address import Address

#: RFC 5321 §4.5.3.1.1: octets of a local-part.
LOCAL_PART_MAX = 64
#: Loose: long enough for every VERP scheme seen, and a Return-Path field with it still fits a line of 998 octets.
LOOSE_LOCAL_PART_MAX = 512
#: RFC 5321 §4.5.3.1.2 says 255 octets; on the wire of DNS that is a name of 253 (RFC 1035 §2.3.4).
DOMAIN_MAX = 253
#: RFC 5321 §4.5.3.1.3: 256 octets for the path, of which two are the angle brackets.
MAILBOX_MAX = 254

_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_DOT_STRING = rf"{_ATOM}(?:\.{_ATOM})*"
_LABEL = r"(?![^.]{64})[A-Za-z0-9]+(?:-+[A-Za-z0-9]+)*"
_LDH_DOMAIN = rf"{_LABEL}(?:\.{_LABEL})*"

_is_ldh_domain = re.compile(_LDH_DOMAIN).fullmatch
_match_plain_mailbox = re.compile(rf"({_DOT_STRING})@({_LDH_DOMAIN})").fullmatch

_UTF8_ATOM = _ATOM.replace("[", "[\x80-\U0010ffff", 1)
_is_utf8_dot_string = re.compile(rf"{_UTF8_ATOM}(?:\.{_UTF8_ATOM})*").fullmatch
# QcontentSMTP, of which angle brackets and control characters have been refused before.
_is_quoted_string = re.compile(r'"(?:[^"\\]|\\[ -~])*"').fullmatch
# C0, DEL, C1, the line and paragraph separators (line ends to much software), lone surrogates, angle brackets.
_find_forbidden = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff<>]").search

_match_ipv6_literal = re.compile(r"\[ipv6:([0-9a-f:.]+)\]", re.IGNORECASE).fullmatch
_match_ipv4_literal = re.compile(r"\[([0-9.]+)\]").fullmatch
_match_source_route = re.compile(r"@[^\s@,:]+(?:,@[^\s@,:]+)*:").match

# ``FROM:`` or ``TO:``, the path, parameters. Blanks after the colon are wrong and common. Without angle brackets
# (group 2) a path ends at a blank outside quotes.
_PATH = rb"(?i:%s): *(?:<([^<>]*)>|((?:\"(?:[^\"\\<>]|\\[^<>])*+\"|[^ \"<>])++))(?: +(.*))?"
_match_from = re.compile(_PATH % b"from").fullmatch
_match_to = re.compile(_PATH % b"to").fullmatch


class NeedsSmtputf8(ValueError):
    """The address is not ASCII and SMTPUTF8 was not asked for (RFC 6531 §3.2)."""


def split_reverse_path(argument: bytes, *, strict: bool) -> tuple[bytes, bytes]:
    """
    Split the argument of MAIL into the path, brackets removed, and the parameters.

    Raises:
        ValueError: It is not ``FROM:<path> [parameters]``.
    """
    return _split_path(_match_from(argument), strict)


def split_forward_path(argument: bytes, *, strict: bool) -> tuple[bytes, bytes]:
    """
    Split the argument of RCPT into the path, brackets removed, and the parameters.

    Raises:
        ValueError: It is not ``TO:<path> [parameters]``.
    """
    return _split_path(_match_to(argument), strict)


def _split_path(match: re.Match[bytes] | None, strict: bool) -> tuple[bytes, bytes]:
    if match is None:
        raise ValueError("expected a path in angle brackets after the colon")
    path, bare, parameters = match.groups()
    if path is None:
        if strict:
            raise ValueError("the path must stand in angle brackets")
        path = bare
    return path, parameters or b""


def parse_reverse_path(path: bytes, *, strict: bool, smtputf8: bool, bare: bool = False) -> Address | None:
    """
    Parse what stood in MAIL's angle brackets; ``None`` is the null reverse-path.

    With *bare* a local-part alone is a path as well.

    Raises:
        NeedsSmtputf8: It is not ASCII and *smtputf8* is false.
        ValueError: It is not a path.
    """
    return _parse_path(path, strict, smtputf8, bare) if path else None


def parse_forward_path(path: bytes, *, strict: bool, smtputf8: bool, bare: bool = False) -> Address:
    """
    Parse what stood in RCPT's angle brackets, the bare ``postmaster`` included (RFC 5321 §4.1.1.3).

    With *bare* any local-part alone is a path as well.

    Raises:
        NeedsSmtputf8: It is not ASCII and *smtputf8* is false.
        ValueError: It is not a path.
    """
    if path.lower() == b"postmaster":
        return Address(path.decode("ascii"), "")
    return _parse_path(path, strict, smtputf8, bare)


def _parse_path(path: bytes, strict: bool, smtputf8: bool, bare: bool) -> Address:
    if bare and path and b"@" not in path:
        return _parse_path(path + b"@bare", strict, smtputf8, bare)._replace(domain="")
    try:
        text = path.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("the address is not UTF-8") from None
    if text.startswith("@") and (route := _match_source_route(text)):
        text = text[route.end() :]  # RFC 5321 §3.6.1: accepted and ignored
    return parse_mailbox(text, strict=strict, smtputf8=smtputf8)


def parse_mailbox(text: str, *, strict: bool, smtputf8: bool) -> Address:
    """
    Parse ``local-part@domain`` (RFC 5321 §4.1.2, RFC 6531 §3.3).

    Args:
        text: The mailbox, without angle brackets or source route.
        strict: ``False`` takes any local-part; see the module.
        smtputf8: May it hold more than ASCII?

    Raises:
        NeedsSmtputf8: It is not ASCII and *smtputf8* is false.
        ValueError: It is no mailbox; the text says why.
    """
    match = _match_plain_mailbox(text)
    if match is not None and len(text) <= MAILBOX_MAX:
        local_part, domain = match.groups()
        domain = domain.lower()
        if len(local_part) <= LOCAL_PART_MAX and len(domain) <= DOMAIN_MAX and "xn--" not in domain:
            return Address(local_part, domain)
    return _parse_unusual_mailbox(text, strict, smtputf8)


def _parse_unusual_mailbox(text: str, strict: bool, smtputf8: bool) -> Address:
    if _find_forbidden(text):
        raise ValueError("the address holds a control character or an angle bracket")
    if not smtputf8 and not text.isascii():
        raise NeedsSmtputf8("the address is not ASCII, and SMTPUTF8 was not given")
    local_part, at, domain = text.rpartition("@")
    if not at or not local_part:
        raise ValueError("an address is local-part@domain")
    if strict:
        _check_strict_local_part(local_part)
        if len(text.encode()) > MAILBOX_MAX:
            raise ValueError(f"the address is longer than {MAILBOX_MAX} octets")
    else:
        _check_loose_local_part(local_part)
    return Address(local_part, parse_address_literal(domain) if domain.startswith("[") else parse_domain(domain))


def _check_strict_local_part(local_part: str) -> None:
    if len(local_part.encode()) > LOCAL_PART_MAX:
        raise ValueError(f"the local-part is longer than {LOCAL_PART_MAX} octets")
    if not _is_utf8_dot_string(local_part) and not _is_quoted_string(local_part):
        raise ValueError("the local-part is neither a Dot-string nor a Quoted-string")


def _check_loose_local_part(local_part: str) -> None:
    if len(local_part.encode()) > LOOSE_LOCAL_PART_MAX:
        raise ValueError(f"the local-part is longer than {LOOSE_LOCAL_PART_MAX} octets")
    if "@" in local_part and not _is_quoted_string(local_part):
        raise ValueError("the address has more than one @")


def parse_domain(text: str) -> str:
    """
    Parse a domain name and return it in lower case with U-labels, without checking that it exists.

    An A-label that IDNA 2008 does not know (emoji, bidi faults) stays as it is: it is a valid LDH name.

    Raises:
        ValueError: It is no domain name (RFC 5321 §2.3.5, RFC 5890 §2.3).
    """
    if text.isascii():
        if len(text) > DOMAIN_MAX or not _is_ldh_domain(text):
            raise ValueError("the domain is not valid")
        domain = text.lower()
        return _with_u_labels(domain) if "xn--" in domain else domain
    return parse_domain(_to_a_labels(text))


def _to_a_labels(text: str) -> str:
    if len(text) > DOMAIN_MAX:
        raise ValueError("the domain is not valid")
    # UTS 46 folds upper case and full-width forms, as every browser does, before IDNA 2008 judges.
    try:
        return idna.encode(text, uts46=True, std3_rules=True).decode("ascii")
    except UnicodeError as error:  # its text quotes the peer, at any length
        raise ValueError("the domain is not valid") from error


def _with_u_labels(domain: str) -> str:
    try:
        u_labels = idna.decode(domain)
        return u_labels if a_label_domain(u_labels) == domain else domain
    except ValueError:  # idna.IDNAError is one
        return domain


def a_label_domain(domain: str) -> str:
    """
    Return *domain* as a peer without SMTPUTF8 must be told it: with A-labels (RFC 5890 §2.3.2.1).

    Raises:
        ValueError: It has no such form.
    """
    if domain.isascii():
        return domain
    try:
        return idna.encode(domain).decode("ascii")
    except UnicodeError as error:
        raise ValueError("the domain has no ASCII form") from error


def parse_address_literal(text: str) -> str:
    """
    Parse ``[192.0.2.1]`` or ``[IPv6:2001:db8::1]`` and return it in RFC 5952's spelling, brackets included.

    Raises:
        ValueError: It is neither; general address literals are not known (RFC 5321 §4.1.3).
    """
    try:
        if match := _match_ipv4_literal(text):
            return f"[{ipaddress.IPv4Address(match[1])}]"
        if (match := _match_ipv6_literal(text)) and _is_well_compressed(match[1]):
            return f"[IPv6:{ipaddress.IPv6Address(match[1])}]"
    except ipaddress.AddressValueError as error:
        raise ValueError("the address literal is not valid") from error
    raise ValueError("the address literal is not valid")


def _is_well_compressed(text: str) -> bool:
    """Does ``::``, if there, stand for two groups at least (RFC 5321 §4.1.3)?"""
    groups = sum(2 if "." in group else 1 for group in text.split(":") if group)
    return "::" not in text or groups <= 6
