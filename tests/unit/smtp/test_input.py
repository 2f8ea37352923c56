"""``mtaq.smtp.input``: command lines out of octets."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mtaq.smtp.input import InputBuffer

octets = st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"x", b"y" * 9, b"z" * 19]), max_size=20).map(b"".join)


def lines(blocks: list[bytes], limit: int) -> list[bytes]:
    """Return the lines; over-long ones only by their first octets."""
    buffer = InputBuffer(limit)
    found: list[bytes] = []
    for block in blocks:
        buffer.append(block)
        while (line := buffer.take_line()) is not None:
            found.append(line if len(line) + 2 <= limit else b"too long: " + line[: limit - 1])
        assert len(buffer) < limit
    return found


@given(octets)
def test_lines_are_the_same_however_cut(data: bytes) -> None:
    """Lines end at CRLF only, over-long ones are told as such, whole or octet by octet."""
    whole = lines([data], 20)
    assert whole == lines([data[i : i + 1] for i in range(len(data))], 20)
    assert len(whole) == data.count(b"\r\n")


def test_an_endless_line_is_not_kept() -> None:
    """Of a line without end no more than the limit is held."""
    buffer = InputBuffer(20)
    for _ in range(100):
        buffer.append(b"x" * 50)
        assert buffer.take_line() is None
        assert len(buffer) <= 1


def test_a_used_block_is_let_go() -> None:
    """An idle session does not hold the block in which its last command came."""
    buffer = InputBuffer(20)
    buffer.append(b"NOOP\r\n" * 1000)
    while buffer.take_line() is not None:
        pass
    assert buffer.data == b""
