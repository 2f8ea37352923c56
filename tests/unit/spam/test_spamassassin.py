"""What spamd is told, and what its answers mean."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtaq.mailauth.spam import MOST_RULES, SpamResult
from mtaq.spam.spamassassin import SpamAssassin, read_answer, trace_fields
from tests.unit.spam.fakes import ORIGIN

SPAM = b"SPAMD/1.1 0 EX_OK\r\nContent-length: 14\r\nSpam: True ; 1004.2 / 5.0\r\n\r\nGTUBE,NO_RELAYS"
HAM = b"SPAMD/1.1 0 EX_OK\r\nContent-length: 0\r\nSpam: False ; -0.0 / 5.0\r\n\r\n"


def test_spam() -> None:
    """Score, threshold and rules are read."""
    assert read_answer(SPAM) == SpamResult("spam", "spamassassin", 1004.2, 5.0, ("GTUBE", "NO_RELAYS"))
    assert read_answer(SPAM).to_json() == [
        {
            "spam": "spam",
            "score": 1004.2,
            "threshold": 5.0,
            "rules": ["GTUBE", "NO_RELAYS"],
            "engine": "spamassassin",
        }
    ]


def test_ham() -> None:
    """No rule is no rule, and less than nothing is nothing."""
    result = read_answer(HAM)
    assert result == SpamResult("ham", "spamassassin", 0.0, 5.0, ())
    assert str(result.score) == "0.0"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"SPAMD/1.0 76 Bad header line\r\n",
        b"SPAMD/1.1 0 EX_OK\r\n\r\nGTUBE",
        b"SPAMD/1.1 0 EX_OK\r\nSpam: True ; nan / 5.0\r\n\r\n",
        b"SPAMD/1.1 0 EX_OK\r\nSpam: True ; 1e999 / 5.0\r\n\r\n",
        b"SPAMD/1.1 0 EX_OK\r\nSpam: Maybe ; 1 / 5.0\r\n\r\n",
    ],
)
def test_what_is_no_answer(answer: bytes) -> None:
    """Anything else is no judgement."""
    with pytest.raises(OSError, match="spamd"):
        read_answer(answer)


@given(st.binary(max_size=200))
def test_any_bytes(answer: bytes) -> None:
    """Any bytes give a judgement or `OSError`, also in place of the rules."""
    for octets in (answer, SPAM[:60] + answer, SPAM + answer):
        try:
            result = read_answer(octets)
        except OSError:
            continue
        assert all(rule.isascii() and rule.isprintable() and " " not in rule for rule in result.rules)


def test_rules_are_bounded() -> None:
    """Neither their number nor their length is the filter's to choose, and none says two things."""
    odd = "A" * 101, 'Q"Q', "semi;colon", "a b", "é"
    result = read_answer(SPAM + b"," + ",".join([*odd, *(f"R{n}" for n in range(1000))]).encode())
    assert len(result.rules) == MOST_RULES
    assert result.rules[2] == "R0"


def test_what_stands_in_front() -> None:
    """spamd sees the message as delivered: reverse-path, and a Received that names the client."""
    fields = trace_fields(ORIGIN)
    assert fields.startswith(b"Return-Path: <ada@example.org>\r\nReceived: from client.test")
    assert b"[198.51.100.7]" in fields
    assert b"relay.test" in fields
    assert b"with ESMTPA" in trace_fields(replace(ORIGIN, user="ada")).replace(b"\r\n", b"")
    assert trace_fields(replace(ORIGIN, client_ip=None, envelope=None)) == b"Return-Path: <>\r\n"


class Spamd:
    """A way to a server that sends *pieces*, whatever it is told."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = pieces
        self.heard = b""
        self.ended = False

    @asynccontextmanager
    async def __call__(
        self, host: str, port: int, *, tls: bool, timeout_s: float
    ) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """Connect."""
        reader = asyncio.StreamReader()
        for piece in self.pieces:
            reader.feed_data(piece)
        reader.feed_eof()
        yield reader, self  # type: ignore[misc]  # no more than this is used of a writer

    def write(self, data: bytes) -> None:
        """Note it."""
        self.heard += data

    def write_eof(self) -> None:
        """Note it."""
        self.ended = True

    async def drain(self) -> None:
        """Do nothing."""


@pytest.mark.parametrize("pieces", [(SPAM,), tuple(SPAM[at : at + 1] for at in range(len(SPAM)))])
async def test_the_conversation(pieces: tuple[bytes, ...]) -> None:
    """One request with its length, one answer, however it arrives."""
    spamd = Spamd(*pieces)
    result = await SpamAssassin("localhost", 783, connect=spamd).judge(b"Subject: x\r\n\r\n", ORIGIN, timeout_s=1)
    assert (result.word, spamd.ended) == ("spam", True)
    head, _, message = spamd.heard.partition(b"\r\n\r\n")
    assert head == f"SYMBOLS SPAMC/1.5\r\nContent-length: {len(message)}".encode()
    assert message == trace_fields(ORIGIN) + b"Subject: x\r\n\r\n"


async def test_an_endless_answer() -> None:
    """Reading ends."""
    with pytest.raises(OSError, match="too long"):
        await SpamAssassin("h", 1, connect=Spamd(SPAM, b"x" * 65_536)).judge(b"", ORIGIN, timeout_s=1)
