"""Finding the header section and its fields."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtaq.mime.headers import (
    FIELD_LIMIT,
    HEADER_LIMIT_BYTES,
    count_received,
    fields,
    header_end,
    text_fields,
    unfold,
)
from mtaq.mime.words import text_of


@pytest.mark.parametrize(
    ("content", "end"),
    [
        (b"A: 1\r\nB: 2\r\n\r\nbody\r\n\r\nmore", 12),
        (b"A: 1\nB: 2\n\nbody", 10),
        (b"A: 1\n\r\nbody", 5),
        (b"\r\nbody", 0),
        (b"\nbody", 0),
        (b"", 0),
        (b"A: 1\r\n", 6),
        (b"A: 1", 4),
        (b"A: 1\r\n \r\nB: 2\r\n\r\n", 15),  # a line of blanks is no empty line
    ],
)
def test_header_end(content: bytes, end: int) -> None:
    """The header section ends before the first empty line, whichever the line ends are."""
    assert header_end(content) == end


def test_fields_are_unfolded() -> None:
    """Fields come from the top, unfolded, 8-bit octets untouched; lines that are no field are passed over."""
    content = (
        b"From here\r\nSubject : one\r\n\ttwo\r\n  three \r\nX-8: \xe4\xff\r\nno field\r\nEmpty:\r\n\r\nNot: this\r\n"
    )
    found = [tuple(field) for field in fields(content)]
    assert found == [(b"Subject", b"one\ttwo  three"), (b"X-8", b"\xe4\xff"), (b"Empty", b"")]


def test_line_ends_do_not_matter() -> None:
    """Content with LF has the same fields as with CRLF."""
    content = b"A: 1\r\n 2\r\nB: 3\r\n\r\nC: 4\r\n"
    assert list(fields(content)) == list(fields(content.replace(b"\r\n", b"\n")))


def test_limits() -> None:
    """Reading stops after a number of fields, and after a number of bytes."""
    assert sum(1 for _ in fields(b"A: b\r\n" * 5000)) == FIELD_LIMIT
    long = b"A: " + b"x" * 300_000 + b"\r\nB: c\r\n\r\n"
    [field] = fields(long)
    assert len(field.value) == HEADER_LIMIT_BYTES - 3


def test_count_received() -> None:
    """`Received` fields of the header section count, in any spelling; other fields and the body do not."""
    content = (
        b"Received: a\r\nRECEIVED : b\r\n x\r\nX-Received: c\r\nreceived: d\r\nA: Received:\r\n\r\nReceived: e\r\n"
    )
    assert count_received(content) == 3
    assert count_received(b"") == 0


@given(st.binary(max_size=300))
def test_any_bytes(content: bytes) -> None:
    """Any bytes have a header section, and fields whose values are one line."""
    assert 0 <= header_end(content) <= len(content)
    for field in fields(content):
        assert field.value in content or b"\n" in content
        assert unfold(field.value) == field.value
    assert count_received(content) <= content.lower().count(b"received")


@pytest.mark.parametrize("piece", [b"a", b" ", b"a ", b"\n", b"\n ", b"a:", b"\r\n\t", b"\r", b"received ", b"\x00"])
def test_hostile_header_sections_take_linear_time(piece: bytes) -> None:
    """A megabyte of anything is read in one pass (a quadratic scan would exceed the test's time limit)."""
    content = piece * (1_000_000 // len(piece))
    list(fields(content))
    count_received(content)


LINES = (
    b"A: b\r\n", b"a :\tc\n", b" folded\r\n", b"\r\n", b"X: \xe4\r\n", b"Y: \xc3\xb6\n", b"\xc3\x84: b\r\n", b"\r",
    b"\x00: \x00\r\n", b"B: \x0b\x1c\x85\r\n", b"B: \xe2\x80\xa8 \xc2\xa0\r\n", b"no field\r\n",
)  # fmt: skip
SECTIONS = st.lists(st.sampled_from(LINES)).map(b"".join)


@given(SECTIONS)
def test_fields_as_text_are_the_same_fields(content: bytes) -> None:
    """Decoding the section at once or each field on its own says the same, but for octets that are not UTF-8."""
    one_by_one = [(field.name.decode().lower(), text_of(field.value)) for field in fields(content)]
    assert list(text_fields(content)) == one_by_one


def test_text_fields_have_the_same_limits() -> None:
    """Reading stops after a number of fields, and after a number of bytes."""
    assert sum(1 for _ in text_fields(b"A: b\r\n" * 5000)) == FIELD_LIMIT
    [(_, value)] = text_fields(b"A: " + b"x" * 300_000 + b"\r\nB: c\r\n\r\n")
    assert len(value) == HEADER_LIMIT_BYTES - 3


def test_hops_are_counted_at_the_top() -> None:
    """A loop shows at the top, where each host adds its field; what is far below it is not looked at."""
    padding = b"X-Padding: " + b"x" * 100 + b"\r\n"
    hops = b"Received: from a by b\r\n" * 60
    assert count_received(hops + padding * 20_000 + b"\r\n") == 60
    assert count_received(padding * 20_000 + hops + b"\r\n") == 0
