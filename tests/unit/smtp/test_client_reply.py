"""A server's replies, out of whatever bytes come."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtaq.model.errors import RemoteProtocolError
from mtaq.model.reply import Reply
from mtaq.smtp.client_reply import MAX_LINE_BYTES, MAX_LINES, ReplyParser, clean


def parse_all(*blocks: bytes) -> list[Reply]:
    parser, replies = ReplyParser(), []
    for block in blocks:
        parser.feed(block)
        while (reply := parser.next_reply()) is not None:
            replies.append(reply)
    return replies


def outcome_of(*blocks: bytes) -> tuple[list[Reply], bool]:
    parser, replies = ReplyParser(), []
    try:
        for block in blocks:
            parser.feed(block)
            while (reply := parser.next_reply()) is not None:
                replies.append(reply)
    except RemoteProtocolError:
        return replies, True
    return replies, False


REPLIES = {
    b"250 ok\r\n": Reply(250, None, ("ok",)),
    b"250\r\n": Reply(250, None, ("",)),
    b"250 2.1.0 sender ok\r\n": Reply(250, "2.1.0", ("sender ok",)),
    b"550-5.1.1 no such user\r\n550 5.1.1 here\r\n": Reply(550, "5.1.1", ("no such user", "here")),
    b"250-mx.test\r\n250-SIZE 1\r\n250 PIPELINING\r\n": Reply(250, None, ("mx.test", "SIZE 1", "PIPELINING")),
    b"550 4.7.1 class of another code\r\n": Reply(550, None, ("4.7.1 class of another code",)),
    b"550 5.1.1\r\n": Reply(550, "5.1.1", ("",)),
    b"450-first\r\n550 the last code counts\r\n": Reply(550, None, ("first", "the last code counts")),
    b"250 bare LF\n": Reply(250, None, ("bare LF",)),
    b"550 a\x00b\x07c\x1b[1m\r\n": Reply(550, None, ("a b c [1m",)),
    b"550 \xff\xfe\r\n": Reply(550, None, ("\ufffd\ufffd",)),
    "550 größer\r\n".encode(): Reply(550, None, ("größer",)),
}


@pytest.mark.parametrize(("data", "expected"), REPLIES.items())
def test_replies_are_understood_whole_and_byte_by_byte(data, expected):
    """One line or several, with or without an enhanced status code, cleaned of control characters."""
    assert parse_all(data) == [expected]
    assert parse_all(*(data[i : i + 1] for i in range(len(data)))) == [expected]


@pytest.mark.parametrize(
    "data",
    [
        b"hello\r\n",
        b"\r\n",
        b"25\r\n",
        b"2500 ok\r\n",
        b"250ok\r\n",
        b"150 ok\r\n",
        b"650 ok\r\n",
        b"HTTP/1.1 400 Bad Request\r\n",
        b"250-" + b"a" * MAX_LINE_BYTES + b"\r\n",
        b"2" * (MAX_LINE_BYTES + 2),
        b"250-more\r\n" * MAX_LINES,
    ],
)
def test_what_is_no_reply_or_too_much_of_one_is_refused(data):
    """Garbage, endless lines and endless replies are errors, whole and byte by byte."""
    assert outcome_of(data) == ([], True)
    assert outcome_of(*(data[i : i + 1] for i in range(len(data)))) == ([], True)


def test_the_longest_reply_allowed_is_taken():
    """A reply of exactly the most lines is one."""
    data = b"250-line\r\n" * (MAX_LINES - 1) + b"250 end\r\n"
    assert len(parse_all(data)[0].lines) == MAX_LINES


def test_surplus_is_seen():
    """Bytes beyond the replies taken, and lines of an unfinished reply, are surplus."""
    parser = ReplyParser()
    parser.feed(b"250 ok\r\n250-un")
    parser.next_reply()
    assert parser.has_surplus
    parser.feed(b"finished\r\n")
    assert parser.next_reply() is None
    assert parser.has_surplus
    parser.feed(b"250 end\r\n")
    parser.next_reply()
    assert not parser.has_surplus


@given(st.lists(st.binary(max_size=40), max_size=20))
def test_any_bytes_give_replies_or_a_protocol_error_however_they_are_cut(blocks):
    """Nothing else comes out of the parser, and the cuts make no difference."""
    data = b"".join(blocks)
    assert outcome_of(*blocks) == outcome_of(data) == outcome_of(*(data[i : i + 1] for i in range(len(data))))


@given(
    st.lists(
        st.sampled_from([b"250 ok\r\n", b"250-", b"550 5.1.1 no\r\n", b"\n", b"\r", b"354\r\n", b"x"]), max_size=30
    )
)
def test_almost_replies_give_replies_or_a_protocol_error(blocks):
    """The same for what looks like SMTP."""
    data = b"".join(blocks)
    assert outcome_of(*blocks) == outcome_of(*(data[i : i + 1] for i in range(len(data))))


def test_clean_text_has_no_control_characters():
    """C0, DEL and C1 become blanks, whatever the encoding."""
    assert clean(b"a\x00\x1f\x7f\xc2\x9bb ") == "a b"
