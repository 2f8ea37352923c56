"""Names in and out of DNS: nothing is lost, nothing is guessed."""

from __future__ import annotations

import dns.name
import pytest

from mtaq.dns.records import name_of, text_of


@pytest.mark.parametrize("text", ["a.test", "_25._tcp.mx.a.test", "a b.test", "@.test", "x" * 63 + ".test"])
def test_names_are_taken_letter_by_letter(text: str) -> None:
    """Each label holds the letters that stand in the text."""
    assert name_of(text).labels == (*text.encode().split(b"."), b"")


def test_a_backslash_is_a_backslash() -> None:
    """What would be an escape in a zone file is none in a name that is asked for."""
    assert name_of(r"a\046b.test").labels == (rb"a\046b", b"test", b"")


@pytest.mark.parametrize(
    "text", ["", ".", "a..b", ".a", "a.", "x" * 64, ".".join(["x" * 60] * 5), "bücher.test", "\udcff.test"]
)
def test_what_is_no_name(text: str) -> None:
    """Empty and long labels, long names and what is not ASCII are no domain names."""
    with pytest.raises(ValueError, match="not a domain name"):
        name_of(text)


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        ((b"MX", b"A", b"Test", b""), "mx.a.test"),
        ((b"",), ""),
        ((b"a.b", b"test", b""), r"a\.b.test"),
        ((b"\x00\n\xff", b"test", b""), r"\000\010\255.test"),
    ],
)
def test_names_of_records(labels: tuple[bytes, ...], text: str) -> None:
    """Names come in lower case without the last dot, with escapes for what is not printable; the root is empty."""
    assert text_of(dns.name.Name(labels)) == text
