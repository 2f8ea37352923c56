"""The options of the runtime state: where it is kept, how processes hear of changes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from mtaq.config.option import option
from mtaq.config.values import optional, queue_name, seconds

_EXPECTED = "expected sqlite:///path/to/file, or postgresql://user:password@host:port/database"
_find_password = re.compile(r"password=[^&]*", re.IGNORECASE)


def database_address(text: str) -> str:
    """``sqlite:///path/to/file``, or a URL as PostgreSQL's own programs take it.

    Raises:
        ValueError: What is expected; the value itself is never repeated, it may hold a password.
    """
    if not text.isprintable() or " " in text:
        raise ValueError(f"a blank or a control character is in it; {_EXPECTED}")
    try:
        parts = urlsplit(text)
    except ValueError:
        raise ValueError(f"not a URL; {_EXPECTED}") from None
    if parts.scheme == "sqlite":
        if not text.startswith("sqlite:///") or not parts.path.strip("/") or parts.query or parts.fragment:
            raise ValueError("a file is missing; expected sqlite:/// and an absolute path: sqlite:///var/lib/mtaq/x.db")
    elif parts.scheme not in ("postgresql", "postgres") or not re.match(r"postgres(ql)?://", text):
        raise ValueError(f"unknown form; {_EXPECTED}")
    return text


def mask_database(text: str) -> str:
    """Hide the passwords in an address, before the host and behind the ``?``."""
    scheme, slashes, rest = text.partition("://")
    if not slashes:
        return text and "***"
    credentials, at, place = rest.rpartition("@")
    user, colon, _ = credentials.partition(":")
    return _find_password.sub("password=***", f"{scheme}://{user}{colon}{'***' if colon else ''}{at}{place}")


# One option is one paragraph here; the formatter would give every argument a line. option() stands for a field.
# fmt: off

@dataclass(frozen=True, kw_only=True)
class StateOptions:
    """What operators change while mtaq runs: local addresses, the blocked list, names of source addresses."""

    database_address: str | None = option(
        optional(database_address), "", words="`mtaq.db` in `data-directory`", secret=mask_database,
        example="postgresql://mtaq:secret@db.example.com/mtaq",
        doc="Database of the runtime state: `sqlite:///path/to/file` for the processes of one host, "
            "`postgresql://user:password@host:port/database` for several instances. "
            "The tables are made and brought up to date by mtaq.")
    database_ttl: int = option(
        seconds, "600", unit="seconds",
        doc="Every process reads the whole runtime state again at least this often. "
            "Changes made by mtaq's own verbs arrive within two seconds.")
    cluster_exchange: str | None = option(
        optional(queue_name), "mtaq.cluster",
        doc="RabbitMQ exchange by which processes tell each other that the runtime state has changed. "
            "Without it, or on the embedded queue, they find out by looking.")
