"""Bounces that follow no standard, recognised by flufl.bounce, which is an optional package, or by their recipient.

Only for mail that can hardly be anything else: with the null reverse-path, or from a mail system by its own words. Of
such a bounce nothing is known but whom it is about, and what flufl.bounce takes for temporary. Its patterns are for
short lines of text, so it is given just the beginning of a mail, and no long lines.
"""

from __future__ import annotations

import email
import logging
import re
from collections.abc import Iterable
from functools import cache
from typing import Any, Protocol

from mtaq.mime.headers import header_end
from mtaq.model.address import Address
from mtaq.reports.original import original_of
from mtaq.reports.parts import Part
from mtaq.reports.report import NotAReport, Report
from mtaq.reports.verp import verp_recipient

#: What is shown to the patterns of flufl.bounce, some of which take quadratic time for a line.
SHOWN_BYTES = 32 * 1024
LINE_BYTES = 400

RECIPIENTS_LIMIT = 100

#: Names that mail systems give themselves; looked for before the field, because most mail has none of them.
_SYSTEMS = (b"mailer-daemon", b"mailerdaemon", b"postmaster", b"mail delivery", b"postoffice", b"post_office")
_is_from_system = re.compile(rb"^from:[^\n]*(?:" + b"|".join(_SYSTEMS) + rb")", re.MULTILINE).search
_is_automatic_answer = re.compile(rb"^auto-submitted:[ \t]*auto-replied", re.MULTILINE).search
_is_address = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`|~-]{1,64}@[A-Za-z0-9._-]{1,255}").fullmatch
_LONG_LINE = re.compile(rb"([^\n]{%d})[^\n]+" % LINE_BYTES)


class _Scan(Protocol):
    def __call__(self, msg: Any) -> tuple[Iterable[bytes], Iterable[bytes]]: ...


@cache
def _scan() -> _Scan | None:
    """Return flufl.bounce's function, if the package is there."""
    try:
        from flufl.bounce import all_failures  # an extra: absent, nothing is recognised by it
    except ImportError:
        return None
    logging.getLogger("flufl.bounce").setLevel(logging.CRITICAL + 1)  # it tells of each mail that it stumbles over
    found: _Scan = all_failures
    return found


def lowered_header(content: bytes) -> bytes:
    """Return the header section in lower case, or how it begins: enough to find words in."""
    return content[: header_end(content, SHOWN_BYTES)].lower()


def may_be_bounce(header: bytes, envelope: str) -> bool:
    """Can mail with this header section, in lower case, hardly be anything else?"""
    return not envelope or (any(word in header for word in _SYSTEMS) and _is_from_system(header) is not None)


def read_odd(content: bytes, parts: Iterable[Part], recipient: Address | None) -> Report:
    """
    Recognise *content* for which ``may_be_bounce`` is true.

    Raises:
        NotAReport: It is no bounce that anybody knows.
    """
    temporary, permanent = _failures(content)
    found = [_recipient(address, "delayed") for address in temporary]
    found += [_recipient(address, "failed") for address in permanent]
    properties: dict[str, Any] = {"recipients": found, "recognised-by": "flufl.bounce"}
    if not found:
        named = _named(content, recipient)
        properties = {"recipients": [{"final-recipient": named}], "recognised-by": "verp"}
    original = original_of(list(parts))
    if original is not None:
        properties["original"] = original
    return Report("dsn", properties)


def _recipient(address: str, action: str) -> dict[str, str]:
    return {"final-recipient": address, "action": action}


def _named(content: bytes, recipient: Address | None) -> str:
    """Return whom the return address names, if a mail system writes to it."""
    header = lowered_header(content)
    named = verp_recipient(recipient)
    if named is None or not _is_from_system(header) or _is_automatic_answer(header):
        raise NotAReport("not a bounce that anybody knows")
    return named


def _failures(content: bytes) -> tuple[list[str], list[str]]:
    scan = _scan()
    if scan is None:
        return [], []
    shown = _LONG_LINE.sub(rb"\1", content[:SHOWN_BYTES])
    try:
        temporary, permanent = scan(email.message_from_bytes(shown))
    except Exception as error:  # its patterns and the email package meet what nobody thought of
        raise NotAReport(f"flufl.bounce: {error}") from error
    return _addresses(temporary), _addresses(permanent)


def _addresses(found: Iterable[bytes]) -> list[str]:
    texts = sorted(address.decode("ascii", "replace") for address in found)
    return [text for text in texts if _is_address(text)][:RECIPIENTS_LIMIT]
