"""Back ends that say what a test wants, and ways to the network that it controls."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from mtaq.smtpauth import Verdict


@dataclass
class Scripted:
    """Answers with *says*, or raises it; with ``None`` it never answers."""

    says: Verdict | Exception | None
    name: str = "scripted://"
    at_once: int = 10
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    now_asked: int = 0
    most_asked: int = 0
    closed: bool = False

    async def check(self, user: str, password: str, client_ip: str) -> Verdict:
        """Answer as told."""
        self.asked.append((user, password, client_ip))
        self.now_asked += 1
        self.most_asked = max(self.most_asked, self.now_asked)
        try:
            await asyncio.sleep(0)
            if self.says is None:
                await asyncio.Event().wait()
            if isinstance(self.says, Exception):
                raise self.says
            assert self.says is not None
            return self.says
        finally:
            self.now_asked -= 1

    async def close(self) -> None:
        """Note it."""
        self.closed = True
