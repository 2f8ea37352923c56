"""Which octets are signed; dkimpy says the same."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from typing import Any

import dkim.canonicalization
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtaq.mailauth import dkim_canonical
from mtaq.mailauth.dkim_canonical import (
    RawField,
    body_hashes,
    canonical_body,
    canonical_field,
    field_index,
    parse_canonicalization,
    raw_fields,
    selected_places,
)
from mtaq.mailauth.dkim_tags import TagError

PIECES = st.sampled_from([b"a", b" ", b"\t", b"\r\n", b"\r", b"\n", b"bc", b"\xff", b"  ", b"\r\n\r\n", b"\0"])
BODIES = st.lists(PIECES, max_size=60).map(b"".join)


def canonical(body: bytes, relaxed: bool) -> bytes:
    return b"".join(canonical_body(body, 0, relaxed=relaxed))


@pytest.mark.parametrize(
    ("body", "simple", "relaxed"),
    [
        (b"", b"\r\n", b""),
        (b"\r\n\r\n", b"\r\n", b""),
        (b" \t\r\n", b" \t\r\n", b""),
        (b" C \r\nD \t E\r\n\r\n\r\n", b" C \r\nD \t E\r\n", b" C\r\nD E\r\n"),  # RFC 6376 §3.4.5
        (b"a", b"a\r\n", b"a\r\n"),
        (b"a \t", b"a \t\r\n", b"a\r\n"),
        (b"\r\n\r\na\r\n", b"\r\n\r\na\r\n", b"\r\n\r\na\r\n"),
        (b"a\n\r\n", b"a\n\r\n", b"a\n\r\n"),
        (b"a\r\r\n", b"a\r\r\n", b"a\r\r\n"),
        (b"a \r b \n\r\n", b"a \r b \n\r\n", b"a \r b \n\r\n"),
    ],
)
def test_bodies(body: bytes, simple: bytes, relaxed: bytes) -> None:
    """Empty lines at the end do not count, blanks only when simple; a bare CR or LF is an octet like others."""
    assert canonical(body, relaxed=False) == simple
    assert canonical(body, relaxed=True) == relaxed


@given(BODIES)
def test_dkimpy_has_the_same_bodies(body: bytes) -> None:
    """Any body comes out as dkimpy has it; a last line without CRLF gets one before, as the RFC reads."""
    whole_lines = body if body.endswith(b"\r\n") or not body else body + b"\r\n"
    assert canonical(body, relaxed=True) == dkim.canonicalization.Relaxed.canonicalize_body(whole_lines)
    assert canonical(body, relaxed=False) == dkim.canonicalization.Simple.canonicalize_body(whole_lines)


@given(BODIES, st.integers(2, 9), st.booleans())
def test_pieces_change_nothing(body: bytes, piece_bytes: int, relaxed: bool) -> None:
    """However a body is cut into pieces, the canonical one is the same."""
    whole = canonical(body, relaxed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dkim_canonical, "_PIECE_BYTES", piece_bytes)
        assert canonical(body, relaxed) == whole


@given(BODIES, st.booleans(), st.sets(st.integers(0, 70), max_size=4))
def test_hashes_are_of_the_canonical_body(body: bytes, relaxed: bool, lengths: set[int]) -> None:
    """The whole and each beginning that exists are hashed in one pass."""
    octets = canonical(body, relaxed)
    hashes = body_hashes(b"x" + body, 1, relaxed=relaxed, lengths=lengths)
    assert hashes.size_bytes == len(octets)
    assert hashes.whole == hashlib.sha256(octets).digest()
    assert hashes.beginnings == {n: hashlib.sha256(octets[:n]).digest() for n in lengths if n <= len(octets)}


def test_fields_are_found_as_they_stand() -> None:
    """Folds and blanks stay; lines that are no field are passed over, and do not become part of one."""
    section = b"From jqd@x Thu Jan 1 12:22:54\r\nFROM : a\r\n\tb\r\nnonsense\r\n more\r\nX-Y:\r\n: no name\r\nTo:c"
    assert raw_fields(section) == [
        RawField(b"from", b"FROM : a\r\n\tb"),
        RawField(b"x-y", b"X-Y:"),
        RawField(b"to", b"To:c"),
    ]
    assert raw_fields(b"") == []


@pytest.mark.parametrize(
    ("octets", "relaxed"),
    [
        (b"A: X", b"a:X"),
        (b"B : Y\t\r\n\tZ  ", b"b:Y Z"),  # RFC 6376 §3.4.5
        (b"Subject:", b"subject:"),
        (b"Subject: \r\n \r\n ", b"subject:"),
        (b"x:a\x0bb \x0c c", b"x:a\x0bb \x0c c"),
    ],
)
def test_fields_when_relaxed(octets: bytes, relaxed: bytes) -> None:
    """Names in lower case, one line, runs of blanks one space, none at the ends; simple changes nothing."""
    (field,) = raw_fields(octets)
    assert canonical_field(field, relaxed=True) == relaxed
    assert canonical_field(field, relaxed=False) == octets
    name, value = octets.split(b":", 1)
    assert dkim.canonicalization.Relaxed.canonicalize_headers([(name, value)]) == [
        (name.lower().rstrip(), relaxed.split(b":", 1)[1] + b"\r\n")
    ]


def test_fields_are_selected_from_the_bottom() -> None:
    """A name that stands twice means the last two fields; one too often, or a missing one, means none."""
    fields = raw_fields(b"A: 1\r\nB: 2\r\nA: 3\r\nA: 4")

    def values(*names: bytes, own: int | None = None) -> list[bytes]:
        return [fields[place].value.strip() for place in selected_places(field_index(fields), names, own)]

    assert values(b"a", b"a", b"b", b"c", b"b") == [b"4", b"3", b"2"]
    assert values(b"a", b"a", b"a", own=2) == [b"4", b"1"]


@pytest.mark.parametrize(
    ("text", "meant"),
    [("simple", "simple/simple"), ("relaxed", "relaxed/simple"), ("relaxed/relaxed", "relaxed/relaxed")],
)
def test_canonicalizations(text: str, meant: str) -> None:
    """The body is simple unless it is said."""
    assert str(parse_canonicalization(text)) == meant


@pytest.mark.parametrize("text", ["", "nofws", "relaxed/", "relaxed/simple/simple", "Relaxed"])
def test_other_canonicalizations_are_refused(text: str) -> None:
    """There are two, in lower case."""
    with pytest.raises(TagError):
        parse_canonicalization(text)


def calls(work: Callable[[], Any]) -> int:
    """Return how many functions *work* calls, those of C included: each is linear in the piece that it is given."""
    count = 0

    def note(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


@pytest.mark.parametrize("line", [b" ", b"\t", b"\r\n", b" \r\n", b" \t\r", b"a ", b"\r\r\n\n", b"a" * 70 + b"\r\n"])
@pytest.mark.parametrize("relaxed", [True, False])
def test_work_grows_with_the_body_alone(line: bytes, relaxed: bool) -> None:
    """Twice the body is twice the work, whatever it is made of."""
    some = line * (2**20 // len(line))
    once = calls(lambda: body_hashes(some, 0, relaxed=relaxed, lengths=(1, 1_000_000)))
    twice = calls(lambda: body_hashes(some * 2, 0, relaxed=relaxed, lengths=(1, 1_000_000)))
    assert twice <= 2 * once + 20
    assert once < 2_000
