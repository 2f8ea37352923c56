"""Value types of reception that name mailboxes, tags and ciphers.

Syntax only. A parser raises ``ValueError`` saying what is wrong and what is expected. Mailboxes are taken in the form
that operators have them in, a Dot-string at a domain name; ``mtaq.smtp.grammar`` knows the rest of RFC 5321, for peers.
"""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass

import idna

from mtaq.config.values import queue_name, split
from mtaq.model.address import Address

_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LABEL = r"(?![^.]{64})[A-Za-z0-9]+(?:-+[A-Za-z0-9]+)*"
_MAILBOX = re.compile(rf"({_ATOM}(?:\.{_ATOM})*)@({_LABEL}(?:\.{_LABEL})*)")
_LONGEST_TAG = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """Where a copy of everything accepted goes: one of the two.

    Attributes:
        queue: It gets the JSON of every recipient.
        address: It becomes one more recipient.
    """

    queue: str | None = None
    address: Address | None = None


def mailbox(text: str) -> Address:
    """``local-part@domain``, in angle brackets or without; as ``mtaq.smtp.grammar`` would return it."""
    bare = text[1:-1] if text.startswith("<") and text.endswith(">") else text
    match = _MAILBOX.fullmatch(bare)
    if match is None or len(match[1]) > 64 or len(match[2]) > 253:
        raise ValueError(f"{text!r} is not an address; expected one like journal@example.com")
    return Address(match[1], _with_u_labels(match[2].lower()))


def _with_u_labels(domain: str) -> str:
    try:
        return idna.decode(domain) if "xn--" in domain else domain
    except ValueError:  # idna.IDNAError is one
        return domain


def reverse_paths(text: str) -> tuple[Address, ...]:
    """Reverse-paths separated by ``;``; never the null one, which every notice has."""
    found = []
    for item in split(text, ";"):
        if item == "<>":
            raise ValueError("'<>' is the sender of every notice of failure, not of probes alone; expected addresses")
        found.append(mailbox(item))
    return tuple(dict.fromkeys(found))


def tags(text: str) -> tuple[str, ...]:
    """Tags separated by ``,``, each once: printable, at most 255 characters."""
    found = tuple(dict.fromkeys(split(text, ",")))
    for item in found:
        if not item.isprintable() or len(item) > _LONGEST_TAG:
            raise ValueError(f"{item[:40]!r} is not a tag; expected printable text of 1 to {_LONGEST_TAG} characters")
    return found


def archive(text: str) -> Archive:
    """A mailbox, told by its ``@``, or else a queue."""
    return Archive(address=mailbox(text)) if "@" in text else Archive(queue=queue_name(text))


def cipher_string(text: str) -> str:
    """An OpenSSL cipher string that selects something for TLS 1.2; those of TLS 1.3 are not chosen by it."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).set_ciphers(text)
    except (ssl.SSLError, ValueError):  # ValueError: a NUL inside
        raise ValueError(
            f"{text[:80]!r} selects no cipher of TLS 1.2; expected an OpenSSL cipher string like ECDHE+AESGCM"
        ) from None
    return text
