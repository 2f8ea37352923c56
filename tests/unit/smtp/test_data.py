"""``mtaq.smtp.data``: the end of DATA, dots, line ends."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtaq.smtp.data import (
    ContentBuffer,
    DataDecoder,
    has_bare_cr_or_lf,
    has_long_line,
    normalise_line_ends,
    stuff_dots,
)

#: Octets in which dots and line ends are frequent.
wild = st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b".", b"a", b"\0"]), max_size=40).map(b"".join)


def decode(raw: bytes, cuts: list[int], limit: int = 1000) -> tuple[bytes | None, bytes]:
    """Feed *raw* cut at *cuts*; return the content and what was left over."""
    decoder = DataDecoder(limit)
    start = 0
    for stop in [*cuts, len(raw)]:
        taken = decoder.feed(raw[:stop], start)
        if decoder.finished:
            return decoder.take_content(), raw[taken:]
        assert taken == stop
        start = stop
    raise AssertionError("no end")


@given(wild, st.binary(max_size=10), st.data())
def test_any_content_survives_the_wire(content: bytes, after: bytes, data: st.DataObject) -> None:
    """What DATA sends is what DATA receives, up to a final CRLF, however it is cut; what follows is not touched."""
    content = normalise_line_ends(content)
    raw = stuff_dots(content) + after
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=5)))
    expected = content if not content or content.endswith(b"\r\n") else content + b"\r\n"
    assert decode(raw, cuts) == decode(raw, list(range(len(raw)))) == decode(raw, []) == (expected, after)


@given(wild)
def test_only_crlf_dot_crlf_ends(octets: bytes) -> None:
    """The first CRLF.CRLF ends DATA and nothing before it does, with line ends of any kind around."""
    raw = octets + b"\r\n.\r\n"
    end = (b"\r\n" + raw).index(b"\r\n.\r\n")
    lines = raw[:end].split(b"\r\n")
    content = b"\r\n".join(line[1:] if line.startswith(b".") else line for line in lines)
    expected = (content, raw[end + 3 :])
    assert decode(raw, []) == decode(raw, list(range(len(raw)))) == expected


def test_a_dot_at_once_is_an_empty_content() -> None:
    """The CRLF of the DATA command itself begins CRLF.CRLF."""
    assert decode(b".\r\nQUIT\r\n", []) == (b"", b"QUIT\r\n")
    assert stuff_dots(b"") == b".\r\n"


@given(
    st.lists(st.sampled_from([b"x", b"\r\n", b"\r\n.", b"."]), max_size=40).map(b"".join), st.integers(0, 30), st.data()
)
def test_the_limit_counts_content_not_added_dots(content: bytes, limit: int, data: st.DataObject) -> None:
    """Content is too big exactly when it is longer than the limit without added dots, however it is cut."""
    raw = stuff_dots(content)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=5)))
    whole, _ = decode(raw, [])
    assert whole is not None
    assert decode(raw, cuts, limit)[0] == (whole if len(whole) <= limit else None)


def test_content_beyond_the_limit_is_forgotten_while_it_comes() -> None:
    """A decoder holds no more than its limit allows."""
    buffer = ContentBuffer(10)
    buffer.append(b"x" * 10)
    assert (buffer.oversize, buffer.size_bytes) == (False, 10)
    buffer.append(b"x")
    assert (buffer.oversize, buffer.size_bytes) == (True, 0)
    buffer.append(b"x")
    assert buffer.size_bytes == 0


@given(wild)
def test_bare_line_ends_are_seen(octets: bytes) -> None:
    """A CR or LF that is not half of a CRLF is found, and mended by nothing but ``normalise_line_ends``."""
    assert has_bare_cr_or_lf(octets) == bool(re.search(rb"\r(?!\n)|(?<!\r)\n", octets))
    mended = normalise_line_ends(octets)
    assert not has_bare_cr_or_lf(mended)
    assert mended == re.sub(rb"\r\n|\r|\n", b"\r\n", octets)


def test_canonical_content_is_not_copied() -> None:
    """Content with proper line ends comes back as the same object."""
    content = b"a\r\nb\r\n"
    assert normalise_line_ends(content) is content


@given(st.lists(st.one_of(st.integers(0, 5), st.integers(990, 1005)), max_size=6), st.booleans())
def test_long_lines_are_seen(lengths: list[int], ended: bool) -> None:
    """A line is long when it has more than 998 octets, the last one too."""
    content = b"\r\n".join(b"x" * length for length in lengths) + (b"\r\n" if ended else b"")
    assert has_long_line(content) == any(length > 998 for length in lengths)


@pytest.mark.parametrize("content", [b"", b".", b"..", b"\r\n.", b".\r\n.\r\n", b"a\r\n..b\r\n", b"a\r\n.\r\nb"])
def test_dots(content: bytes) -> None:
    """Dots at line starts survive."""
    expected = content if not content or content.endswith(b"\r\n") else content + b"\r\n"
    assert decode(stuff_dots(content), []) == (expected, b"")
