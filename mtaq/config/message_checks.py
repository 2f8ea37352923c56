"""Value types of what is checked of a message: ``smtp-check`` and what follows from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeVar, get_args
from urllib.parse import urlsplit

from mtaq.config.values import choice, split

Check = Literal["spf", "dkim", "dmarc", "arc", "iprev", "spam"]
"""What can be checked, in the order of ``checks[]``."""

Reject = Literal["spf", "dmarc", "spam"]
"""What a message can be refused for."""

Recipients = Literal["local", "nonlocal"]
"""For whom Authentication-Results is written."""

CHECKS: tuple[Check, ...] = get_args(Check)

Word = TypeVar("Word", bound=str)


def _some(*words: Word) -> Callable[[str], tuple[Word, ...]]:
    """Some of *words*, separated by ``,``, in the order of *words*."""
    known = choice(*words)

    def parse(text: str) -> tuple[Word, ...]:
        given = {known(item) for item in split(text, ",")}
        return tuple(word for word in words if word in given)

    return parse


checks: Callable[[str], tuple[Check, ...]] = _some(*CHECKS)
rejects: Callable[[str], tuple[Reject, ...]] = _some(*get_args(Reject))
auth_results: Callable[[str], tuple[Recipients, ...]] = _some(*get_args(Recipients))


def filter_address(text: str) -> str:
    """``http(s)://host:port``, a path in front of Rspamd's own perhaps; a name and password may stand in it.

    Raises:
        ValueError: What is expected; the value itself is never repeated, it may hold a password.
    """
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not text.isascii() or not text.isprintable() or any(mark in text for mark in " ?#"):
        raise ValueError("not the address of a web server; expected http(s)://host:port")
    return text.rstrip("/")
