"""Clients that do anything at any time: nothing is left of them, whatever was under way.

Each round draws, from a seed, clients, what they send and when, and how hooks, back ends and the broker answer. In the
end no content, no lease, no slot and no task may be held, and nothing may have failed unseen.
"""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import pytest

from mtaq.model.decision import Decision, accept, defer, drop, reject
from mtaq.model.login import Verdict
from mtaq.model.message import TlsFacts
from mtaq.receive import holding
from mtaq.receive.connection import SmtpConnection
from mtaq.receive.policy import PortPolicy
from mtaq.smtp import codes
from mtaq.smtp.scram import ScramKeys
from tests.unit.receive.fakes import policy
from tests.unit.receive.scene import Client, Scene

ROUNDS = 40
ENVELOPE = b"EHLO client.test\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.com>\r\n"
WORDS = (
    b"EHLO client.test\r\n", b"HELO client.test\r\n", b"MAIL FROM:<a@example.org> SIZE=900\r\n", b"RSET\r\n",
    b"RCPT TO:<b@example.com>\r\n", b"RCPT TO:<c@example.com>\r\n", b"DATA\r\n", b"\r\n.\r\n", b"NOOP\r\n", b"*\r\n",
    b"STARTTLS\r\n", b"QUIT\r\n", b"AUTH PLAIN AGEAYg==\r\n", b"AUTH SCRAM-SHA-256 biwsbj11c2VyLHI9YWJjZGVm\r\n",
    b"a bare\nline end\r\n.\r\n", b"x" * 700 + b"\r\n", b"BDAT 300\r\n" + b"y" * 300, b"BDAT 10 LAST\r\n0123456789",
    ENVELOPE, ENVELOPE + b"DATA\r\n" + b"z" * 900 + b"\r\n.\r\n", ENVELOPE + b"BDAT 900\r\n" + b"z" * 300,
)  # fmt: skip


class Deciding:
    """A hook and a back end that answer anything, after a while or at once."""

    knows_passwords = True

    def __init__(self, chance: Random) -> None:
        self._chance = chance

    async def _decide(self) -> Decision:
        for _ in range(self._chance.randrange(6)):
            await asyncio.sleep(0)
        return self._chance.choice((accept(), accept(), accept(), reject(), defer()))

    async def sender(self, session: dict[str, Any]) -> Decision:
        """Judge it."""
        return await self._decide()

    async def recipient(self, session: dict[str, Any]) -> Decision:
        """Judge it."""
        return await self._decide()

    async def message(self, message: dict[str, Any]) -> Decision:
        """Judge it, or drop it."""
        return self._chance.choice((await self._decide(), drop()))

    async def check(self, user: str, password: str, *, client_ip: str) -> Verdict:
        """Judge a login."""
        await self._decide()
        return self._chance.choice(tuple(Verdict))

    async def scram_keys(self, user: str) -> ScramKeys | None:
        """Know nobody."""
        await self._decide()
        return None


class NoCertificate:
    """TLS that is there already; a handshake fails, for there is no network."""

    def facts(self, session: object) -> TlsFacts:
        """Return the usual."""
        return TlsFacts(version="TLSv1.3", cipher="TLS_AES_256_GCM_SHA384")

    def peer_user(self, session: object) -> str | None:
        """Nobody."""
        return None


class Storm:
    """Some clients of one service."""

    def __init__(self, chance: Random, port_policy: PortPolicy) -> None:
        self._chance = chance
        self.scene = Scene(memory_bytes=chance.choice((500, 5_000, 1_000_000))).prepare()
        self.scene.service.configure({}, {25: NoCertificate()})
        self.scene.service.logins._failure_delay_s = 0
        port_policy.hook = chance.choice((None, Deciding(chance)))
        port_policy.logins = Deciding(chance)
        self.clients: list[tuple[SmtpConnection, Client]] = []
        for _ in range(chance.randrange(1, 4)):
            self.scene.connect(port_policy, tls=chance.random() < 0.5)
            self.clients.append((self.scene.connection, self.scene.client))

    async def step(self) -> None:
        """Let something happen."""
        chance = self._chance
        connection, client = chance.choice(self.clients)
        if chance.random() < 0.25:
            self.settle(None if chance.random() < 0.8 else OSError("surprise"))
        if chance.random() < 0.25:
            await asyncio.sleep(chance.choice((0, 0, 0.003)))
        if connection.transport is None:
            return
        if not client.closed and chance.random() < 0.75:
            words = chance.choice(WORDS)
            cut = chance.randrange(1, len(words))
            for piece in (words[:cut], words[cut:]) if chance.random() < 0.3 else (words,):
                if not client.closed:
                    connection.data_received(piece)
            return
        chance.choice((
            lambda: connection.connection_lost(None), connection.pause_writing, connection.resume_writing,
            lambda: connection.eof_received() or client.close(), lambda: connection.finish(codes.SHUTTING_DOWN),
            lambda: connection.check_deadlines(asyncio.get_running_loop().time() + chance.choice((0, 400, 4000))),
        ))()  # fmt: skip

    def settle(self, error: Exception | None) -> None:
        """Have the broker answer the oldest publish."""
        number = next((n for n, (_, _, future) in enumerate(self.scene.broker.waiting) if not future.done()), None)
        if number is not None:
            self.scene.broker.settle(number, error)

    async def end(self) -> None:
        """Stop the service; everybody is gone afterwards."""
        stopping = asyncio.create_task(self.scene.service.stop(5))
        while not stopping.done():
            self.settle(None)
            await asyncio.sleep(0)
            for connection, client in self.clients:
                if client.closed and connection.transport is not None:
                    connection.connection_lost(None)
        await stopping
        for connection, _ in self.clients:
            if connection.transport is not None:
                connection.connection_lost(None)


@pytest.mark.parametrize("seed", range(ROUNDS))
async def test_nothing_is_left_of_anybody(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory, slots and tasks are free once all clients are gone, and no error went unseen."""
    monkeypatch.setattr(holding, "WAIT_S", 0.002)
    unseen: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unseen.append(context))
    chance = Random(seed)
    storm = Storm(chance, policy(smtp_range="127.0.0.0/8", smtp_hostname="relay.test", starttls=True))
    for _ in range(chance.randrange(20, 120)):
        await storm.step()
    for connection, _ in storm.clients:  # content that never ends would be waited for
        if connection.transport is not None and connection.smtp.in_content:
            connection.connection_lost(None)
    await storm.end()
    service = storm.scene.service
    assert service.memory.used_bytes == service.memory.waiting == 0
    assert not service.memory.is_full
    assert len(storm.scene.slots.released) == len(storm.clients)
    assert not service._tasks
    assert unseen == []
