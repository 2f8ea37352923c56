"""SMTP extensions switched off: what EHLO then announces, and which commands then are errors.

Pure; works on the wire's octets, because the session behind it knows all extensions all the time.
"""

from __future__ import annotations

import re

from mtaq.model.reply import Reply, reply
from mtaq.smtp import codes
from mtaq.smtp.dsn import decode_xtext

#: Each with the parameters of MAIL and RCPT, or the commands, that go with it.
EXTENSIONS: dict[str, tuple[bytes, ...]] = {
    "EHLO": (b"EHLO",),
    "PIPELINING": (),
    "SIZE": (b"SIZE",),
    "8BITMIME": (b"BODY",),
    "SMTPUTF8": (b"SMTPUTF8",),
    "CHUNKING": (b"BDAT",),
    "BINARYMIME": (),
    "ENHANCEDSTATUSCODES": (),
    "DSN": (b"RET", b"ENVID", b"NOTIFY", b"ORCPT"),
    "REQUIRETLS": (b"REQUIRETLS",),
    "STARTTLS": (b"STARTTLS",),
}
NOT_PIPELINING = reply(503, "5.5.0", "PIPELINING was not announced: wait for each reply")

_split_path = re.compile(rb"(?i:MAIL FROM|RCPT TO): ?<[^>]*>(.*)", re.DOTALL).match
_find_auth = re.compile(rb"(?i: AUTH)=(\S+)").search


def announced(ehlo_reply: bytes, without: frozenset[str]) -> bytes:
    """Return a positive reply to EHLO without the keywords of *without*."""
    if not without:
        return ehlo_reply
    gone = _gone(without)
    lines = [line[4:] for line in ehlo_reply.splitlines()]
    kept = [lines[0], *(line for line in lines[1:] if line.partition(b" ")[0].decode("latin-1") not in gone)]
    last = len(kept) - 1
    return b"".join(b"250%b%b\r\n" % (b" " if number == last else b"-", line) for number, line in enumerate(kept))


def objection(line: bytes, without: frozenset[str]) -> Reply | None:
    """Return what a host that does not know *without* answers to the command *line*; ``None`` when it would take it."""
    if not without:
        return None
    verb = line[:8].split(b" ", 1)[0].strip().upper()
    gone = _gone(without)
    if any(verb in EXTENSIONS[name] for name in gone):
        return codes.UNKNOWN_COMMAND
    return codes.UNKNOWN_PARAMETER if any(_names(word) in gone for word in _parameters(line)) else None


def _gone(without: frozenset[str]) -> frozenset[str]:
    return without | {"BINARYMIME"} if "CHUNKING" in without else without  # RFC 3030 §3: it needs BDAT


def _parameters(line: bytes) -> list[bytes]:
    match = _split_path(line)
    return match[1].split() if match is not None else []


def _names(parameter: bytes) -> str:
    """Return the extension that *parameter* belongs to."""
    name, _, value = parameter.upper().partition(b"=")
    if (name, value) == (b"BODY", b"BINARYMIME"):
        return "BINARYMIME"
    return next((extension for extension, words in EXTENSIONS.items() if name in words), "")


def submitter(line: bytes) -> str | None:
    """Return what AUTH= of the MAIL command *line* says (RFC 4954 §5), ``<>`` included; ``None`` without it."""
    match = _find_auth(line)
    if match is None:
        return None
    try:
        return decode_xtext(match[1]).decode("utf-8", "replace") if match[1] != b"<>" else "<>"
    except ValueError:
        return None
