"""Makes user names and passwords comparable, however they were typed (SASLprep, RFC 4013).

The tables are Unicode 3.2's, as the standard has it. Code points that did not exist then pass unchanged (a query in
the sense of RFC 3454 §7): clients send them, and refusing an emoji protects nobody.
"""

from __future__ import annotations

import stringprep
from unicodedata import ucd_3_2_0 as unicode_3_2

_PROHIBITED = (
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


def saslprep(text: str) -> str:
    """
    Return *text* prepared (RFC 4013 §2).

    Raises:
        ValueError: It holds what is prohibited, such as a control character, or mixes directions of writing.
    """
    if text.isascii() and text.isprintable():
        return text
    mapped = (" " if stringprep.in_table_c12(char) else char for char in text if not stringprep.in_table_b1(char))
    prepared = unicode_3_2.normalize("NFKC", "".join(mapped))
    if any(prohibited(char) for char in prepared for prohibited in _PROHIBITED):
        raise ValueError("a character that no name or password may hold")
    _check_direction(prepared)
    return prepared


def _check_direction(text: str) -> None:
    """RFC 3454 §6: what is written from right to left begins and ends so, and holds nothing of the other kind."""
    if not any(map(stringprep.in_table_d1, text)):
        return
    ends = stringprep.in_table_d1(text[0]) and stringprep.in_table_d1(text[-1])
    if not ends or any(map(stringprep.in_table_d2, text)):
        raise ValueError("characters of both directions of writing")
