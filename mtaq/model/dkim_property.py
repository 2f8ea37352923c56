"""The ``dkim`` property of a message: which signatures it asks for.

Form only: whether a key can be used, and for that domain, shows when it is used. A private key is a secret: no error
repeats any of it, and ``without_keys`` is what a result shows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, get_args

from mtaq.model.errors import BadMessage
from mtaq.model.times import parse_time

SigningProtocol = Literal["dkim", "arc"]
Canonicalizations = Literal["relaxed/relaxed", "relaxed/simple", "simple/relaxed", "simple/simple"]

PROTOCOLS: tuple[str, ...] = get_args(SigningProtocol)
CANONICALIZATIONS: tuple[str, ...] = get_args(Canonicalizations)
#: More signatures of one message are not made, and not looked at by anybody.
MAX_REQUESTS = 8
#: Further fields that one signature covers.
MAX_NAMES = 100
#: Numbers up to this (31 years) are seconds from the signature on, larger ones seconds since 1970.
MAX_LIFETIME_S = 10**9
#: RFC 6376 §3.5 has twelve digits, ``datetime`` fewer.
_LATEST_S = 10**11

# What may stand in ``h=``: the name of a field (RFC 5322 §3.6.8), but no semicolon (RFC 6376 §3.5).
_is_name = re.compile(r"[!-9<-~]{1,76}").fullmatch


@dataclass(frozen=True, slots=True, kw_only=True)
class DkimRequest:
    """One signature that a message asks for, as written.

    Attributes:
        where: Which part of the property it is, for errors: ``dkim`` or ``dkim[1]``.
        domain: ``d=``.
        selector: ``s=``.
        key: The private key in PEM. Secret.
        headers: Fields to sign beside the usual ones.
        oversign: Fields that nobody may add; all that are signed when ``True``. From is one always.
        expires_at: ``x=``; ``None`` for what *lifetime* says.
        lifetime: From the signature to ``x=``; ``None`` for no ``x=``.
        protocols: A DKIM signature, an ARC seal, or both.
    """

    where: str
    domain: str
    selector: str
    key: str = field(repr=False)
    headers: tuple[str, ...] = ()
    oversign: tuple[str, ...] | Literal[True] = ()
    expires_at: datetime | None = None
    lifetime: timedelta | None = None
    canonicalization: Canonicalizations = "relaxed/relaxed"
    protocols: tuple[SigningProtocol, ...] = ("dkim",)


def decode_dkim(properties: Mapping[str, Any]) -> tuple[DkimRequest, ...]:
    """
    Return what the property asks for, in its order.

    Raises:
        BadMessage: It has another form.
    """
    value = properties.get("dkim")
    if value is None:
        return ()
    if isinstance(value, dict):
        return (_request(value, "dkim"),)
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise BadMessage("dkim: an object is expected, or an array of objects")
    if len(value) > MAX_REQUESTS:
        raise BadMessage(f"dkim: at most {MAX_REQUESTS} signatures are expected")
    return tuple(_request(item, f"dkim[{number}]") for number, item in enumerate(value))


def without_keys(value: Any) -> Any:
    """Return the property as a result shows it: without the private keys."""
    if isinstance(value, dict):
        return {name: part for name, part in value.items() if name != "key"}
    return [without_keys(item) for item in value] if isinstance(value, list) else value


def _request(item: Mapping[str, Any], where: str) -> DkimRequest:
    expires_at, lifetime = _end(item, where)
    return DkimRequest(
        where=where,
        domain=_text(item, "domain", where),
        selector=_text(item, "selector", where),
        key=_text(item, "key", where),
        headers=_names(item.get("headers"), f"{where}.headers"),
        oversign=_oversign(item.get("oversign"), f"{where}.oversign"),
        expires_at=expires_at,
        lifetime=lifetime,
        canonicalization=_canonicalization(item.get("canonicalization"), f"{where}.canonicalization"),
        protocols=_protocols(item.get("protocols"), f"{where}.protocols"),
    )


def _text(item: Mapping[str, Any], name: str, where: str) -> str:
    value = item.get(name)
    if not isinstance(value, str) or not value:
        raise BadMessage(f"{where}.{name}: a string is expected")
    return value


def _names(value: Any, where: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > MAX_NAMES:
        raise BadMessage(f"{where}: an array of at most {MAX_NAMES} names of header fields is expected")
    for name in value:
        if not isinstance(name, str) or not _is_name(name):
            raise BadMessage(f"{where}: an array of names of header fields is expected")
    return tuple(name.lower() for name in value)


def _oversign(value: Any, where: str) -> tuple[str, ...] | Literal[True]:
    if isinstance(value, bool):
        return True if value else ()
    return _names(value, where)


def _end(item: Mapping[str, Any], where: str) -> tuple[datetime | None, timedelta | None]:
    value = item.get("expire")
    if value is None:
        return None, None
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value < _LATEST_S:
        if value <= MAX_LIFETIME_S:
            return None, timedelta(seconds=value)
        return datetime.fromtimestamp(value, UTC), None
    try:
        return parse_time(value), None
    except (ValueError, TypeError, AttributeError) as error:
        raise BadMessage(f"{where}.expire: a time as YYYY-MM-DD HH:MM:SS, or seconds, is expected") from error


def _canonicalization(value: Any, where: str) -> Canonicalizations:
    if value is None:
        return "relaxed/relaxed"
    known: Canonicalizations | None = next((word for word in get_args(Canonicalizations) if word == value), None)
    if known is None:
        raise BadMessage(f"{where}: one of {', '.join(CANONICALIZATIONS)} is expected")
    return known


def _protocols(value: Any, where: str) -> tuple[SigningProtocol, ...]:
    if value is None:
        return ("dkim",)
    if not isinstance(value, list) or not value or not all(word in PROTOCOLS for word in value):
        raise BadMessage(f"{where}: an array of {' and '.join(PROTOCOLS)} is expected")
    return tuple(dict.fromkeys(value))
