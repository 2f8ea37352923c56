"""``mtaq.smtp.saslprep``: the examples of RFC 4013 §3, and what must not be let in."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtaq.smtp.saslprep import saslprep


@pytest.mark.parametrize(
    ("text", "prepared"),
    [
        ("I\u00adX", "IX"),
        ("user", "user"),
        ("USER", "USER"),
        ("\u00aa", "a"),
        ("\u2168", "IX"),
        ("a\u00a0b\u3000c", "a b c"),
        ("", ""),
        ("\u0627\u0628", "\u0627\u0628"),
        ("p\U0001f511", "p\U0001f511"),
    ],
)
def test_examples(text: str, prepared: str) -> None:
    """RFC 4013 §3: soft hyphens vanish, compatible characters and blanks are folded, case stays."""
    assert saslprep(text) == prepared


@pytest.mark.parametrize(
    "text", ["\u0007", "a\n", "\u06271", "a\u0627", "\u200ea", "\ue000", "\ud800", "\ufff9", "\x7f"]
)
def test_what_is_prohibited(text: str) -> None:
    """Control and private characters, surrogates and mixed directions are refused."""
    with pytest.raises(ValueError, match=r"character"):
        saslprep(text)


@given(st.text(max_size=12))
def test_a_prepared_text_is_prepared(text: str) -> None:
    """Nothing but ``ValueError`` comes out, and preparing twice is preparing once."""
    with contextlib.suppress(ValueError):
        assert saslprep(saslprep(text)) == saslprep(text)
