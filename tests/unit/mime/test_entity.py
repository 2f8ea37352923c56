"""Parts as places in the octets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtaq.mime.entity import PARTS_LIMIT, boundary_of, delimiters, entity_at, gaps_between, parameters, parts_between

BODY = b"preamble\r\n--b\r\none\r\n--b  \r\n\r\n--bc\r\n--b--x\r\n--b--\r\nepilogue\r\n"


def test_parts_and_gaps() -> None:
    """A line end before a delimiter belongs to it; what only begins like one is told apart."""
    content = b"Content-Type: multipart/mixed\r\n\r\n" + BODY
    entity = entity_at(content, 0, len(content))
    cuts = delimiters(content, b"b", entity.body, entity.end)
    pieces = [content[start:end] for start, end in parts_between(content, cuts, entity.end)]
    assert pieces == [b"one", b"\r\n--bc\r\n--b--x"]
    assert [content[start:end] for start, end in gaps_between(content, cuts, entity)] == [b"preamble", b"epilogue\r\n"]
    assert [content[place:][:6] for place in cuts.doubtful] == [b"--bc\r\n", b"--b--x"]


def test_fields_have_their_places() -> None:
    """Each field that matters is where its lines are; others are not looked at."""
    content = b"Subject: x\r\ncontent-TYPE : text/html;\r\n a=b\r\nContent-ID: <1>\r\n\r\nbody"
    entity = entity_at(content, 0, len(content))
    assert [(field.name, field.value) for field in entity.fields] == [
        (b"content-type", b"text/html; a=b"),
        (b"content-id", b"<1>"),
    ]
    kind = entity.fields[0]
    assert content[kind.start : kind.end] == b"content-TYPE : text/html;\r\n a=b\r\n"
    assert (entity.media_type, content[entity.body :]) == ("text/html", b"body")


@pytest.mark.parametrize(
    ("value", "boundary"),
    [
        (b"multipart/mixed; boundary=b", b"b"),
        (b'multipart/mixed; charset=x; BOUNDARY = "a b" ; x=y', b"a b"),
        (b"multipart/mixed; boundary=----=_Part_1.2", b"----=_Part_1.2"),
        (b'multipart/mixed; boundary="boundary"', b"boundary"),
        (b"multipart/mixed; boundary=a; boundary=b", None),
        (b"multipart/mixed; boundary*=b", None),
        (b"multipart/mixed; boundary=a b", None),
        (b'multipart/mixed; boundary="a\\b"', None),
        (b'multipart/mixed; boundary="a', None),
        (b'multipart/mixed; boundary=""', None),
        (b'multipart/mixed; boundary=" "', None),
        (b'multipart/mixed; x="; boundary=a"; boundary=b', None),
        (b"multipart/mixed; boundary=" + b"x" * 500, None),
        (b"multipart/mixed", None),
        (b"", None),
    ],
)
def test_boundary_that_all_readers_agree_on(value: bytes, boundary: bytes | None) -> None:
    """There is a boundary only where nobody can find another one."""
    assert boundary_of(value) == boundary


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("text/plain; charset=utf-8; Name = x", {"charset": "utf-8", "name": "x"}),
        ('a; name="x; y=\\"z\\""', {"name": 'x; y="z"'}),
        ("a; name*=utf-8'de'gr%C3%BCn", {"name": "grün"}),
        ("a; name*1=b; name*0=a", {"name": "ab"}),
        ("a; name*0*=iso-8859-1''%E4; name*1*=%F6", {"name": "äö"}),
        ("a; name*=utf-8''new; name=old", {"name": "old"}),
        ("a; name==?utf-8?q?gr=C3=BCn?=", {"name": "grün"}),
        ("a; name*=''%zz", {"name": "%zz"}),
        ("a;;; =b; c", {}),
        ("", {}),
    ],
)
def test_parameters(value: str, found: dict[str, str]) -> None:
    """Parameters as RFC 2045, RFC 2231 and the habits of others write them."""
    assert parameters(value) == found


@given(st.binary(max_size=200), st.binary(min_size=1, max_size=3))
def test_any_octets(content: bytes, boundary: bytes) -> None:
    """Places are within the content and in order, whatever it is."""
    entity = entity_at(content, 0, len(content))
    assert 0 <= entity.stop <= entity.body <= entity.end == len(content)
    cuts = delimiters(content, boundary, entity.body, entity.end)
    places = [*parts_between(content, cuts, entity.end), *gaps_between(content, cuts, entity)]
    assert all(entity.body <= start <= end <= entity.end for start, end in places)
    for start, end in places:
        entity_at(content, start, end)
    boundary_of(content)
    parameters(content.decode("latin-1"))


@pytest.mark.parametrize("line", [b"--b\r\n", b"\r--b\r\n"], ids=["lines", "doubtful places"])
def test_delimiters_without_end_are_not_all_looked_for(line: bytes) -> None:
    """Nobody looks at more parts than the limit, so a body of nothing but delimiters costs no more than one with it."""
    found = delimiters(line * 100_000, b"b", 0, 100_000 * len(line))
    assert max(len(found.lines), len(found.doubtful)) == PARTS_LIMIT + 1
