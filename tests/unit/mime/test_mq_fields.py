"""Finding the `x-mq-*` fields and taking them out; tests are named after the trick they are about."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtaq.mime.headers import header_end
from mtaq.mime.mq_fields import has_mq_fields, read_mq_field, split_mq_fields, strip_mq_fields

LINES = st.sampled_from(
    [
        b"X-MQ-Tag: a\r\n", b"x-mq-Pool : b\n", b"X-Mq-\r\n", b" folded\r\n", b"\tfolded: x\n", b"Subject: x\r\n",
        b"no field\r\n", b"\r\n", b"\n", b"X-MQ-A\x00: b\r\n", b"X-MQ: c\r\n", b" X-MQ-Tag: d\r\n",
        b"a\rX-MQ-Tag: e\r\n", b"From b\n", b" \r\n", b"X-MQ-Tag: last",
    ]
)  # fmt: skip
CONTENTS = st.lists(LINES, max_size=12).map(b"".join)


@pytest.mark.parametrize(
    ("content", "remains", "fields"),
    [
        (b"X-MQ-Tag: a\r\nSubject: x\r\n\r\nbody", b"Subject: x\r\n\r\nbody", [("tag", b"a")]),
        (b"Subject: x\r\nX-MQ-Tag: a\r\n\r\nbody", b"Subject: x\r\n\r\nbody", [("tag", b"a")]),
        (b"A: 1\r\nx-Mq-TAG \t: a\r\nB: 2\r\n\r\n", b"A: 1\r\nB: 2\r\n\r\n", [("tag", b"a")]),
        (b"X-MQ-Tag: a\r\n b\r\n\tc\r\nA: 1\r\n\r\n", b"A: 1\r\n\r\n", [("tag", b"a b\tc")]),
        (b"X-MQ-Tag:\r\n a\r\n\r\n", b"\r\n", [("tag", b"a")]),
        (b"X-MQ-Tag:\r\n\r\n", b"\r\n", [("tag", b"")]),
        (b"X-MQ-Tag: a", b"", [("tag", b"a")]),
        (b"A: 1\r\nX-MQ-A: 1\r\nX-MQ-B: 2", b"A: 1\r\n", [("a", b"1"), ("b", b"2")]),
    ],
    ids=["first", "last", "case and blanks", "folded", "value folded", "empty", "nothing else", "no body"],
)
def test_fields_are_taken_out(content: bytes, remains: bytes, fields: list[tuple[str, bytes]]) -> None:
    """Fields are found in any case and folded in any way, and only they are gone."""
    kept, found = split_mq_fields(content)
    assert kept == remains
    assert [tuple(read_mq_field(lines)) for lines in found] == fields


@pytest.mark.parametrize(
    "content",
    [
        b"", b"body", b"\r\nX-MQ-Tag: body\r\n", b"\nX-MQ-Tag: body\n", b"Subject: a\r\n\r\nX-MQ-Tag: body\r\n",
        b"Subject: a\n\nX-MQ-Tag: body\n", b"Subject: a\r\n X-MQ-Tag: folded\r\n\r\n", b"X-MQ: a\r\n\r\n",
        b"XX-MQ-Tag: a\r\n\r\n", b"X-MQ\r\n -Tag: a\r\n\r\n", b"X-MQTag: a\r\n\r\n", b" X-MQ-Tag: a\r\n\r\n",
    ],
)  # fmt: skip
def test_content_without_fields_is_the_same_object(content: bytes) -> None:
    """Nothing is copied when there is nothing to take out."""
    assert not has_mq_fields(content)
    assert strip_mq_fields(content) is content
    assert split_mq_fields(content) == (content, [])


def test_lf_only() -> None:
    """Content with bare LF has the same fields."""
    assert strip_mq_fields(b"A: 1\nX-MQ-B: 2\n 3\nC: 4\n\nX-MQ-D: body\n") == b"A: 1\nC: 4\n\nX-MQ-D: body\n"


@pytest.mark.parametrize("lines", [b"X-MQ-\r\n foo: bar\r\n", b"X-MQ-Pool\r\n : bar\r\n", b"X-MQ-Pool bar\r\n",
                                   b"X-MQ-\x00Pool: bar\r\n", b"X-MQ-P\xc3\xb6ol: bar\r\n"])  # fmt: skip
def test_folded_and_broken_names_go_too(lines: bytes) -> None:
    """What some reader might still take for such a field does not stay behind."""
    kept, [found] = split_mq_fields(b"A: 1\r\n" + lines + b"B: 2\r\n\r\nbody")
    assert kept == b"A: 1\r\nB: 2\r\n\r\nbody"
    assert read_mq_field(found).name is None


def test_bare_cr_begins_no_field() -> None:
    """A bare CR ends no line: what follows belongs to the value."""
    content = b"Subject: a\rX-MQ-Pool: b\r\nX-MQ-Tag: c\rX-MQ-Pool: d\r\n\r\n"
    kept, [found] = split_mq_fields(content)
    assert kept == b"Subject: a\rX-MQ-Pool: b\r\n\r\n"
    assert read_mq_field(found) == ("tag", b"c\rX-MQ-Pool: d")


def test_boundary_between_header_and_body_missing() -> None:
    """Without an empty line everything is header section, lines that are no field included."""
    assert strip_mq_fields(b"A: 1\r\nsome text\r\nX-MQ-B: 2\r\nmore") == b"A: 1\r\nsome text\r\nmore"


def test_line_of_blanks_is_no_empty_line() -> None:
    """A line of blanks continues the field before it, so what follows is still header section."""
    assert strip_mq_fields(b"A: 1\r\n \r\nX-MQ-B: 2\r\n \r\nC: 3\r\n\r\n") == b"A: 1\r\n \r\nC: 3\r\n\r\n"


def test_fields_of_parts_stay() -> None:
    """Header fields of the parts of a body are none of the message's."""
    content = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nX-MQ-Tag: a\r\n\r\ntext\r\n--b--\r\n"
    assert strip_mq_fields(content) is content


@given(CONTENTS)
def test_stripping_twice_is_stripping_once(content: bytes) -> None:
    """What remains has no such field, so taking out again changes nothing."""
    once = strip_mq_fields(content)
    assert strip_mq_fields(once) is once
    assert not has_mq_fields(once)


@given(CONTENTS)
def test_all_else_stays_byte_for_byte(content: bytes) -> None:
    """Line by line, what is taken out begins with the prefix or continues a line that does; the rest is untouched."""
    end = header_end(content)
    kept, in_ours = [], False
    for line in re.findall(rb"[^\n]*\n|[^\n]+\Z", content[:end]):
        in_ours = line.lower().startswith(b"x-mq-") or (in_ours and line[:1] in b" \t")
        kept += [] if in_ours else [line]
    assert strip_mq_fields(content) == b"".join(kept) + content[end:]


@given(st.binary(max_size=200))
def test_any_octets(content: bytes) -> None:
    """No content makes it fail."""
    for lines in split_mq_fields(content)[1]:
        read_mq_field(lines)


@pytest.mark.parametrize(
    "content",
    [
        b"A: b\r\n" * 10_000 + b"\r\nbody",
        b"X-MQ-Tag: b\r\n" * 10_000 + b"\r\nbody",
        b"A: " + b"x" * 1_000_000 + b"\r\n\r\n",
        b"X-MQ-A: " + b"x" * 1_000_000 + b"\r\n\r\n",
        b"X-MQ-A: " + b"x\r\n " * 300_000 + b"\r\n\r\n",
        b"X-MQ-" * 200_000,
        b"x-mq-\r\n" * 100_000,
        b"\n " * 500_000,
    ],
    ids=["10,000 fields", "10,000 of ours", "1 MB field", "1 MB of ours", "1 MB folded", "one name", "names", "folds"],
)
def test_ten_thousand_fields_and_one_of_a_megabyte(content: bytes) -> None:
    """Time grows with the length, not with its square, which would not come to an end here."""
    strip_mq_fields(content)


def test_who_bounds_the_fields_gets_no_more() -> None:
    """The fields beyond the bound are not looked for, and stay."""
    content = b"X-MQ-A: 1\r\n" * 5 + b"\r\nbody"
    remaining, found = split_mq_fields(content, 3)
    assert found == [b"X-MQ-A: 1\r\n"] * 3
    assert remaining == b"X-MQ-A: 1\r\n" * 2 + b"\r\nbody"


@given(CONTENTS)
def test_stripping_and_splitting_leave_the_same(content: bytes) -> None:
    """Whether or not anybody reads the fields."""
    assert strip_mq_fields(content) == split_mq_fields(content)[0]
