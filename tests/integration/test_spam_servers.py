"""Spam filters that are really there: Debian's spamd and Rspamd; and servers that are none, or silent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mtaq.mailauth.spam import SpamResult
from mtaq.net.http import request
from mtaq.net.streams import connected
from mtaq.spam.filter import SpamFilter
from mtaq.spam.ports import Engine
from mtaq.spam.rspamd import Rspamd
from mtaq.spam.spamassassin import SpamAssassin
from tests.support.ports import free_port
from tests.support.spam_servers import GTUBE, RSPAMD, SPAMD, running_rspamd, running_spamd
from tests.unit.spam.fakes import ORIGIN

pytestmark = pytest.mark.peers

HAM = (
    b"From: Ada <ada@example.org>\r\nTo: Grace <grace@example.com>\r\nSubject: lunch on Friday\r\n"
    b"Date: Fri, 01 May 2026 05:59:00 +0000\r\nMessage-ID: <abcdef.1234567@example.org>\r\n\r\n"
    b"Shall we meet at noon, at the place by the river?\r\n"
)
SPAM = HAM + GTUBE + b"\r\n"
GLOBAL = replace(ORIGIN, client_ip="193.0.6.139")


@pytest.fixture(scope="module")
def spamd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a spamd."""
    if not Path(SPAMD).exists():
        pytest.skip("install spamd (Debian package) to run this")
    with running_spamd(tmp_path_factory.mktemp("spamd")) as port:
        yield port


@pytest.fixture(scope="module")
def rspamd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of an Rspamd."""
    if not Path(RSPAMD).exists():
        pytest.skip("install rspamd (Debian package) to run this")
    with running_rspamd(tmp_path_factory.mktemp("rspamd")) as port:
        yield port


async def judged(engine: Engine, content: bytes, *, timeout_s: float = 18.0) -> tuple[SpamResult, list[str]]:
    told: list[str] = []
    spam = SpamFilter(engine, on_unavailable=lambda name, reason: told.append(reason), timeout_s=timeout_s)
    return await spam.judge(content, GLOBAL), told


def spamassassin(port: int) -> SpamAssassin:
    return SpamAssassin("127.0.0.1", port, connect=connected)


async def test_spamd_on_gtube(spamd: int) -> None:
    """The test string is spam, by its rule."""
    result, _ = await judged(spamassassin(spamd), SPAM)
    assert (result.word, result.threshold) == ("spam", 5.0)
    assert result.score is not None
    assert result.score > 900
    assert "GTUBE" in result.rules


async def test_spamd_on_ham(spamd: int) -> None:
    """An honest message is none, and spamd has understood who sent it."""
    result, _ = await judged(spamassassin(spamd), HAM)
    assert result.word == "ham"
    assert result.score is not None
    assert result.score < 5
    assert not {"NO_RELAYS", "NO_RECEIVED", "UNPARSEABLE_RELAY"} & set(result.rules)


async def test_spamd_at_the_largest(spamd: int) -> None:
    """The largest message it is shown is judged."""
    engine = spamassassin(spamd)
    content = (SPAM + b"padding, line after line\r\n" * 30_000)[: engine.max_bytes]
    result, told = await judged(engine, content)
    assert (result.word, told) == ("spam", [])


async def test_many_at_once(spamd: int) -> None:
    """More messages than spamd has children are all judged."""
    results = await asyncio.gather(*(judged(spamassassin(spamd), content) for content in (HAM, SPAM) * 10))
    assert [result.word for result, _ in results] == ["ham", "spam"] * 10


async def test_rspamd_on_gtube(rspamd: int) -> None:
    """The test string is spam there too."""
    result, _ = await judged(Rspamd(f"http://127.0.0.1:{rspamd}", request=request), SPAM)
    assert (result.word, result.action, result.rules) == ("spam", "reject", ("GTUBE",))


async def test_rspamd_knows_the_envelope(rspamd: int) -> None:
    """Client, HELO, reverse-path, every recipient, login and id reach its rules."""
    result, _ = await judged(Rspamd(f"http://127.0.0.1:{rspamd}/", request=request), HAM)
    assert (result.word, result.action, result.threshold) == ("ham", "no action", 15.0)
    asked = "ASKED_grace@example.com+joan@example.com|ada@example.org|193.0.6.139|client.test||srv.id"
    assert asked in result.rules


async def test_rspamd_marks(rspamd: int) -> None:
    """Probable spam is let through, its action told."""
    result, _ = await judged(Rspamd(f"http://127.0.0.1:{rspamd}", request=request), HAM + b"bargain\r\n")
    assert (result.word, result.action, result.score) == ("ham", "add header", 7.5)


async def served(answer: bytes) -> asyncio.Server:
    """Return a server that sends *answer* to whoever connects, and then waits."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(answer)
        await reader.read()
        writer.close()

    return await asyncio.start_server(serve, "127.0.0.1", 0)


JSON = json.dumps({"is_skipped": False, "score": 3.1, "required_score": 15, "action": "no action", "symbols": {}})


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (f"HTTP/1.1 200 OK\r\nContent-Length: {len(JSON)}\r\n\r\n{JSON}".encode(), "ham"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "temperror"),
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", "temperror"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n", "temperror"),
        (b"SPAMD/1.1 0 EX_OK\r\n\r\n", "temperror"),
        (b"", "temperror"),
    ],
)
async def test_servers_that_are_no_rspamd(answer: bytes, word: str) -> None:
    """What is not an answer of Rspamd in time is `temperror`."""
    async with await served(answer) as server:
        port = server.sockets[0].getsockname()[1]
        result, told = await judged(Rspamd(f"http://127.0.0.1:{port}", request=request), HAM, timeout_s=0.5)
    assert result.word == word
    assert bool(told) == (word == "temperror")


@pytest.mark.parametrize("answer", [b"", b"SPAMD/1.1 0 EX_OK\r\n", b"x" * 100_000])
async def test_servers_that_are_no_spamd(answer: bytes) -> None:
    """What is not an answer of spamd in time is `temperror`."""
    async with await served(answer) as server:
        port = server.sockets[0].getsockname()[1]
        result, told = await judged(spamassassin(port), HAM, timeout_s=0.5)
    assert (result.word, len(told)) == ("temperror", 1)


@pytest.mark.parametrize("kind", ["spamd", "rspamd"])
async def test_nobody_there(kind: str) -> None:
    """A filter that is not running is `temperror` at once."""
    port = free_port()
    engine: Engine = spamassassin(port) if kind == "spamd" else Rspamd(f"http://127.0.0.1:{port}", request=request)
    result, told = await judged(engine, HAM)
    assert result.word == "temperror"
    assert "no answer in time" not in told
