"""What a sender wants to be told about a message (RFC 3461): the ``dsn`` property, understood.

Values are decoded, as the JSON has them; ``mtaq.smtp`` writes them for the wire. What is absent is ``None``: relays
must tell the difference between nothing asked and the default asked for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Ret = Literal["FULL", "HDRS"]
"""How much of a message its notice returns (RFC 3461 §4.3)."""

NOTIFY_WORDS = ("FAILURE", "DELAY", "SUCCESS")
"""What NOTIFY asks for, but for ``NEVER``, which stands alone (RFC 3461 §4.1)."""

#: RFC 3461 §4.4, §4.2.
_ENVID_MAX, _ORCPT_MAX = 100, 500
_match_orcpt = re.compile(r"([A-Za-z0-9-]{1,40});(.+)", re.DOTALL).fullmatch
# C0, DEL, C1, the line and paragraph separators, lone surrogates.
_find_unprintable = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]").search


@dataclass(frozen=True, slots=True, kw_only=True)
class DsnRequest:
    """What was asked.

    Attributes:
        notify: ``("NEVER",)``, or some of the other words.
        ret: How much comes back.
        orcpt: The recipient as the sender named it, with its type: ``rfc822;user@example.test``.
        envid: The sender's own name for the transaction.
    """

    notify: tuple[str, ...] | None = None
    ret: Ret | None = None
    orcpt: str | None = None
    envid: str | None = None


NOTHING_ASKED = DsnRequest()


def parse_notify_words(text: str) -> tuple[str, ...]:
    """
    Read the words of NOTIFY, separated by commas, in any case.

    Raises:
        ValueError: They are neither ``NEVER`` nor some of the others, each once.
    """
    words = tuple(word.strip().upper() for word in text.split(","))
    if words != ("NEVER",) and (len(set(words)) < len(words) or not set(words) <= set(NOTIFY_WORDS)):
        raise ValueError("NEVER is expected, or FAILURE, DELAY and SUCCESS with commas")
    return words


def parse_dsn(properties: Mapping[str, Any]) -> DsnRequest:
    """
    Understand ``dsn``; ``null`` counts as absent.

    Raises:
        ValueError: A value of the wrong form, naming it.
    """
    for name in ("notify", "ret", "orcpt", "envid"):
        if not isinstance(properties.get(name), str | None):
            raise ValueError(f"{name}: a string is expected")
    notify, ret = properties.get("notify"), properties.get("ret")
    try:
        words = None if notify is None else parse_notify_words(notify)
    except ValueError as error:
        raise ValueError(f"notify: {error}") from None
    if ret is not None and ret.upper() not in ("FULL", "HDRS"):
        raise ValueError("ret: FULL or HDRS is expected")
    return DsnRequest(
        notify=words,
        ret=None if ret is None else ("FULL" if ret.upper() == "FULL" else "HDRS"),
        orcpt=_orcpt(properties.get("orcpt")),
        envid=_envid(properties.get("envid")),
    )


def _orcpt(text: str | None) -> str | None:
    if text is None:
        return None
    match = _match_orcpt(text)
    if match is None or len(text) > _ORCPT_MAX or _find_unprintable(text):
        raise ValueError("orcpt: a type, a semicolon and an address are expected, such as rfc822;ada@example.com")
    return text if text.isascii() else f"utf-8;{match[2]}"  # RFC 6533 §3: no other type holds it


def _envid(text: str | None) -> str | None:
    if text is not None and not (0 < len(text) <= _ENVID_MAX and text.isascii() and text.isprintable()):
        raise ValueError(f"envid: 1 to {_ENVID_MAX} printable ASCII characters are expected")
    return text
