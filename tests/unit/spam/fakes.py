"""Filters that say what a test wants, and who sent what they see."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime

from mtaq.mailauth.origin import Origin
from mtaq.mailauth.spam import SpamResult
from mtaq.model.address import Address

ORIGIN = Origin(
    client_ip="198.51.100.7",
    helo="client.test",
    envelope=Address("ada", "example.org"),
    recipients=("grace@example.com", "joan@example.com"),
    receiver="relay.test",
    queue_id="srv.id",
    received_at=datetime(2026, 5, 1, 5, 59, 58, tzinfo=UTC),
)


@dataclass
class Scripted:
    """Answers with *says*, or raises it; with ``None`` it never answers."""

    says: SpamResult | Exception | None
    name: str = "scripted"
    max_bytes: int = 1000
    at_once: int = 0
    most_at_once: int = 0
    seen: list[bytes] = field(default_factory=list)

    async def judge(self, content: bytes, origin: Origin, *, timeout_s: float) -> SpamResult:
        """Answer as told."""
        self.seen.append(content)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(0)
            if self.says is None:
                await asyncio.Event().wait()
            if isinstance(self.says, Exception):
                raise self.says
            assert self.says is not None
            return self.says
        finally:
            self.at_once -= 1
