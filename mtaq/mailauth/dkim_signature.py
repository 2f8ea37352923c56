"""What does one signature say: DKIM-Signature (RFC 6376 §3.5) and ARC-Message-Signature (RFC 8617 §4.1.2)?

Reads and judges the tags alone. Whether the message and the key fit is decided by ``dkim`` and ``arc``.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from mtaq.mailauth.dkim_canonical import Canonicalization, parse_canonicalization
from mtaq.mailauth.dkim_tags import (
    TagError,
    base64_tag,
    domain_name,
    list_tag,
    name_tag,
    number_tag,
    required,
    unquoted,
)
from mtaq.mailauth.verdict import Word

#: Clocks of senders are off by minutes, or by an hour in the wrong time zone.
CLOCK_TOLERANCE = timedelta(hours=1)
#: Algorithm → kind of key. RFC 8301 §3.1 ended rsa-sha1; RFC 8463 §3 brought Ed25519.
ALGORITHMS = {"rsa-sha256": "rsa", "ed25519-sha256": "ed25519"}

_SHA256_BYTES = 32
_TIME_DIGITS = 12  # RFC 6376 §3.5: to be read up to the year 200,000
_LENGTH_DIGITS = 76
_MAX_IDENTITY = 320
_ALGORITHM = re.compile(r"[a-z0-9]{1,20}-[a-z0-9]{1,20}")
_BLANKS = re.compile(r"[ \t\r\n]+")
_BASE64 = re.compile(r"[A-Za-z0-9+/=]+")


class Unusable(Exception):
    """A signature or key that cannot come to ``pass``.

    Attributes:
        word: What it comes to.
        reason: For people; holds nothing that a stranger wrote.
    """

    def __init__(self, word: Word, reason: str) -> None:
        super().__init__(reason)
        self.word = word
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Named:
    """What is told of a signature, each empty where it was not readable.

    Attributes:
        domain: ``d=``, A-labels in lower case.
        selector: ``s=``, the same.
        identity: ``i=``, the agent or user identifier; for DKIM only.
        b: ``b=`` in base64, without blanks.
        algorithm: ``a=``.
    """

    domain: str = ""
    selector: str = ""
    identity: str = ""
    b: str = ""
    algorithm: str = ""

    @property
    def key_name(self) -> str:
        """Where the key is (RFC 6376 §3.6.2.1)."""
        return f"{self.selector}._domainkey.{self.domain}"


@dataclass(frozen=True, slots=True)
class Signature:
    """A signature that can be verified.

    Attributes:
        named: Whose it is.
        value: The signature itself.
        body_hash: ``bh=``, 32 octets.
        names: ``h=``, in lower case.
        length: ``l=``; ``None`` for all of the body.
        signed_at_s: ``t=``, seconds since 1970.
        expires_at_s: ``x=``, the same.
        exact_domain: The domain of ``i=`` is ``d=`` and not one below it.
    """

    named: Named
    value: bytes
    canonicalization: Canonicalization
    body_hash: bytes
    names: tuple[bytes, ...]
    length: int | None = None
    signed_at_s: int | None = None
    expires_at_s: int | None = None
    exact_domain: bool = True

    def untimely(self, now: datetime) -> str | None:
        """Return why *now* is not its time; ``None`` when it is (RFC 6376 §3.5)."""
        if self.expires_at_s is not None and self.expires_at_s < (now - CLOCK_TOLERANCE).timestamp():
            return "it has expired"
        if self.signed_at_s is not None and self.signed_at_s > (now + CLOCK_TOLERANCE).timestamp():
            return "it was made in the future"
        return None


def name_signature(tags: Mapping[str, str]) -> Named:
    """Return what can be told of a signature, however wrong the rest of it is."""
    b = _BLANKS.sub("", tags.get("b", ""))
    algorithm = tags.get("a", "")
    return Named(
        domain=_readable(tags, "d", 2),
        selector=_readable(tags, "s", 1),
        identity=_readable_identity(tags),
        b=b if _BASE64.fullmatch(b) else "",
        algorithm=algorithm if _ALGORITHM.fullmatch(algorithm) else "",
    )


def _readable(tags: Mapping[str, str], name: str, min_labels: int) -> str:
    try:
        return name_tag(tags, name, min_labels)
    except TagError:
        return ""


def _readable_identity(tags: Mapping[str, str]) -> str:
    try:
        return unquoted(tags["i"])[:_MAX_IDENTITY] if "i" in tags else ""
    except TagError:
        return ""


def read_algorithm(tags: Mapping[str, str]) -> str:
    """
    Return ``a=``.

    Raises:
        TagError: It is missing or not known.
        Unusable: It is one that nobody may accept any more.
    """
    algorithm = required(tags, "a")
    if algorithm == "rsa-sha1":
        raise Unusable("policy", "rsa-sha1 is not accepted (RFC 8301)")
    if algorithm not in ALGORITHMS:
        raise TagError("a= is not known")
    return algorithm


def read_signature(tags: Mapping[str, str], named: Named) -> Signature:
    """
    Return the signature that *tags* describe; *named* is ``name_signature(tags)``.

    ``v=`` and ``i=`` mean other things in ARC and are for ``read_dkim_signature``.

    Raises:
        TagError: A tag is missing or not of its form.
        Unusable: It is of a kind that is not accepted.
    """
    read_algorithm(tags)
    name_tag(tags, "d", 2)
    name_tag(tags, "s", 1)
    if "q" in tags and "dns/txt" not in list_tag(tags, "q"):
        raise TagError("q= is not known")
    body_hash = base64_tag(tags, "bh")
    if len(body_hash) != _SHA256_BYTES:
        raise TagError("bh= is not a SHA-256")
    signed_at_s, expires_at_s = number_tag(tags, "t", _TIME_DIGITS), number_tag(tags, "x", _TIME_DIGITS)
    if signed_at_s is not None and expires_at_s is not None and expires_at_s <= signed_at_s:
        raise TagError("x= is not later than t=")
    return Signature(
        named=named,
        value=base64_tag(tags, "b"),
        canonicalization=parse_canonicalization(tags.get("c", "simple/simple")),
        body_hash=body_hash,
        names=_signed_names(tags),
        length=number_tag(tags, "l", _LENGTH_DIGITS),
        signed_at_s=signed_at_s,
        expires_at_s=expires_at_s,
    )


def _signed_names(tags: Mapping[str, str]) -> tuple[bytes, ...]:
    required(tags, "h")
    names = tuple(name.lower().encode("utf-8") for name in list_tag(tags, "h"))
    if b"from" not in names:  # RFC 6376 §5.4: the one field that every signature covers
        raise Unusable("permerror", "From is not signed")
    return names


def read_dkim_signature(tags: Mapping[str, str], named: Named) -> Signature:
    """
    Return the signature of a DKIM-Signature field.

    Raises:
        TagError: A tag is missing or not of its form.
        Unusable: It is of a kind that is not accepted.
    """
    if required(tags, "v") != "1":
        raise TagError("v= is not 1")
    signature = read_signature(tags, named)
    if "i" not in tags:
        return signature
    identity = unquoted(tags["i"])
    _, at, host = identity.rpartition("@")
    if not at or len(identity) > _MAX_IDENTITY:
        raise TagError("i= is not an identity")
    host = domain_name(host, "the domain of i=", 2)
    if host == named.domain:
        return signature
    if not host.endswith("." + named.domain):
        raise TagError("i= is not of the domain d=")
    return dataclasses.replace(signature, exact_domain=False)
