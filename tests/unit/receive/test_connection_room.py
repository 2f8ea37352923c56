"""Content of several clients within one budget (``smtp-memory``): who waits, who is refused, and what is given back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mtaq.receive import holding
from mtaq.receive.connection import SmtpConnection
from mtaq.smtp import codes
from tests.unit.receive.fakes import policy
from tests.unit.receive.scene import Client, Scene

EHLO = b"EHLO client.test\r\n"
ENVELOPE = b"MAIL FROM:<ada@example.org>%b\r\nRCPT TO:<grace@example.com>\r\n"


def begun(scene: Scene, content: bytes, parameters: bytes = b"") -> tuple[SmtpConnection, Client]:
    """Connect one more client that has said DATA and *content*, not its end."""
    scene.connect()
    scene.connection.data_received(EHLO + ENVELOPE % parameters + b"DATA\r\n" + content)
    return scene.connection, scene.client


async def turns(count: int = 20) -> None:
    """Let everything run that can."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_content_that_was_let_in_and_refused_leaves_nothing_behind() -> None:
    """Its end came while it waited, and it was malformed: its client is silent now, and holds nothing."""
    scene = Scene(memory_bytes=1000).prepare()
    first, _ = begun(scene, b"x" * 900)
    second, heard = begun(scene, b"y" * 300)
    second.data_received(b"a bare\nline end\r\n.\r\n")
    assert b"550" not in heard.heard
    first.connection_lost(None)
    await turns()
    assert b"550 5.6.11" in heard.heard
    assert scene.service.memory.used_bytes == 0


async def test_content_that_comes_behind_a_message_is_counted_when_it_is_looked_at() -> None:
    """What a client pipelines while its message is stored is content held as soon as it is taken for it."""
    scene = Scene(memory_bytes=1000).prepare()
    first, _ = begun(scene, b"x\r\n.\r\n" + ENVELOPE % b"" + b"DATA\r\n" + b"y" * 200)
    await scene.until_published(1)
    scene.broker.settle(0)
    await turns()
    assert scene.service.memory.used_bytes == first.smtp.content_bytes == 200


async def test_a_declared_size_reserves_no_more_than_one_read_may_bring(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever declares much and sends nothing must not keep others out."""
    monkeypatch.setattr(holding, "FIRST_BYTES", 100)
    scene = Scene(memory_bytes=1000).prepare()
    first, _ = begun(scene, b"x" * 1000)
    scene.connect()
    scene.connection.data_received(EHLO + ENVELOPE % b" SIZE=900")
    first.connection_lost(None)
    await turns()
    assert scene.service.memory.used_bytes == 100


async def test_what_is_reserved_stays_until_content_comes_and_goes_with_the_transaction() -> None:
    """Between the answer to RCPT and the first octets nobody else takes the room; RSET gives it back."""
    scene = Scene(memory_bytes=1000).prepare()
    first, _ = begun(scene, b"x" * 1000)
    scene.connect()
    scene.connection.data_received(EHLO + ENVELOPE % b" SIZE=300")
    first.connection_lost(None)
    await turns()
    for command, reserved in ((b"NOOP\r\n", 300), (b"RSET\r\n", 0)):
        scene.connection.data_received(command)
        assert scene.service.memory.used_bytes == reserved


@pytest.mark.parametrize("chunks", [b"BDAT 400\r\n" + b"y" * 400, b"BDAT 200\r\n" + b"y" * 200 + b"BDAT 200\r\n"])
async def test_chunks_hold_room_between_them_until_rset(chunks: bytes) -> None:
    """Content by BDAT counts although the session waits for a command; RSET forgets it."""
    scene = Scene(memory_bytes=1000).prepare()
    scene.connect()
    scene.connection.data_received(EHLO + ENVELOPE % b"" + chunks)
    assert scene.service.memory.used_bytes == scene.connection.smtp.content_bytes > 0
    if scene.connection.smtp.in_content:
        scene.connection.data_received(b"y" * 200)
    scene.connection.data_received(b"RSET\r\n")
    assert scene.service.memory.used_bytes == 0


async def test_content_that_waits_is_not_read_on_for_ever() -> None:
    """A client whose content waits for room is not read beyond what may wait; it is when there is room."""
    scene = Scene(memory_bytes=1000).prepare()
    first, _ = begun(scene, b"x" * 900)
    second, client = begun(scene, b"y" * 300)
    for _ in range(10):
        second.data_received(b"y" * 65_536)
    assert not client.reads
    first.connection_lost(None)
    await turns()
    assert client.reads


async def test_stopping_does_not_cut_content_that_waits_for_room() -> None:
    """It is a transaction under way: it may finish, and is answered before the 421."""
    scene = Scene(memory_bytes=1000).prepare()
    first, _ = begun(scene, b"x" * 900)
    second, client = begun(scene, b"y" * 300)
    stopping = asyncio.create_task(scene.service.stop(30))
    await turns()
    first.connection_lost(None)
    await turns()
    assert b"421" not in client.heard
    second.data_received(b"\r\n.\r\n")
    await scene.until_published(1)
    scene.broker.settle(0)
    await stopping
    assert client.heard.index(b"250 2.6.0") < client.heard.index(b"421 4.3.2")


async def test_nothing_is_read_between_starttls_and_the_handshake(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when a client had sent so much behind a waiting MAIL that it was not read any more."""
    scene = Scene().prepare().connect(policy(smtp_range="127.0.0.0/8", starttls=True))
    answer = asyncio.get_running_loop().create_future()
    monkeypatch.setattr(scene.service.envelopes, "sender", lambda *_: waiting(answer))
    scene.connection.data_received(EHLO + b"MAIL FROM:<>\r\nSTARTTLS\r\n" + b"MAIL FROM:<x@y>\r\n" * 20_000)
    assert not scene.client.reads
    answer.set_result(codes.SENDER_OK)
    while not scene.client.heard.endswith(codes.START_TLS.encode()):
        await asyncio.sleep(0)
    assert not scene.client.reads
    assert scene.connection.smtp.buffered_bytes == 0


async def waiting(answer: asyncio.Future[Any]) -> Any:
    """Answer later."""
    return await answer
