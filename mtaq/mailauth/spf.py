"""SPF: may the client send in the name of the reverse-path, and in that of its HELO (RFC 7208)?

Both identities are checked. The result is that of MAIL FROM; with the null reverse-path, whose MAIL FROM is
``postmaster`` at the HELO name (RFC 7208 §2.4), that of HELO. What else was found of HELO is told beside it and
changes nothing: a host may have a careless name and be right to send all the same.
Asks through ``mtaq.mailauth.asking``; applies no policy. What it passes on of strangers' words is one line of printable
ASCII of bounded length.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import idna

from mtaq.mailauth.asking import Steps
from mtaq.mailauth.spf_host import Client, HostCheck, Identity, is_name
from mtaq.mailauth.verdict import Verdict, Word
from mtaq.model.address import Address, address_text
from mtaq.model.dns import DnsAnswer, Question

#: Longest HELO that is looked at; what is longer is no name (RFC 1035 §2.3.4).
MAX_HELO = 255
_MAX_REASON = 200

_is_host_name = re.compile(r"(?:[a-z0-9_-]+\.)+(?![0-9]+\Z)[a-z0-9_-]+", re.IGNORECASE).fullmatch
_find_unprintable = re.compile(r"[^ -~]")


@dataclass(frozen=True, slots=True)
class SpfResult:
    """What SPF says of one transaction.

    Attributes:
        client_ip: An IPv4-mapped one as IPv4.
        helo: What the client called itself, in printable ASCII and cut.
        envelope: The reverse-path; ``None`` for the null one.
        receiver: Our name.
        mail_from: What was found of MAIL FROM; ``None`` for the null reverse-path.
        helo_identity: What was found of HELO.
    """

    client_ip: str
    helo: str
    envelope: Address | None
    receiver: str
    mail_from: Identity | None
    helo_identity: Identity

    @property
    def identity(self) -> Identity:
        """The identity whose result is the result."""
        return self.helo_identity if self.mail_from is None else self.mail_from

    @property
    def word(self) -> Word:
        """The result (RFC 7208 §2.6)."""
        return self.identity.word

    @property
    def domain(self) -> str:
        """The domain that the result is about, A-labels in lower case: what DMARC aligns. Empty when there is none."""
        return self.identity.domain

    @property
    def explanation(self) -> str:
        """Why: what the domain has to say of a ``fail``, else a sentence of ours. One line of printable ASCII."""
        return self.identity.explanation or _safe(self.identity.reason, _MAX_REASON)

    @property
    def reply_text(self) -> str:
        """What to tell the client of a ``fail``; the domain's words are marked as such (RFC 7208 §6.2, §11.5)."""
        said = self.identity.explanation
        if said is None:
            return f"SPF: {self.client_ip} may not send for {_safe(self.domain, MAX_HELO)}"
        return f"SPF: {_safe(self.domain, MAX_HELO)} explains: {said}"[:440]

    def to_json(self) -> Sequence[dict[str, Any]]:
        """Return its item of ``checks[]``; ``helo-spf`` is the word for HELO."""
        return [
            {
                "spf": self.word,
                "smtp.mailfrom": address_text(self.envelope),
                "smtp.helo": self.helo,
                "explanation": self.explanation,
                "helo-spf": self.helo_identity.word,
            }
        ]

    def verdicts(self) -> Sequence[Verdict]:
        """Return the result, and that of HELO beside it where the HELO name has a record (RFC 8601 §2.7.2)."""
        helo = Verdict("spf", self.helo_identity.word, self._reason(self.helo_identity), (("smtp.helo", self.helo),))
        if self.mail_from is None:
            return [helo]
        domain = self.mail_from.domain or _safe(address_text(self.envelope), MAX_HELO)
        mail_from = Verdict("spf", self.mail_from.word, self._reason(self.mail_from), (("smtp.mailfrom", domain),))
        return [mail_from] if self.helo_identity.word == "none" else [mail_from, helo]

    def _reason(self, identity: Identity) -> str:
        return _safe(identity.reason, _MAX_REASON)


def check_spf(
    *, client_ip: str, helo: str, envelope: Address | None, receiver: str, now: datetime | None = None
) -> Steps[SpfResult]:
    """
    Check both identities.

    Args:
        client_ip: Of the SMTP client, IPv4 or IPv6.
        helo: Whatever it called itself.
        envelope: The reverse-path; ``None`` is the null one.
        receiver: Our name, for explanations.
        now: Timezone-aware; for explanations that tell the time, 1970 when left out.

    Raises:
        ValueError: *client_ip* is no IP address.
    """
    client = Client(_address(client_ip), helo[:MAX_HELO], receiver, now)
    known: dict[Question, DnsAnswer] = {}
    mail_from = None
    if envelope is not None:
        local_part = envelope.local_part or "postmaster"  # RFC 7208 §4.3
        sender = _host_name(_a_labels(envelope.domain))
        mail_from = yield from HostCheck(client, local_part, sender, known).result()
    # Only then HELO, which changes nothing: a name of silent servers must not use up the time for the other.
    helo_identity = yield from HostCheck(client, "postmaster", _host_name(helo), known).result()
    return SpfResult(str(client.ip), _safe(helo, MAX_HELO), envelope, receiver, mail_from, helo_identity)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    ip = ipaddress.ip_address(text)
    if isinstance(ip, ipaddress.IPv4Address):
        return ip
    return ip.ipv4_mapped or ipaddress.IPv6Address(int(ip))  # without its scope


def _host_name(text: str) -> str:
    """Return *text* in lower case without the last dot; empty when it is no domain name of several labels (§4.3)."""
    name = text[: MAX_HELO + 1].removesuffix(".").lower()
    return name if _is_host_name(name) and is_name(name) else ""


def _a_labels(domain: str) -> str:
    """Return *domain* with A-labels (RFC 8616 §4); empty when it has no such form."""
    if domain.isascii():
        return domain
    try:
        return idna.encode(domain[: MAX_HELO + 1]).decode("ascii")
    except UnicodeError:  # idna.IDNAError is one
        return ""


def _safe(text: str, longest: int) -> str:
    return _find_unprintable.sub("?", text[:longest])
