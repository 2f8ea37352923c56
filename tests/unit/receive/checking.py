"""DNS for checks, out of a dictionary, and who sent what is checked."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mtaq.mailauth.origin import Origin
from mtaq.mailauth.spam import SpamResult
from mtaq.model.address import Address
from mtaq.model.dns import Ask, DnsAnswer, Found, Question
from tests.unit.receive.fakes import NOW

#: Where the reverse-path, the author and the client are in order with each other.
RECORDS: Mapping[tuple[str, str], Any] = {
    ("example.org", "TXT"): ((b"v=spf1 ip4:198.51.100.7 -all",),),
    ("_dmarc.example.org", "TXT"): ((b"v=DMARC1; p=reject",),),
    ("7.100.51.198.in-addr.arpa", "PTR"): ("client.test",),
    ("client.test", "A"): ("198.51.100.7",),
}

CONTENT = b"From: Ada <ada@example.org>\r\nSubject: hello\r\n\r\nhello\r\n"

ORIGIN = Origin(
    client_ip="198.51.100.7",
    helo="client.test",
    envelope=Address("ada", "example.org"),
    recipients=("grace@example.com",),
    receiver="relay.test",
    queue_id="srv.id",
    received_at=NOW,
)

HAM = SpamResult("ham", "spamassassin", 0.1, 5.0, ("RULE",))
SPAM = SpamResult("spam", "spamassassin", 9.0, 5.0, ("RULE",))


@dataclass
class Dns:
    """Answers from *records*; for names in *silent* never, for those in *failing* with a failure."""

    records: Mapping[tuple[str, str], Any] = field(default_factory=lambda: RECORDS)
    silent: frozenset[str] = frozenset()
    failing: frozenset[str] = frozenset()
    asked: list[str] = field(default_factory=list)

    def inquiry(self, *, timeout_s: float) -> Ask:
        """Return who answers, as long as he likes."""
        return self.ask

    async def ask(self, question: Question) -> DnsAnswer:
        """Answer."""
        self.asked.append(question.name)
        if question.name in self.silent:
            await asyncio.Event().wait()
        if question.name in self.failing:
            return DnsAnswer(Found.FAILED, reason="SERVFAIL")
        records = self.records.get((question.name, question.kind))
        return DnsAnswer(Found.NO_NAME) if records is None else DnsAnswer(Found.RECORDS, records)


@dataclass
class Filter:
    """Says always the same of spam, or never anything."""

    says: SpamResult | None = HAM
    seen: list[bytes] = field(default_factory=list)

    async def judge(self, content: bytes, origin: Origin) -> SpamResult:
        """Judge."""
        self.seen.append(content)
        if self.says is None:
            await asyncio.Event().wait()
        assert self.says is not None
        return self.says
