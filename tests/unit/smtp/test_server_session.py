"""``mtaq.smtp.server_session``: what a session asks, answers and never does."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtaq.model.address import Address
from mtaq.model.errors import LocalProtocolError
from mtaq.model.reply import Reply, reply
from mtaq.smtp import codes
from mtaq.smtp.server_session import Event, Mail, MessageComplete, Rcpt, ServerSession, SessionOptions, StartTls
from tests.support.dialog import DEFAULT_OPTIONS, decide

ENVELOPE = b"EHLO c.test\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\n"
SECOND = b"MAIL FROM:<smuggled@evil.test>\r\nRCPT TO:<victim@d.test>\r\nDATA\r\nSubject: smuggled\r\n\r\nx\r\n.\r\n"


class Played:
    """What came of a session: replies, events, content of accepted messages."""

    def __init__(self, blocks: Iterable[bytes], options: SessionOptions = DEFAULT_OPTIONS) -> None:
        self.session = ServerSession(options)
        self.session.greet()
        self.output = b""
        self.events: list[str] = []
        self.messages: list[tuple[Address | None, bytes]] = []
        for block in blocks:
            self.session.receive_data(block)
            while (event := self.session.next_event()) is not None:
                self._take(event)
            self.output += self.session.data_to_send()
        self.output += self.session.data_to_send()

    def _take(self, event: Event) -> None:
        self.events.append(repr(event))
        if isinstance(event, MessageComplete):
            self.messages.append((event.transaction.reverse_path, event.content))
        self.session.answer(decide(event))
        if isinstance(event, StartTls):
            self.session.reset_for_tls()

    @property
    def codes(self) -> list[str]:
        """Code and enhanced code of every reply."""
        return re.findall(r"^(\d{3}(?: \d\.\d+\.\d+)?) ", self.output.decode("utf-8"), re.MULTILINE)


def octets(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


def begun(options: SessionOptions = DEFAULT_OPTIONS) -> ServerSession:
    session = ServerSession(options)
    session.greet()
    session.data_to_send()
    return session


# Smuggling

MARKERS = [
    b"\n.\n",
    b"\n.\r\n",
    b"\r.\r",
    b"\r\n.\n",
    b"\r.\r\n",
    b"\r\n.\r",
    b"\n.\r",
    b"\r.\n",
    b"\r\n\0.\r\n",
    b"\r\n.\0\r\n",
]


@pytest.mark.parametrize("marker", MARKERS)
@pytest.mark.parametrize("lead", [b"Subject: x\r\n\r\nbody", b""])
def test_no_marker_but_crlf_dot_crlf_ends_data(marker: bytes, lead: bytes) -> None:
    """Whatever looks like the end of DATA makes the whole refused; a second transaction never begins."""
    stream = ENVELOPE + b"DATA\r\n" + lead + marker + SECOND
    whole = Played([stream])
    assert whole.messages == []
    assert not any("evil" in event for event in whole.events)
    assert whole.codes[-2:] in (["354", "550 5.6.11"], ["354", "550 5.6.0"])
    for cut in range(len(stream)):
        played = Played([stream[:cut], stream[cut:]])
        assert (played.output, played.events) == (whole.output, whole.events)
    assert Played(octets(stream)).output == whole.output


@pytest.mark.parametrize("marker", MARKERS)
def test_a_pipelined_transaction_after_the_true_end_is_its_own(marker: bytes) -> None:
    """After the true end the next transaction goes on, and holds nothing of the refused one."""
    stream = ENVELOPE + b"DATA\r\nbody" + marker + b"x\r\n.\r\n" + SECOND
    for blocks in ([stream], octets(stream)):
        played = Played(blocks)
        assert played.messages == [(Address("smuggled", "evil.test"), b"Subject: smuggled\r\n\r\nx\r\n")]


@pytest.mark.parametrize("marker", [*MARKERS, b"\r\n.\r\n"])
def test_no_marker_ends_a_chunk(marker: bytes) -> None:
    """A BDAT chunk ends by its size alone; an end mark of DATA inside is content, refused when it is no text."""
    content = b"body" + marker + SECOND
    stream = ENVELOPE + b"BDAT %d LAST\r\n%b" % (len(content), content)
    for blocks in ([stream], octets(stream)):
        played = Played(blocks)
        if marker == b"\r\n.\r\n":
            assert played.messages == [(Address("a", "b.test"), content)]
        else:
            assert played.codes[-1] in ("550 5.6.11", "550 5.6.0")
            assert played.messages == []
        assert not any("evil" in event for event in played.events if not event.startswith("MessageComplete"))


@pytest.mark.parametrize("prefix", [b"", b"EHLO c.test\r\n", b"EHLO c.test\r\nMAIL FROM:<a@b.test>\r\n"])
def test_a_refused_chunk_is_never_obeyed(prefix: bytes) -> None:
    """Commands inside a chunk that is refused stay unread as commands."""
    chunk = b"RSET\r\n" + SECOND
    for ending in (b"", b" LAST"):
        stream = prefix + b"BDAT %d%b\r\n%b" % (len(chunk), ending, chunk) + b"NOOP\r\n"
        for blocks in ([stream], octets(stream)):
            played = Played(blocks)
            assert not any("evil" in event for event in played.events)
            assert played.codes[-2:] == ["503 5.5.1", "250 2.0.0"]


def test_data_inside_chunks_is_out_of_order() -> None:
    """DATA cannot take over what BDAT began, and what follows it is read as commands."""
    stream = ENVELOPE + b"BDAT 5\r\nabc\r\nDATA\r\n" + b"BDAT 0 LAST\r\n"
    played = Played([stream])
    assert played.codes[-3:] == ["250 2.0.0", "503 5.5.1", "250 2.6.0"]
    assert played.messages == [(Address("a", "b.test"), b"abc\r\n")]


@pytest.mark.parametrize(
    "spoilt", [b"BDAT 5\0\r\n", b"BDAT 5\nLAST\r\n", b"BDAT " + b"5" * 30 + b"\r\n", b"bdat" + b" " * 3000 + b"5\r\n"]
)
def test_a_spoilt_bdat_ends_the_session(spoilt: bytes) -> None:
    """Where the size of a chunk cannot be read nothing after it is obeyed."""
    for blocks in ([ENVELOPE + spoilt + SECOND], octets(ENVELOPE + spoilt + SECOND)):
        played = Played(blocks)
        assert played.codes[-1] == "501 5.5.4"
        assert played.session.finished


# STARTTLS


@pytest.mark.parametrize("injected", [b"NOOP\r\n", b"EHLO e.test\r\nMAIL FROM:<evil@b.test>\r\n", b"\r\n", b"RS"])
def test_octets_behind_starttls_are_forgotten(injected: bytes) -> None:
    """Nothing sent in the clear is obeyed inside TLS, neither from the same packet nor from one that came later."""
    for blocks in ([b"STARTTLS\r\n" + injected], [b"STARTTLS\r\n", injected]):
        session = begun()
        session.receive_data(b"EHLO c.test\r\n")
        assert session.next_event() is None
        session.receive_data(blocks[0])
        assert session.next_event() == StartTls()
        session.answer(codes.START_TLS)
        for block in blocks[1:]:
            session.receive_data(block)
        assert session.next_event() is None
        assert session.data_to_send().endswith(b"\r\n220 2.0.0 go ahead\r\n")
        assert session.buffered_bytes == 0
        session.reset_for_tls()
        session.receive_data(b"SET\r\n")
        assert session.next_event() is None
        assert session.data_to_send().startswith(b"500 ")
        assert (session.secure, session.helo, session.transaction) == (True, "", None)


def test_a_refused_starttls_changes_nothing() -> None:
    """After 454 the session goes on in the clear with what was pipelined."""
    session = begun()
    session.receive_data(b"EHLO c.test\r\nSTARTTLS\r\nNOOP\r\n")
    assert session.next_event() == StartTls()
    session.answer(codes.NO_TLS_NOW)
    assert session.next_event() is None
    assert session.data_to_send().endswith(b"\r\n454 4.7.0 TLS not available now\r\n250 2.0.0 ok\r\n")
    assert session.helo == "c.test"


# Content


def test_content_arrives_octet_for_octet() -> None:
    """8-bit text, dots, empty lines and lines of 998 octets reach the event unchanged."""
    content = b"S: \xe9\r\n\r\n.\r\n..\r\n\r\n" + b"x" * 998 + b"\r\n"
    stream = ENVELOPE + b"DATA\r\n" + content.replace(b"\r\n.", b"\r\n..") + b".\r\n"
    assert Played([stream]).messages == Played(octets(stream)).messages == [(Address("a", "b.test"), content)]


def test_binary_content_arrives_octet_for_octet() -> None:
    """Any octets pass through BDAT with BODY=BINARYMIME."""
    content = bytes(range(256)) * 8
    stream = ENVELOPE.replace(b"<a@b.test>", b"<a@b.test> BODY=BINARYMIME")
    stream += b"BDAT 1000\r\n" + content[:1000] + b"BDAT %d LAST\r\n" % (len(content) - 1000) + content[1000:]
    assert Played([stream]).messages == Played(octets(stream)).messages == [(Address("a", "b.test"), content)]


def test_content_too_big_is_not_held() -> None:
    """Content beyond the limit is dropped while it comes in, in DATA and in BDAT."""
    options = replace(DEFAULT_OPTIONS, max_size_bytes=1000)
    for command in (b"DATA\r\n", b"BDAT 99999999999999999999\r\n"):
        session = Played([ENVELOPE + command], options).session
        for _ in range(100):
            session.receive_data(b"x" * 1000)
            assert session.next_event() is None
            assert session.in_content
            assert session.buffered_bytes == 0


def test_an_over_long_line_and_oversize_together_are_oversize() -> None:
    """One fault is told, the same however the content was cut."""
    options = replace(DEFAULT_OPTIONS, max_size_bytes=2000)
    stream = ENVELOPE + b"DATA\r\n" + b"x" * 3000 + b"\n\r\n.\r\n"
    assert Played([stream], options).codes[-1] == Played(octets(stream), options).codes[-1] == "552 5.3.4"


# Events and answers


def test_events_tell_what_was_asked() -> None:
    """MAIL, RCPT and content become events with everything parsed."""
    session = begun()
    session.receive_data(
        ENVELOPE.replace(b"b.test>", b"B.Test> SIZE=7 BODY=8BITMIME SMTPUTF8") + b"DATA\r\nhello\r\n.\r\n"
    )
    assert session.next_event() == Mail(Address("a", "b.test"), 7, "8bitmime", True)
    session.answer(codes.SENDER_OK)
    assert session.transaction is not None
    assert session.next_event() == Rcpt(Address("c", "d.test"))
    session.answer(codes.RECIPIENT_OK)
    event = session.next_event()
    assert isinstance(event, MessageComplete)
    assert event.content == b"hello\r\n"
    assert event.transaction is session.transaction
    assert event.transaction.forward_paths == [Address("c", "d.test")]
    session.answer(codes.TRY_LATER)
    assert session.transaction is None
    assert (session.helo, session.esmtp) == ("c.test", True)


def test_one_event_at_a_time() -> None:
    """While an event awaits its answer nothing more is read, and what comes in is kept."""
    session = begun()
    session.receive_data(ENVELOPE)
    assert session.next_event() is not None
    assert session.awaiting_answer
    assert session.next_event() is None
    session.receive_data(b"NOOP\r\n")
    assert session.buffered_bytes == len(b"RCPT TO:<c@d.test>\r\nNOOP\r\n")
    session.answer(codes.SENDER_OK)
    assert not session.awaiting_answer
    assert session.next_event() == Rcpt(Address("c", "d.test"))


def test_an_answer_without_an_event_is_our_bug() -> None:
    """``answer`` refuses to speak out of turn."""
    with pytest.raises(LocalProtocolError):
        begun().answer(codes.OK)


def test_421_as_an_answer_finishes() -> None:
    """A carrier that answers 421 has said the last word (RFC 5321 §3.8)."""
    session = begun()
    session.receive_data(ENVELOPE + b"NOOP\r\n")
    assert session.next_event() is not None
    session.answer(codes.SHUTTING_DOWN)
    assert session.finished
    assert session.next_event() is None
    assert session.data_to_send().endswith(codes.SHUTTING_DOWN.encode())


@pytest.mark.parametrize("answer", [codes.NOT_ALLOWED, codes.TOO_MANY_CONNECTIONS])
def test_refuse_instead_of_a_greeting(answer: Reply) -> None:
    """A refused session says so first and reads nothing."""
    session = ServerSession(DEFAULT_OPTIONS)
    session.receive_data(b"EHLO c.test\r\n")
    session.refuse(answer)
    session.greet()
    session.receive_data(b"NOOP\r\n")
    assert session.next_event() is None
    assert session.finished
    assert session.data_to_send() == answer.encode()


def test_refuse_while_asked_or_receiving() -> None:
    """A shutdown may come at any time; the outstanding event is forgotten and nothing is held."""
    for stream in (ENVELOPE, ENVELOPE + b"DATA\r\nhello", ENVELOPE + b"BDAT 9\r\nhello"):
        session = begun()
        session.receive_data(stream)
        while (event := session.next_event()) is not None and stream is not ENVELOPE:
            session.answer(decide(event))
        session.refuse(codes.SHUTTING_DOWN)
        session.refuse(codes.TIMEOUT)
        assert (session.finished, session.awaiting_answer, session.in_content) == (True, False, False)
        assert session.transaction is None
        assert session.data_to_send().endswith(codes.SHUTTING_DOWN.encode())


def test_nothing_is_answered_before_the_greeting() -> None:
    """A client that talks before the greeting is heard after it."""
    session = ServerSession(DEFAULT_OPTIONS)
    session.receive_data(b"NOOP\r\n")
    assert session.next_event() is None
    assert session.data_to_send() == b""
    session.greet()
    assert session.next_event() is None
    assert session.data_to_send() == b"220 mx.test ESMTP mtaq\r\n250 2.0.0 ok\r\n"


def test_replies_of_a_pipelined_group_are_one_write() -> None:
    """All replies to a group come together, in order (RFC 2920 §3.2)."""
    session = begun()
    session.receive_data(b"NOOP\r\nRSET\r\nVRFY x\r\n")
    assert session.next_event() is None
    assert session.data_to_send() == codes.OK.encode() + codes.RESET.encode() + codes.CANNOT_VERIFY.encode()
    assert session.data_to_send() == b""


def test_an_accepted_message_forgives_errors() -> None:
    """The budget of bad commands begins anew with each accepted message."""
    options = replace(DEFAULT_OPTIONS, max_errors=2)
    message = ENVELOPE + b"DATA\r\n.\r\n"
    played = Played([(b"X\r\nY\r\n" + message) * 3 + b"X\r\nY\r\nZ\r\n"], options)
    assert len(played.messages) == 3
    assert played.codes[-1] == "421 4.7.0"
    assert played.session.finished


def test_malformed_recipients_are_no_errors_of_the_session() -> None:
    """A list with many malformed addresses is refused one by one, the others have their mail."""
    options = replace(DEFAULT_OPTIONS, max_errors=1)
    played = Played([ENVELOPE + b"RCPT TO:<x@>\r\n" * 50 + b"DATA\r\n.\r\n"], options)
    assert len(played.messages) == 1
    assert played.codes.count("501 5.1.3") == 50


# Any octets

_WORDS = [
    *(b"EHLO c.test", b"HELO c", b"MAIL FROM:<a@b.test>", b"MAIL FROM:<a@b.test> BODY=BINARYMIME", b"MAIL FROM:<>"),
    *(b"RCPT TO:<c@d.test>", b"RCPT TO:<refused@d.test>", b"DATA", b"BDAT 3", b"BDAT 9 LAST", b"BDAT 0 LAST", b"RSET"),
    *(b"STARTTLS", b"NOOP", b"VRFY x", b"QUIT", b"XXXX", b"x" * 60, b"BDAT x", b"MAIL FROM:<a@b.test> SIZE=99999"),
    *(b"\r\n", b"\r\n", b"\r\n", b"\r\n", b"\r\n", b".\r\n", b"\r\n.\r\n", b"\n", b"\r", b".", b"\0", b"\xff", b" "),
]
streams = st.one_of(
    st.lists(st.sampled_from(_WORDS), max_size=40).map(b"".join),
    st.lists(st.sampled_from(_WORDS[:20]), max_size=15).map(lambda words: b"\r\n".join(words) + b"\r\n"),
    st.lists(st.sampled_from(_WORDS), max_size=20).map(lambda words: ENVELOPE + b"DATA\r\n" + b"".join(words)),
    st.binary(max_size=80),
)
SMALL = replace(DEFAULT_OPTIONS, max_size_bytes=60, max_line_bytes=50, max_recipients=2, max_errors=6)


@given(streams, st.data())
def test_whole_octet_by_octet_and_in_blocks_are_the_same(stream: bytes, data: st.DataObject) -> None:
    """Events and replies do not depend on how the octets were cut, unless TLS begins and forgets a packet."""
    stream = stream.replace(b"STARTTLS", b"STARTTL")
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    blocks = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    whole = Played([stream], SMALL)
    for played in (Played(octets(stream), SMALL), Played(blocks, SMALL)):
        assert (played.output, played.events) == (whole.output, whole.events)
        assert played.session.finished == whole.session.finished
        assert played.session.in_content == whole.session.in_content


@given(streams)
def test_any_octets_are_answered_well_formed(stream: bytes) -> None:
    """Nothing raises; every reply is well formed and bounded, with an enhanced code where one belongs."""
    played = Played([stream], SMALL)
    *lines, rest = played.output.split(b"\r\n")
    assert rest == b""
    for line in lines:
        assert len(line) <= 510
        assert re.fullmatch(
            rb"(?:220 mx.test .*|250[- ][^ ]+(?: \d+)?|354 .*|501 a domain.*|(\d)\d\d \1\.\d\.\d+ .+)", line
        ), line


@given(streams)
def test_every_command_line_has_one_reply(stream: bytes) -> None:
    """Outside content a line has exactly one reply, so that a pipelining client never loses count."""
    stream = re.sub(rb"(?i)data|bdat|starttls|quit", b"noop", stream)
    played = Played([stream], replace(SMALL, max_errors=1000))
    assert len(played.codes) == 1 + stream.count(b"\r\n")


def test_memoryview_is_input() -> None:
    """A carrier may hand over its own buffer; it is copied before it returns."""
    block = bytearray(b"NOOP\r\nNO")
    session = begun()
    session.receive_data(memoryview(block))
    block[:] = b"X" * len(block)
    assert session.next_event() is None
    session.receive_data(memoryview(b"OP\r\n"))
    assert session.next_event() is None
    assert session.data_to_send() == codes.OK.encode() * 2


def test_an_answer_of_several_lines() -> None:
    """The final reply may list the ids of several messages."""
    session = begun()
    session.receive_data(ENVELOPE + b"DATA\r\n.\r\n")
    while (event := session.next_event()) is not None:
        session.answer(
            reply(250, "2.6.0", "accepted", "1 for c@d.test") if isinstance(event, MessageComplete) else decide(event)
        )
    assert session.data_to_send().endswith(b"250-2.6.0 accepted\r\n250 2.6.0 1 for c@d.test\r\n")
