"""A DMARC Policy Record (RFC 9989 §4.7): from TXT strings to what it asks for.

Tags that are not known, and values that are not right, are as if they were not there (RFC 9989 §4.8); of a tag that
stands twice the first counts. ``pct`` is history.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

Policy = Literal["none", "quarantine", "reject"]
POLICIES: tuple[Policy, ...] = ("none", "quarantine", "reject")  #: from the mildest to the strictest

_VERSION = re.compile(r"[vV][ \t]*=[ \t]*DMARC1[ \t]*(?:;|\Z)")
#: Longer records are read anew each time, or a stranger could fill the memory with them.
_REMEMBERED_CHARACTERS = 1_024
_URI = re.compile(r"mailto:[^@\s]+@[^@\s!]+(?:![0-9]+[kmgt]?)?|(?!mailto:)[a-z][a-z0-9+.-]*:[^\s!]+", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class DmarcRecord:
    """What a record says.

    Attributes:
        policy: ``p``. ``None`` asks for no DMARC processing: no valid ``p``, ``sp`` or ``np`` where one is needed, and
            nobody to be told of it.
        subdomains: ``sp``, else ``p``.
        missing_subdomains: ``np``, else ``sp``, else ``p``: for names that do not exist.
        psd: ``y``: a public suffix; ``n``: an Organizational Domain; ``u``: it does not say.
        test: ``t=y``: one step less than the policy is to be applied.
        strict_dkim: ``adkim=s``.
        strict_spf: ``aspf=s``.
    """

    policy: Policy | None
    subdomains: Policy | None
    missing_subdomains: Policy | None
    psd: Literal["y", "n", "u"] = "u"
    test: bool = False
    strict_dkim: bool = False
    strict_spf: bool = False


def parse_records(records: Iterable[Sequence[bytes]]) -> DmarcRecord | None:
    """Return the record among the TXT *records* of one name; ``None`` for none, or several (RFC 9989 §4.10)."""
    texts = [text for text in (b"".join(strings).decode("latin-1") for strings in records) if _VERSION.match(text)]
    if len(texts) != 1:
        return None
    read = _remembered_record if len(texts[0]) <= _REMEMBERED_CHARACTERS else parse_record
    return read(texts[0])


def parse_record(text: str) -> DmarcRecord:
    """Return what *text*, which begins with its version, asks for (RFC 9989 §4.10.1)."""
    tags: dict[str, str] = {}
    for tag in text.split(";")[1:]:
        name, _, value = tag.partition("=")
        tags.setdefault(name.strip(" \t").lower(), value.strip(" \t"))
    low = {name: value.lower() for name, value in tags.items()}
    policy, subdomains, missing = _policies(low)
    return DmarcRecord(
        policy,
        subdomains,
        missing,
        psd="y" if low.get("psd") == "y" else "n" if low.get("psd") == "n" else "u",
        test=low.get("t") == "y",
        strict_dkim=low.get("adkim") == "s",
        strict_spf=low.get("aspf") == "s",
    )


_remembered_record = lru_cache(maxsize=4_096)(parse_record)


def _policies(tags: dict[str, str]) -> tuple[Policy | None, Policy | None, Policy | None]:
    policy = _policy(tags.get("p", ""))
    subdomains = _policy(tags["sp"]) if "sp" in tags else policy
    missing = _policy(tags["np"]) if "np" in tags else subdomains
    if policy is not None and subdomains is not None and missing is not None:
        return policy, subdomains, missing
    if any(_URI.fullmatch(uri.strip(" \t")) for uri in tags.get("rua", "").split(",")):
        return "none", "none", "none"
    return None, None, None


def _policy(value: str) -> Policy | None:
    return next((policy for policy in POLICIES if policy == value), None)
