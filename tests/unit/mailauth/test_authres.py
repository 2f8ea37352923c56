"""Authentication-Results fields, written and read."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtaq.mailauth.authres import (
    LINE_LENGTH,
    MAX_FIELD_BYTES,
    MAX_VALUE_BYTES,
    AuthenticationResults,
    AuthresSyntaxError,
    compose,
    parse,
)
from mtaq.mailauth.verdict import Verdict

US = "mx.relay.test"
DKIM_PASS = Verdict("dkim", "pass")


def composed(*verdicts: Verdict, authserv_id: str = US, utf8: bool = False) -> str:
    return compose(authserv_id, verdicts, utf8=utf8).decode()


def read_back(*verdicts: Verdict, authserv_id: str = US, utf8: bool = False) -> AuthenticationResults:
    field = compose(authserv_id, verdicts, utf8=utf8)
    assert field.startswith(b"Authentication-Results: ")
    assert field.endswith(b"\r\n")
    return parse(field.partition(b":")[2])


def spf(value: str, name: str = "smtp.mailfrom") -> Verdict:
    return Verdict("spf", "pass", None, ((name, value),))


def test_the_parts_stand_on_lines_of_their_own() -> None:
    """The field is folded between results, and where a line would be longer than 78 characters."""
    dkim = Verdict("dkim", "fail", "body hash did not verify", (("header.d", "a.test"), ("header.s", "x" * 30)))
    assert composed(spf("alice@a.test"), dkim) == (
        "Authentication-Results: mx.relay.test;\r\n"
        " spf=pass smtp.mailfrom=alice@a.test;\r\n"
        ' dkim=fail reason="body hash did not verify" header.d=a.test\r\n'
        " header.s=xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n"
    )


def test_only_long_reasons_are_cut_into_lines() -> None:
    """No words of strangers begin a line, as long as they are not what a check has to say itself."""
    words = "none; dkim=pass " * 6
    field = composed(Verdict("spf", "fail", words, (("smtp.helo", words),)))
    assert f'\r\n smtp.helo="{words.strip()}"\r\n' in field
    assert max(map(len, field.split("\r\n")[:-2])) <= LINE_LENGTH


def test_no_checks() -> None:
    """Nothing to say is said as well (RFC 8601 §2.2)."""
    assert composed() == "Authentication-Results: mx.relay.test;\r\n none\r\n"
    assert read_back() == AuthenticationResults(US)


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("a.test", "a.test"),
        ("@a.test", "@a.test"),
        ("a/b=c?d+e@a.test", "a/b=c?d+e@a.test"),
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", '"2001:db8::1"'),
        ("[192.0.2.1]", '"[192.0.2.1]"'),
        ("ab/c+d==", '"ab/c+d=="'),
        ('"a b"@a.test', '"\\"a b\\"@a.test"'),
        ("a@b@c.test", '"a@b@c.test"'),
        ("", '""'),
        ("none; dkim=pass", '"none; dkim=pass"'),
        ("a.test (pass)", '"a.test (pass)"'),
        ("a\\", '"a\\\\"'),
        ("a\r\nX-Forged: yes", '"a X-Forged: yes"'),
        (" a.\x00test\x7f\t", '"a. test"'),
        ("a\u2028b", '"a b"'),
        ("\ud800", '"?"'),
    ],
)
def test_values(value: str, written: str) -> None:
    """Tokens and addresses stand as they are, anything else in quotes; control characters become a blank."""
    assert composed(spf(value)) == f"Authentication-Results: mx.relay.test;\r\n spf=pass smtp.mailfrom={written}\r\n"


def test_characters_beyond_ascii() -> None:
    """UTF-8 is for messages that may have it; in others domains become A-labels and the rest question marks."""
    verdict = spf("jörg@bücher.test")
    assert "smtp.mailfrom=jörg@bücher.test\r\n" in composed(verdict, utf8=True)
    assert "smtp.mailfrom=j?rg@xn--bcher-kva.test\r\n" in composed(verdict)
    assert "smtp.helo=xn--bcher-kva.test\r\n" in composed(spf("bücher.test", "smtp.helo"))
    assert composed(authserv_id="bücher.test") == "Authentication-Results: xn--bcher-kva.test;\r\n none\r\n"


def test_long_values_are_cut() -> None:
    """No value makes a line that cannot be sent (RFC 5322 §2.1.1), whatever must be escaped in it."""
    for value in ("a" * 5000, '"' * 5000, "ü" * 5000, "a b " * 5000):
        verdict = Verdict("spf", "fail", value, (("smtp.helo", value), ("smtp.mailfrom", f"{value}@a.test")))
        for utf8 in (True, False):
            field = compose(value, [verdict], utf8=utf8)
            assert max(map(len, field.split(b"\r\n"))) < 998
            assert len(read_back(verdict, authserv_id=value, utf8=utf8).verdicts[0].reason or "") <= MAX_VALUE_BYTES


@pytest.mark.parametrize(
    "verdict",
    [
        Verdict("s pf", "pass"),
        Verdict("spf", "pass;"),
        Verdict("", "x"),
        spf("a", "x"),
        spf("a", "s.a=b"),
        spf("", "s.\r"),
    ],
)
def test_words_of_our_own_must_be_right(verdict: Verdict) -> None:
    """Methods, results and names of properties are not escaped: a wrong one is a mistake of the check."""
    with pytest.raises(ValueError, match="is no"):
        composed(verdict)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a.test; none", AuthenticationResults("a.test")),
        ("a.test 1 ; none (c)", AuthenticationResults("a.test", "1")),
        (
            '(a(b)) "a.test"\r\n\t(c) 1(d);spf (e) = PASS reason = "x\\"y" SMTP . MailFrom = "b b"@a.test',
            AuthenticationResults("a.test", "1", (Verdict("spf", "pass", 'x"y', (("smtp.mailfrom", "b b@a.test"),)),)),
        ),
        ("a.test; dkim/1=pass; x=y", AuthenticationResults("a.test", None, (DKIM_PASS, Verdict("x", "y")))),
        ("a.test; none=none", AuthenticationResults("a.test", None, (Verdict("none", "none"),))),
        (
            "a.test; dkim=pass header.b=a/b+== version=1.2 reason=x",
            AuthenticationResults("a.test", None, (Verdict("dkim", "pass", None, (("header.b", "a/b+=="),)),)),
        ),
    ],
)
def test_parse(value: str, expected: AuthenticationResults) -> None:
    """Comments, folds, blanks, quotes, letter case and versions are read as RFC 8601 §2.2 has them."""
    assert parse(value.encode()) == expected


@pytest.mark.parametrize(
    "value",
    [
        "",
        "a.test",
        "a.test;",
        "a.test; none;",
        "a.test; none; spf=pass",
        "a.test; spf",
        "a.test; spf=",
        "a.test; spf=pass smtp.mailfrom",
        "a.test; spf=pass smtp.mailfrom=",
        "a.test; spf=pass smtp.mailfrom=;x=y",
        "a.test; =pass",
        "a.test x; none",
        "a.test 1 1; none",
        "a=b; none",
        'a.test"; none',
        "a.test (; none",
        "a.test; spf=pass smtp.helo=a:b",
        "a.test\x00; none",
        "a.test; s_f=pass",
        "a.test; spf=pa.ss",
    ],
)
def test_what_cannot_be_read(value: str) -> None:
    """Anything else is an error of syntax."""
    with pytest.raises(AuthresSyntaxError):
        parse(value.encode())


def test_reading_is_bounded() -> None:
    """A field without end is not read; nesting takes no stack."""
    for value in (b"a" * (MAX_FIELD_BYTES + 1), b"(" * MAX_FIELD_BYTES):
        with pytest.raises(AuthresSyntaxError):
            parse(value)
    assert parse(b"(" * 30_000 + b")" * 30_000 + b"a.test;none").authserv_id == "a.test"


KEYWORDS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)
NAMES = st.tuples(KEYWORDS, KEYWORDS).map(".".join)
VALUES = st.one_of(st.text(max_size=100), st.text('ab .;"\\()@=\r\n\t\x00ü', max_size=200))
VERDICTS = st.builds(
    Verdict, KEYWORDS, KEYWORDS, st.one_of(st.none(), VALUES), st.lists(st.tuples(NAMES, VALUES), max_size=5).map(tuple)
)


def is_one_word(line: str) -> bool:
    return re.fullmatch(r"(Authentication-Results:)? ([^ ]+|[^ ]*\"([^\"\\]|\\.)*\");?", line) is not None


def cleaned(text: str) -> str:
    text = re.sub("[\x00-\x20\x7f-\x9f\u2028\u2029]+", " ", text).strip(" ")
    return text.encode("utf-8", "replace")[:MAX_VALUE_BYTES].decode("utf-8", "ignore")


@given(VALUES, st.lists(VERDICTS, max_size=5))
def test_what_is_written_is_read(authserv_id: str, verdicts: list[Verdict]) -> None:
    """Whatever strangers put into values, it is one field, well folded, and says what was to be said."""
    field = compose(authserv_id, verdicts, utf8=True)
    lines = field.removesuffix(b"\r\n").split(b"\r\n")
    assert not re.search(rb"[\r\n\x00]", b"".join(lines))
    assert lines[0].startswith(b"Authentication-Results:")
    assert all(re.match(rb" [^ ]", line) for line in lines[1:])
    assert all(len(line.decode()) <= LINE_LENGTH or is_one_word(line.decode()) for line in lines)
    assert parse(field.partition(b":")[2]) == AuthenticationResults(
        cleaned(authserv_id),
        None,
        tuple(
            Verdict(
                verdict.method,
                verdict.result,
                cleaned(verdict.reason) if verdict.reason else None,
                tuple((name, cleaned(value)) for name, value in verdict.properties),
            )
            for verdict in verdicts
        ),
    )
    assert compose(authserv_id, verdicts).isascii()


@given(st.one_of(st.binary(max_size=100), st.text('a.=;"\\()@1 /\t\r\n', max_size=100).map(str.encode)))
def test_any_octets_are_read_or_an_error(value: bytes) -> None:
    """No octets make the parser fail in another way, and what was read can be written."""
    try:
        read = parse(value)
    except AuthresSyntaxError:
        return
    assert parse(compose(read.authserv_id, read.verdicts, utf8=True).partition(b":")[2]).verdicts is not None
