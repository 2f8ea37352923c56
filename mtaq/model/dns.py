"""DNS as those see it who ask and do not send: a question, and the answer to it.

Records are plain values, so that nobody but the resolver knows the library it is made with.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, Literal, NamedTuple, TypeVar

T = TypeVar("T")

RecordType = Literal["A", "AAAA", "CNAME", "MX", "PTR", "TXT", "TLSA"]


class Question(NamedTuple):
    """One question.

    Attributes:
        name: A domain name, A-labels, without the last dot; case does not matter.
    """

    name: str
    kind: RecordType


class Found(enum.Enum):
    """What an answer says."""

    RECORDS = "records"
    NO_DATA = "no data"  #: the name exists, without records of that type
    NO_NAME = "no such name"
    FAILED = "failed"  #: silence, SERVFAIL, REFUSED, nonsense


@dataclass(frozen=True, slots=True)
class DnsAnswer:
    """The answer to one question, aliases followed.

    Attributes:
        records: Empty unless ``found`` is ``RECORDS``. ``A`` and ``AAAA`` are IP addresses as text; ``CNAME`` and
            ``PTR`` names in lower case without the last dot; ``MX`` pairs of preference and name, which is
            empty for a null MX (RFC 7505); ``TXT`` tuples of
            the strings as bytes; ``TLSA`` tuples of usage, selector, matching type and data.
        secure: A resolver that the operator trusts says that DNSSEC proved it (AD, RFC 4035 §3.2.3).
        reason: Why it failed.
    """

    found: Found
    records: tuple[Any, ...] = ()
    secure: bool = False
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Located(Generic[T]):
    """Mail hosts, or addresses.

    Attributes:
        secure: A resolver that the operator trusts says that DNSSEC proved every answer they come from, absence of
            records included.
    """

    found: tuple[T, ...]
    secure: bool = False


Ask = Callable[[Question], Awaitable[DnsAnswer]]
"""Answers a question; a failure is an answer, nothing is raised."""
