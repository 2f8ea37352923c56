"""Fields that claim to be ours go, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtaq.mailauth.authres_forged import MAX_FIELDS, MAX_READ_BYTES, without_forged
from mtaq.mime.headers import header_end

US = "mx.relay.test"
NAME = b"Authentication-Results: "
BEFORE, AFTER = b"Subject: a\r\n", b"To: b\r\n\r\nAuthentication-Results: mx.relay.test; none\r\n"


def stays(field: bytes, ours: str = US) -> bool:
    """Does *field* stay? In any case all around it does."""
    left = without_forged(BEFORE + field + AFTER, ours)
    assert left in (BEFORE + AFTER, BEFORE + field + AFTER)
    return left != BEFORE + AFTER


@pytest.mark.parametrize(
    "value",
    [
        "mx.relay.test; spf=pass",
        "mx.relay.test;",
        "mx.relay.test",
        "MX.Relay.TEST 1; none",
        "mx.relay.test 99 ; none",
        "mx.relay.test.; none",
        '"mx.relay.test"; none',
        '"mx\\.relay.test" 1; none',
        '" mx.relay.test "; none',
        "(a (b) \\) c) mx.relay.test(d)1(e);none",
        "\r\n\t(c)\r\n mx.relay.test\r\n ;\r\n none",
        "ｍｘ.relay。test; none",
    ],
)
def test_what_reads_as_ours_goes(value: str) -> None:
    """Letter case, comments, folds, quotes, a version, a last dot and full-width forms hide nothing."""
    assert not stays(NAME + value.encode() + b"\r\n")


@pytest.mark.parametrize(
    "value",
    [
        "mx.relay.test spf=pass",
        "mx.relay.test/1; spf=pass",
        "mx.relay.test:25; spf=pass",
        "mx.relay.test 1 1; spf=pass",
        "<mx.relay.test>; spf=pass",
        "=?utf-8?q?mx.relay.test?=; spf=pass",
        "=?utf-8?B?bXgucmVsYXkudGVzdA==?=; spf=pass",
        "mx.(x)relay(y).test; spf=pass",
        "mx.relay\r\n .test; spf=pass",
        "mx.rel\x00ay.test; spf=pass",
        "(mx.relay.test; spf=pass",
        '"mx.relay.test; spf=pass',
        "((((((a)))))) mx.relay.test; spf=pass",
        "; mx.relay.test; spf=pass",
        "\\mx.relay.test; spf=pass",
        "spf=pass smtp.helo=mx.relay.test",
    ],
)
def test_what_somebody_may_read_as_ours_goes(value: str) -> None:
    """A field that breaks the rules and has our id in it could be believed by a lenient reader."""
    assert not stays(NAME + value.encode() + b"\r\n")


@pytest.mark.parametrize(
    "value",
    [
        "mx.partner.test; dkim=pass",
        "mx.relay.test.evil.test; dkim=pass",
        "not-mx.relay.test; dkim=pass",
        "relay.test; dkim=pass",
        "mx.partner.test (mx.relay.test); dkim=pass",
        "(mx.relay.test) mx.partner.test; dkim=pass",
        "mx.partner.test; spf=pass smtp.helo=mx.relay.test",
        "spf=pass smtp.mailfrom=a.test",
        "",
        "(",
    ],
)
def test_what_is_not_ours_stays(value: str) -> None:
    """Foreign fields stay, also those that name us further on, and those that nobody can read."""
    assert stays(NAME + value.encode() + b"\r\n")


@pytest.mark.parametrize(
    "name",
    [
        b"ARC-Authentication-Results: i=1; ",
        b"X-Authentication-Results: ",
        b"Authentication-Results-Original: ",
        b"Subject: Authentication-Results: ",
        b"Subject:\r\n Authentication-Results: ",
    ],
)
def test_other_fields_stay(name: bytes) -> None:
    """Only the field itself is believed, so only it goes; that of ARC is under a seal."""
    assert stays(name + US.encode() + b"; none\r\n")


@pytest.mark.parametrize(
    "name", [b"authentication-results:", b"AUTHENTICATION-RESULTS \t:", b"Authentication-Results:\n "]
)
def test_names(name: bytes) -> None:
    """The name is found in any case and with blanks before the colon."""
    assert not stays(name + US.encode() + b"; none\r\n")


@pytest.mark.parametrize(
    "name",
    [
        b"Authentication-Results\r\n :",
        b"Authentication-Results\xc2\xa0:",
        b"\xef\xbb\xbfAuthentication-Results:",
        b"Authentication\x00-Results:",
        b"\x01authentication-results\x7f :",
    ],
)
def test_names_for_lenient_readers(name: bytes) -> None:
    """What is no field by RFC 5322 and is read as one by some goes as well."""
    assert not stays(name + b" " + US.encode() + b"; none\r\n")


@pytest.mark.parametrize("line_end", [b"\r", b"\x0b", b"\x0c"])
def test_a_part_of_a_line(line_end: bytes) -> None:
    """Behind what some readers take for the end of a line a field goes, and the rest of the line stays."""
    before = b"Subject: a" + line_end
    left = without_forged(before + NAME + US.encode() + b"; none\r\n b\r\n" + AFTER, US)
    assert left == before + b"\r\n" + AFTER
    foreign = before + NAME + b"mx.partner.test; none\r\n" + AFTER
    assert without_forged(foreign, US) == foreign


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("mx.bücher.test", b"mx.xn--bcher-kva.test"),
        ("mx.xn--bcher-kva.test", "MX.BÜCHER.test".encode()),
        ("mx.bücher.test", "mx.bücher.test".encode("latin-1")),
        ("mx.bücher.test", b"mx.xn--bcher-kva.test = x"),
        ("mx.xn--bcher-kva.test", "<mx.bücher.test>".encode()),
        ("Our Gateway", b'"our gateway"'),
    ],
)
def test_internationalized_ids(ours: str, theirs: bytes) -> None:
    """An id in U-labels is the same in A-labels; one that is no domain is compared as it is."""
    assert not stays(NAME + theirs + b"; none\r\n", ours)


def test_places() -> None:
    """It may stand anywhere in the header section, several times, end with LF or nothing; the body does not matter."""
    forged = NAME + b"mx.relay.test;\r\n none\r\n"
    assert without_forged(forged + b"A: b\r\n" + forged * 3 + b"C: d\r\n" + forged + b"\r\n" + forged, US) == (
        b"A: b\r\nC: d\r\n\r\n" + forged
    )
    assert without_forged(forged, US) == b""
    assert without_forged(forged.replace(b"\r\n", b"\n") + b"A: b\n\nbody", US) == b"A: b\n\nbody"
    assert without_forged(b"A: b\r\n" + forged.removesuffix(b"\r\n"), US) == b"A: b\r\n"
    assert without_forged(b"\r\n" + forged, US) == b"\r\n" + forged


def test_without_such_fields_nothing_is_copied() -> None:
    """A message that has none comes back itself."""
    content = b"Subject: a\r\n\r\nAuthentication-Results: mx.relay.test; none\r\n"
    assert without_forged(content, US) is content


@pytest.mark.parametrize(
    "piece",
    [b"(", b")(", b"(\\", b"\\(", b'"\\', b'"(', b"((a)", b"=?a?b?", b"a=", b"1 ", b"\r\n "],
)
def test_reading_is_bounded(piece: bytes) -> None:
    """Fields beyond what is read go, as they cannot be judged; those before stay."""
    foreign = NAME + b"mx.partner.test; none\r\n"
    long = NAME + piece * (MAX_READ_BYTES // len(piece)) + b"x\r\n"
    assert (
        without_forged(foreign + long * 20 + b"A: b\r\n" + foreign + b"\r\nbody", US) == foreign + b"A: b\r\n\r\nbody"
    )


def test_fields_are_counted() -> None:
    """Of more fields than anybody needs the rest goes unread."""
    foreign = NAME + b"mx.partner.test; none\r\n"
    assert without_forged(foreign * (MAX_FIELDS + 50) + b"\r\n", US) == foreign * MAX_FIELDS + b"\r\n"


LINES = st.lists(
    st.sampled_from(
        [
            b"A: b",
            b" folded",
            b"",
            b"Authentication-Results:",
            NAME + b"a.test; none",
            NAME + b"mx.relay.test; none",
            NAME + b"(",
            b"authentication-results : mx.relay.test",
            b"\tmx.relay.test; none",
            b"ARC-" + NAME + b"mx.relay.test",
        ]
    )
)


@given(LINES, st.sampled_from([b"\r\n", b"\n"]), st.binary(max_size=20))
def test_only_whole_fields_go(lines: list[bytes], end: bytes, tail: bytes) -> None:
    """What is left is what was there without some fields of that name, and leaving out again changes nothing."""
    content = end.join(lines) + end + tail
    left = without_forged(content, US)
    assert without_forged(left, US) == left
    position = 0
    for line in left.splitlines(keepends=True):
        position = content.index(line, position) + len(line)
    cut = header_end(content)
    assert left.endswith(content[cut:])
    assert left.count(b"A: b") == content.count(b"A: b")
    assert left.count(b"ARC-") == content.count(b"ARC-")


@given(st.binary(max_size=60))
def test_any_octets(value: bytes) -> None:
    """Nothing makes it fail."""
    content = NAME + value + b"\r\nA: b\r\n\r\nbody"
    left = without_forged(content, US)
    assert content.endswith(left)
    assert without_forged(left, US) == left
