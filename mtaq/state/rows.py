"""An entry about delivery as JSON, for the database and for whoever lists entries; and back.

Follows the types of the data classes. What is as by default is left out, so an entry that an older program wrote is
read by a newer one that knows more fields.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import date, datetime
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from mtaq.model.control import (
    DkimKey,
    DnsOverride,
    Entry,
    FloodPattern,
    ForcedError,
    Pause,
    Pool,
    ResponsePattern,
    RewriteRule,
    Throttle,
    TlsLevel,
    WarmUp,
)
from mtaq.model.times import format_time, parse_time

T = TypeVar("T")

KINDS: Mapping[str, type[Entry]] = {
    "throttles": Throttle,
    "pauses": Pause,
    "forced_errors": ForcedError,
    "rewrite_rules": RewriteRule,
    "flood_patterns": FloodPattern,
    "response_patterns": ResponsePattern,
    "warm_ups": WarmUp,
    "dkim_keys": DkimKey,
    "pools": Pool,
    "dns_overrides": DnsOverride,
    "tls_levels": TlsLevel,
}
"""The kinds of entries, as the database and those who are told of changes call them. Suppressions are kept apart."""


def kind_of_entry(entry: Entry) -> str:
    """Return the kind of *entry*."""
    return next(kind for kind, cls in KINDS.items() if type(entry) is cls)


def to_json(value: Any, *, complete: bool = False) -> Any:
    """Return an entry, or a part of one, as JSON; secrets are among it. *complete* has what is as by default, too."""
    if dataclasses.is_dataclass(value):
        found = {each.name: (getattr(value, each.name), each.default) for each in dataclasses.fields(value)}
        # An empty text where the default is None means something: the null reverse-path.
        return {
            name: to_json(item, complete=complete)
            for name, (item, default) in found.items()
            if complete or (item != default and item != {})
        }
    if isinstance(value, datetime):
        return format_time(value)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, tuple):
        return [to_json(item, complete=complete) for item in value]
    return dict(value) if isinstance(value, Mapping) else value


def from_json(cls: type[T], value: Mapping[str, Any]) -> T:
    """Read an entry of *cls*; properties that it does not have are passed over.

    Raises:
        ValueError: It is none.
    """
    try:
        types = _types(cls)
        return cls(**{name: _read(types[name], item) for name, item in value.items() if name in types})
    except (TypeError, AttributeError, KeyError) as error:
        raise ValueError(f"no {cls.__name__}: {error}") from error


_TYPES: dict[object, Mapping[str, Any]] = {}


def _types(cls: type) -> Mapping[str, Any]:
    if cls not in _TYPES:
        _TYPES[cls] = get_type_hints(cls)
    return _TYPES[cls]


def _read(wanted: Any, value: Any) -> Any:
    origin = get_origin(wanted)
    if origin in (Union, UnionType):
        (wanted,) = (each for each in get_args(wanted) if each is not NoneType)
        return None if value is None else _read(wanted, value)
    if origin is tuple:
        return tuple(_read(get_args(wanted)[0], item) for item in value)
    if origin is Literal and value not in get_args(wanted):
        raise ValueError(f"{value!r} is none of {get_args(wanted)}")
    if wanted is datetime:
        return parse_time(value)
    if wanted is date:
        return date.fromisoformat(value)
    return from_json(wanted, value) if dataclasses.is_dataclass(wanted) and isinstance(wanted, type) else value
