"""``mtaq.smtp.server_content``: content that the carrier does not want, before it comes or while it does."""

from __future__ import annotations

import pytest

from mtaq.smtp import codes
from mtaq.smtp.server_session import Mail, MessageComplete, ServerSession
from tests.support.dialog import DEFAULT_OPTIONS, decide

ENVELOPE = b"EHLO c.test\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\n"


def play(session: ServerSession, stream: bytes, *, refuse: bool = False) -> list[bytes]:
    """Feed a stream, and return the code and enhanced code of each reply; *refuse*: content beforehand."""
    session.receive_data(stream)
    while (event := session.next_event()) is not None:
        session.answer(decide(event))
        if refuse and isinstance(event, Mail) and session.transaction is not None:
            session.transaction.refusal = codes.PROBES_ONLY
    return [line[:9] for line in session.data_to_send().splitlines() if line[3:4] == b" "]


def begun(stream: bytes = b"", *, refuse: bool = False) -> ServerSession:
    session = ServerSession(DEFAULT_OPTIONS)
    session.greet()
    play(session, stream, refuse=refuse)
    return session


@pytest.mark.parametrize("command", [b"DATA\r\n", b"BDAT 5\r\nhello", b"BDAT 5 LAST\r\nhello"])
def test_content_refused_beforehand_is_never_invited(command: bytes) -> None:
    """DATA is refused itself, a chunk once it has been read; the transaction is over."""
    session = begun(ENVELOPE, refuse=True)
    assert play(session, command + b"NOOP\r\n") == [b"554 5.7.1", b"250 2.0.0"]
    assert session.transaction is None
    assert play(session, ENVELOPE[13:] + b"DATA\r\n.\r\n")[-1] == b"250 2.6.0"


def test_data_abandoned_on_its_way_is_refused_at_its_end() -> None:
    """What has come is forgotten at once, what still comes is not kept, and the end is recognised."""
    session = begun(ENVELOPE + b"DATA\r\n" + b"x" * 1000)
    assert session.content_bytes == 1000
    session.abandon_content(codes.NO_MEMORY)
    assert session.content_bytes == 0
    for _ in range(3):
        assert play(session, b"\r\n.y" * 250) == []
        assert (session.content_bytes, session.in_content) == (0, True)
    assert play(session, b"\r\n.\r\nNOOP\r\n") == [b"452 4.3.1", b"250 2.0.0"]
    assert session.transaction is None


def test_a_chunk_abandoned_on_its_way_is_refused_at_its_end() -> None:
    """The rest of the chunk is read; the transaction is over, and its other chunks are out of order."""
    session = begun(ENVELOPE + b"BDAT 10\r\nhello")
    assert session.content_bytes == 5
    session.abandon_content(codes.NO_MEMORY)
    assert session.content_bytes == 0
    assert play(session, b"RSET\r\nBDAT 3 LAST\r\nabc")[0] == b"452 4.3.1"
    assert session.transaction is None


def test_chunks_abandoned_between_two_are_refused_with_the_next() -> None:
    """The chunks held are forgotten."""
    session = begun(ENVELOPE + b"BDAT 5\r\nhello")
    session.abandon_content(codes.NO_MEMORY)
    assert session.content_bytes == 0
    assert play(session, b"BDAT 5 LAST\r\nRSET\n") == [b"452 4.3.1"]
    assert session.transaction is None


@pytest.mark.parametrize("block_bytes", [1, 2, 3, 7, 1000])
def test_the_end_is_found_wherever_content_is_abandoned(block_bytes: int) -> None:
    """Smuggling cannot profit from it: what follows the true end, and only that, is a command."""
    stream = b"a\r\n..\r\n\n.\nMAIL FROM:<x@y.test>\r\n.\rz\r\n.\r\nNOOP\r\n"
    for cut in range(0, stream.index(b"\r\n.\r\n"), block_bytes):
        session = begun(ENVELOPE + b"DATA\r\n" + stream[:cut])
        session.abandon_content(codes.NO_MEMORY)
        replies = []
        for start in range(cut, len(stream), block_bytes):
            replies += play(session, stream[start : start + block_bytes])
        assert replies == [b"452 4.3.1", b"250 2.0.0"]


def test_nothing_to_abandon() -> None:
    """Outside content it changes nothing."""
    session = begun(b"EHLO c.test\r\n")
    session.abandon_content(codes.NO_MEMORY)
    assert play(session, ENVELOPE + b"DATA\r\nhello\r\n.\r\n")[-1] == b"250 2.6.0"


def test_a_session_holds_nothing_once_its_message_is_handed_over() -> None:
    """``content_bytes`` counts what is held here, not what the carrier has."""
    session = begun(ENVELOPE)
    session.receive_data(b"DATA\r\nhello\r\n.\r\n")
    assert isinstance(session.next_event(), MessageComplete)
    assert session.content_bytes == 0
