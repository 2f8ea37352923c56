"""A mailbox in an SMTP envelope (RFC 5321 §4.1.2), already parsed.

Holds only; what is a legal address is decided by ``mtaq.smtp.grammar``.
"""

from __future__ import annotations

from typing import NamedTuple


class Address(NamedTuple):
    """One mailbox. The null reverse-path ``<>`` is not an ``Address`` but ``None`` (RFC 5321 §4.5.5).

    Attributes:
        local_part: As written by the peer, quotes included when it is a Quoted-string; UTF-8 text.
        domain: Lower case, UTF-8 (U-labels) without a trailing dot; or an address literal with its brackets; or empty
            for the bare ``postmaster`` of RFC 5321 §4.1.1.3.
    """

    local_part: str
    domain: str

    def __str__(self) -> str:
        return f"{self.local_part}@{self.domain}" if self.domain else self.local_part

    @property
    def is_ascii(self) -> bool:
        """Can a peer without SMTPUTF8 be told this address as it stands?"""
        return self.local_part.isascii() and self.domain.isascii()


def address_text(path: Address | None) -> str:
    """Return a path as the JSON and the logs spell it: ``""`` for the null reverse-path."""
    return "" if path is None else str(path)


def address_parts(address: str) -> dict[str, str]:
    """Return the ``local`` and ``domain`` of *address* as the JSON has them; both are empty for the null path."""
    local_part, _, domain = address.rpartition("@")
    return {"local": local_part, "domain": domain} if local_part else {"local": domain, "domain": ""}
