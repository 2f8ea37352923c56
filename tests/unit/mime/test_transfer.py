"""Content transfer encodings, there and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtaq.mime.charsets import codec_of, decode
from mtaq.mime.transfer import decoded, fits_unencoded, to_base64, to_quoted_printable


@given(st.binary(max_size=300))
def test_base64_there_and_back(octets: bytes) -> None:
    """Any octets come back, in lines of mail."""
    body = to_base64(octets, b"\r\n")
    assert decoded(body, "base64") == octets
    assert all(len(line) <= 76 for line in body.split(b"\r\n"))


@given(st.text(alphabet="a-. =ä\t\n", max_size=300))
def test_quoted_printable_there_and_back(text: str) -> None:
    """Any text comes back; no line is too long, none begins with two dashes, none ends in a blank."""
    octets = text.replace("\n", "\r\n").encode()
    body = to_quoted_printable(octets, b"\r\n")
    assert decoded(body, "quoted-printable") == octets
    for line in body.split(b"\r\n"):
        assert len(line) <= 76
        assert not line.startswith(b"--")
        assert not line.endswith((b" ", b"\t"))


@pytest.mark.parametrize(
    ("body", "octets"),
    [
        (b"YQ==", b"a"),
        (b"YQ", b"a"),
        (b"Y", b""),
        (b"YWJj\r\nZGVm\r\n", b"abcdef"),
        (b"YQ==YWI=YWJj", b"aababc"),
        (b" Y!W-J_j ", b"abc"),
        (b"====", b""),
        (b"", b""),
    ],
)
def test_broken_base64(body: bytes, octets: bytes) -> None:
    """Letters that are none are passed over, and padding ends nothing."""
    assert decoded(body, "base64") == octets


@pytest.mark.parametrize(
    ("octets", "eight_bit", "fits"),
    [
        (b"a\r\nb", False, True),
        (b"\xe4", False, False),
        (b"\xe4", True, True),
        (b"\0", True, False),
        (b"x" * 999, True, False),
        (b"a\r\n--b", True, False),
        (b"a --b", True, True),
    ],
)
def test_what_needs_no_encoding(octets: bytes, eight_bit: bool, fits: bool) -> None:
    """Octets stand as they are only where they are taken for nothing else."""
    assert fits_unencoded(octets, eight_bit=eight_bit) is fits


@pytest.mark.parametrize(
    ("charset", "codec"),
    [("UTF-8", "utf-8"), ("latin1", "iso8859-1"), ("idna", None), ("unicode_escape", None), ("zlib", None),
     ("rot13", None), ("", None), ("a\x00b", None), ("x" * 500, None), ("undefined", None)],
)  # fmt: skip
def test_charsets(charset: str, codec: str | None) -> None:
    """Names of charsets are known, names of other codecs are not."""
    assert codec_of(charset) == codec


@given(
    st.binary(max_size=100), st.sampled_from([None, "utf-8", "utf-7", "utf-16", "us-ascii", "x", "iso2022_kr", "hz"])
)
def test_any_octets_are_text(octets: bytes, charset: str | None) -> None:
    """Text always comes out, and never a lone surrogate."""
    decode(octets, charset).encode("utf-8")
