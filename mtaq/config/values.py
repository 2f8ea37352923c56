"""The simple value types: how an operator's text becomes a number, a size, a word.

A parser takes the text without surrounding blanks and returns the value, or raises ``ValueError`` saying what is wrong
and what is expected. Addresses, hosts and lists of them are ``mtaq.config.addresses``'s work.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

T = TypeVar("T")
Word = TypeVar("Word", bound=str)

_BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_SIZE = re.compile(r"([0-9]{1,15})\s*(KB|MB|GB)?", re.IGNORECASE | re.ASCII)
_SIZE_UNITS = {"": 1, "KB": 1024, "MB": 1024**2, "GB": 1024**3}
_DURATION = re.compile(r"([0-9]{1,10}(?:\.[0-9]{1,6})?)\s*([smhd])?", re.ASCII)
_DURATION_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_TEN_YEARS_S = 10 * 365 * 86400
_NUMBER = re.compile(r"[0-9]{1,15}", re.ASCII)


def boolean(text: str) -> bool:
    """``true/false``, ``1/0``, ``yes/no``, in any case."""
    try:
        return _BOOLEANS[text.lower()]
    except KeyError:
        raise ValueError(f"{text!r} is not a boolean; expected true, false, yes, no, 1 or 0") from None


def integer(lowest: int, highest: int) -> Callable[[str], int]:
    """A whole number between two bounds, both allowed."""

    def parse(text: str) -> int:
        if not _NUMBER.fullmatch(text) or not lowest <= int(text) <= highest:
            raise ValueError(f"{text!r} is out of place; expected a whole number from {lowest} to {highest}")
        return int(text)

    return parse


def byte_count(text: str) -> int:
    """Bytes: a plain number, or one with ``KB``, ``MB`` or ``GB`` (powers of 1024). At least 1."""
    match = _SIZE.fullmatch(text)
    size = int(match[1]) * _SIZE_UNITS[(match[2] or "").upper()] if match else 0
    if size < 1:
        raise ValueError(f"{text!r} is not a size; expected bytes, or a number with KB, MB or GB, at least 1 byte")
    return size


def exact_seconds(text: str) -> float:
    """Seconds, fractions allowed; ``10m``, ``2h`` and ``1d`` too. More than 0, at most ten years."""
    match = _DURATION.fullmatch(text)
    duration_s = float(match[1]) * _DURATION_UNITS[match[2] or ""] if match else -1.0
    if not 0 < duration_s <= _TEN_YEARS_S:
        raise ValueError(f"{text!r} is not a duration; expected seconds above 0, or a number with m, h or d")
    return duration_s


def seconds(text: str) -> int:
    """Whole seconds; ``10m``, ``2h`` and ``1d`` too. At least 1, at most ten years."""
    try:
        duration_s = exact_seconds(text)
    except ValueError:
        duration_s = 0.0
    if duration_s < 1 or duration_s != int(duration_s):
        raise ValueError(f"{text!r} is not a duration; expected whole seconds from 1, or a number with m, h or d")
    return int(duration_s)


def seconds_or_zero(text: str) -> int:
    """As ``seconds``, and 0 is allowed: it switches the thing off."""
    return 0 if re.fullmatch("0+[smhd]?", text) else seconds(text)


def seconds_list(text: str) -> tuple[int, ...]:
    """One or more durations in whole seconds, separated by ``,``."""
    found = tuple(seconds(item) for item in split(text, ","))
    if not found:
        raise ValueError("no duration given; expected seconds separated by commas")
    return found


def choice(*words: Word) -> Callable[[str], Word]:
    """One of some words, in any case."""
    known = {word.lower(): word for word in words}

    def parse(text: str) -> Word:
        try:
            return known[text.lower()]
        except KeyError:
            raise ValueError(f"{text!r} is not known here; expected {one_of(words)}") from None

    return parse


def optional(parser: Callable[[str], T]) -> Callable[[str], T | None]:
    """What *parser* takes, or nothing: ``None`` stands for an empty value."""

    def parse(text: str) -> T | None:
        return parser(text) if text else None

    return parse


def credential(text: str) -> str:
    """A user name or a password, without control characters."""
    if not text.isprintable():
        raise ValueError("there are control characters in it; expected a text without")
    return text


def mask_all(text: str) -> str:
    """Hide a text; that there is none may be seen."""
    return "***" if text else ""


def absolute_path(text: str) -> str:
    """A path from the root, so that it means the same wherever the program is started."""
    if not text.startswith("/"):
        raise ValueError(f"{text!r} is not an absolute path; expected one that starts with /")
    return text


def queue_name(text: str) -> str:
    """A queue's or an exchange's name: 1-255 bytes, not one that the broker reserves (AMQP 0-9-1 §1.4.2.1)."""
    if not 1 <= len(text.encode()) <= 255:
        raise ValueError("expected a name of 1 to 255 bytes")
    if text.startswith("amq."):
        raise ValueError(f"{text!r} is reserved by the broker; expected a name that does not start with amq.")
    return text


def server_id(text: str) -> str:
    """The first part of message ids: 1-31 letters, digits or dashes, so that an id stays within 64 characters."""
    if not re.fullmatch("[A-Za-z0-9-]{1,31}", text):
        raise ValueError(f"{text!r} does not fit into message ids; expected 1 to 31 letters, digits or dashes")
    return text


def log_targets(text: str) -> tuple[str, ...]:
    """Where log lines go: ``stdout``, ``stderr``, ``syslog`` or absolute paths, separated by ``,``."""
    found = tuple(dict.fromkeys(split(text, ",")))
    for item in found:
        if item not in ("stdout", "stderr", "syslog") and not item.startswith("/"):
            raise ValueError(f"{item!r} is not a log; expected stdout, stderr, syslog or an absolute path")
    return found


class DeliveryTimeouts(NamedTuple):
    """Longest waits in seconds while delivering, one per phase (RFC 5321 §4.5.3.2).

    Attributes:
        connect: For the TCP connection to one IP address.
        banner: For the 220 greeting (§4.5.3.2.1).
        ehlo: For the reply to EHLO or HELO.
        tls: For the TLS handshake.
        auth: For a login at a smarthost.
        mail: For the reply to MAIL (§4.5.3.2.2).
        rcpt: For the reply to RCPT (§4.5.3.2.3).
        data: For the 354 (§4.5.3.2.4).
        block: For the peer to take the next piece of content (§4.5.3.2.5).
        dot: For the reply to the final dot (§4.5.3.2.6).
    """

    connect: int = 30
    banner: int = 300
    ehlo: int = 300
    tls: int = 60
    auth: int = 60
    mail: int = 300
    rcpt: int = 300
    data: int = 120
    block: int = 180
    dot: int = 600


def delivery_timeouts(text: str) -> DeliveryTimeouts:
    """``connect=30,dot=10m``: what is named differs from RFC 5321, the rest stays."""
    named: dict[str, int] = {}
    for item in split(text, ","):
        name, equals, value = (part.strip() for part in item.partition("="))
        if not equals or name not in DeliveryTimeouts._fields:
            raise ValueError(
                f"{item!r} is not a timeout; expected phase=seconds with {one_of(DeliveryTimeouts._fields)}"
            )
        if name in named:
            raise ValueError(f"{name!r} is given twice; expected each phase once")
        named[name] = seconds(value)
    return DeliveryTimeouts(**named)


def split(text: str, separator: str) -> list[str]:
    """Split a list; blanks around items and empty items do not count."""
    return [item for item in (part.strip() for part in text.split(separator)) if item]


def one_of(words: Sequence[str]) -> str:
    """``a, b or c``."""
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
