"""Does the client's address have a name that leads back to it (RFC 8601 §3)?

Asks through ``mtaq.mailauth.asking``. It says that somebody keeps a network's DNS in order, and nothing of who sends.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mtaq.mailauth.asking import Steps
from mtaq.mailauth.verdict import Verdict, Word
from mtaq.model.dns import Found, Question, RecordType

#: Names of one address that are looked at, as for SPF (RFC 7208 §4.6.4); only the first have a say.
MAX_NAMES = 10

_is_host_name = re.compile(r"(?=.{1,253}\Z)(?:[a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}").fullmatch


@dataclass(frozen=True, slots=True)
class IprevResult:
    """What the reverse look-up came to.

    Attributes:
        word: ``pass``, ``fail``, ``temperror``, or ``permerror`` where the address has no name (RFC 8601 §2.7.3).
        client_ip: An IPv4-mapped one as IPv4.
        name: Of a ``pass`` the name that leads back, of a ``fail`` the first that does not; empty when there is none.
            Letters, digits, hyphens, underscores and dots.
    """

    word: Word
    client_ip: str
    name: str = ""

    def to_json(self) -> Sequence[dict[str, Any]]:
        """Return its item of ``checks[]``."""
        return [{"iprev": self.word, "policy.iprev": self.client_ip, "name": self.name}]

    def verdicts(self) -> Sequence[Verdict]:
        """Return its part of Authentication-Results."""
        return [Verdict("iprev", self.word, self.name or None, (("policy.iprev", self.client_ip),))]


def check_iprev(client_ip: str) -> Steps[IprevResult]:
    """
    Look up the names of *client_ip*, and their addresses.

    A failure of DNS is ``temperror`` unless another name leads back.

    Raises:
        ValueError: It is no IP address.
    """
    ip = ipaddress.ip_address(client_ip)
    if isinstance(ip, ipaddress.IPv6Address):
        ip = ip.ipv4_mapped or ipaddress.IPv6Address(int(ip))  # without its scope
    (pointers,) = yield (Question(ip.reverse_pointer, "PTR"),)
    if pointers.found is Found.FAILED:
        return IprevResult("temperror", str(ip))
    names = [name for name in pointers.records[:MAX_NAMES] if _is_host_name(name)]
    if not names:
        return IprevResult("permerror", str(ip))
    kind: RecordType = "A" if ip.version == 4 else "AAAA"
    answers = yield [Question(name, kind) for name in names]
    for name, answer in zip(names, answers, strict=True):
        if any(ipaddress.ip_address(address) == ip for address in answer.records):
            return IprevResult("pass", str(ip), name)
    word: Word = "temperror" if any(answer.found is Found.FAILED for answer in answers) else "fail"
    return IprevResult(word, str(ip), names[0])
