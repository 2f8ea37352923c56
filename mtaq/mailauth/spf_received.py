"""The trace field that tells of SPF (RFC 7208 §9.1).

Half of it is the client's own words; whatever they are, they cannot end a line, a string or the field.
"""

from __future__ import annotations

import re

from mtaq.mailauth.spf import MAX_HELO, SpfResult
from mtaq.model.address import address_text

#: Octets; twice that, all of them escaped, fits a line of 998 (RFC 5322 §2.1.1).
_MAX_VALUE = 450
_MAX_COMMENT = 300

_is_dot_atom = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*").fullmatch
# C0, DEL, C1, the line and paragraph separators, lone surrogates.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_UNSAFE_COMMENT = re.compile(r"[^ -~]|[()\\]")
_ESCAPED = re.compile(r'(["\\])')


def received_spf(result: SpfResult) -> bytes:
    """
    Return the field, folded, with its line end.

    A reverse-path beyond ASCII stands there in UTF-8, as in the other fields of such a message (RFC 6532 §3.2).
    """
    pairs = [
        ("client-ip", result.client_ip),
        ("envelope-from", address_text(result.envelope)),
        ("helo", result.helo[:MAX_HELO]),
        ("receiver", result.receiver),
        ("identity", "helo" if result.mail_from is None else "mailfrom"),
    ]
    if result.identity.mechanism is not None:
        pairs.append(("mechanism", result.identity.mechanism))
    comment = _UNSAFE_COMMENT.sub("?", f"{result.receiver}: {result.explanation}"[:_MAX_COMMENT])
    lines = [f"Received-SPF: {result.word} ({comment})", *(f"{key}={_value(text)};" for key, text in pairs)]
    lines[-1] = lines[-1].removesuffix(";")
    return ("\r\n\t".join(lines) + "\r\n").encode()


def _value(text: str) -> str:
    text = _UNSAFE.sub("?", text).encode()[:_MAX_VALUE].decode("utf-8", "ignore")
    if _is_dot_atom(text):
        return text
    escaped = _ESCAPED.sub(r"\\\1", text)
    return f'"{escaped}"'
