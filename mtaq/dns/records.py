"""Names and records as dnspython has them, and as ``mtaq.model.dns`` has them: plain text, numbers and bytes.

A name that is asked for is taken letter by letter: a backslash in it is a backslash, since the macros of SPF may write
one. A name out of a record has the escapes of RFC 1035 §5.1 where its octets are not printable; no host has such.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import dns.exception
import dns.name
import dns.rdatatype

from mtaq.model.dns import RecordType

TYPES: Mapping[RecordType, dns.rdatatype.RdataType] = {
    "A": dns.rdatatype.A,
    "AAAA": dns.rdatatype.AAAA,
    "CNAME": dns.rdatatype.CNAME,
    "MX": dns.rdatatype.MX,
    "PTR": dns.rdatatype.PTR,
    "TXT": dns.rdatatype.TXT,
    "TLSA": dns.rdatatype.TLSA,
}


def name_of(text: str) -> dns.name.Name:
    """
    Return the absolute name that *text* (without the last dot) spells.

    Raises:
        ValueError: It cannot be a domain name: an empty or too long label, too long altogether, not ASCII.
    """
    try:
        return dns.name.Name((*text.encode("ascii").split(b"."), b""))
    except (UnicodeError, dns.exception.DNSException) as error:
        raise ValueError(f"{text!r} is not a domain name") from error


def text_of(name: dns.name.Name) -> str:
    """Return *name* in lower case without the last dot; the root, and so a null MX, is the empty text."""
    return "" if len(name) <= 1 else name.to_text(omit_final_dot=True).lower()


def plain(kind: RecordType, records: Iterable[Any]) -> tuple[Any, ...]:
    """Return dnspython's *records* as ``DnsAnswer.records`` describes them, in their order."""
    return tuple(map(_PLAIN[kind], records))


_PLAIN: Mapping[RecordType, Callable[[Any], Any]] = {
    "A": lambda record: record.address,
    "AAAA": lambda record: record.address,
    "CNAME": lambda record: text_of(record.target),
    "MX": lambda record: (record.preference, text_of(record.exchange)),
    "PTR": lambda record: text_of(record.target),
    "TXT": lambda record: record.strings,
    "TLSA": lambda record: (record.usage, record.selector, record.mtype, record.cert),
}
