"""SPF records and macros as text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtaq.mailauth.spf_record import (
    Directive,
    RecordError,
    expand,
    is_record,
    parse_explanation,
    parse_record,
    uses,
)

VALUES = {"s": "a.b-c@x.test", "l": "a.b-c", "d": "mail.x.test", "i": "192.0.2.1", "h": "host"}.__getitem__


@pytest.mark.parametrize("text", ["v=spf1", "v=spf1 ", "V=SPF1 -all", "v=spf1  a"])
def test_a_record_is_known_by_its_version(text: str) -> None:
    """The version is followed by a space or nothing, in any case."""
    assert is_record(text)


@pytest.mark.parametrize("text", ["", "v=spf10", "v=spf1\t-all", " v=spf1", "v=spf1\n", "v=spf2 -all", "x v=spf1 -all"])
def test_no_record(text: str) -> None:
    """Anything else is some other text."""
    assert not is_record(text)


def test_terms_in_order() -> None:
    """Directives keep their order, qualifiers are words, unknown modifiers are forgotten, any number of them."""
    record = parse_record("v=spf1 +A/24//64 ~include:%{d}.x.test ip4:192.0.2.0/24 ?ip6:2001:db8::/32 x=1 x=2 -ALL")
    assert [(d.word, d.mechanism) for d in record.directives] == [
        ("pass", "a"),
        ("softfail", "include"),
        ("pass", "ip4"),
        ("neutral", "ip6"),
        ("fail", "all"),
    ]
    assert record.directives[0] == Directive("+A/24//64", "pass", "a", None, 24, 64)
    assert record.directives[2].network == 0xC0000200
    assert record.directives[3].bits6 == 32
    assert record.redirect is None
    assert record.explanation is None


@pytest.mark.parametrize(
    "terms",
    [
        "moo", "=a", "-", "all:", "all/8", "-all.", "include", "include:", "include/8", "exists", "ptr/24", "ptr:",
        "ip4", "ip4:", "ip4:1.2.3", "ip4:1.2.3.256", "ip4:01.2.3.4", "ip4:1.2.3.4/33", "ip4:1.2.3.4//32",
        "ip4:1.2.3.4/032", "ip6", "ip6::::", "ip6:1.2.3.4", "ip6:2001:db8::/129", "ip6:fe80::1%eth0",
        "ip6:2001:db8:://64", "a/33", "a//129", "a/", "a:", "a:test", "a:test.", "a:x.1", "a:x.-y", "a:x.y-", "a:x.y_z",
        "a:x.test%",
        "a:x.%test", "a:x.test/024", "a:%{d", "a:%{}", "a:%{z}", "a:%{d0}", "a:%{dr9}", "a:%{c}", "a:%{d}x",
        "a:%%{d}",
        "redirect=", "redirect=x", "redirect=x.test redirect=x.test", "exp=", "exp=x.test exp=y.test", "x=%", "x=%{c}",
        "1x=y", "a:\x7f.test", "a:x.test\ty", "a:é.test",
    ],
)  # fmt: skip
def test_mistakes(terms: str) -> None:
    """A term outside the grammar spoils the record, behind a mechanism that would match too."""
    with pytest.raises(RecordError) as caught:
        parse_record(f"v=spf1 +all {terms}")
    assert len(str(caught.value)) < 150


@pytest.mark.parametrize(
    "terms",
    ["a:x.test.", "a:x.%{d}", "a:x.%%", "a:foo:bar/baz.x.test/24", "a:x.a-1", "a/0//0", "mx//128",
     "exists:%{l1r+-}.x.t0", "ptr:%{p}", "ip6:::ffff:1.2.3.4", "moo.cow-far_out=man:dog/cat", "x=",
     "a:x.test//64", "A:X.TEST"],
)  # fmt: skip
def test_oddities(terms: str) -> None:
    """What is legal is taken, common or not."""
    parse_record(f"v=spf1 {terms}")


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("%{l}", "a.b-c"),
        ("%{lr}", "b-c.a"),
        ("%{l1}", "b-c"),
        ("%{l-}", "a.b.c"),
        ("%{l1r-}", "a.b"),
        ("%{l9.-}", "a.b.c"),
        ("%{l2r.-}", "b.a"),
        ("%{d2}", "x.test"),
        ("%{d99999999999999999999}", "mail.x.test"),
        ("%{ir}.%{h}", "1.2.0.192.host"),
        ("%{S}", "a.b-c%40x.test"),
        ("%%%_%-%{h}}", "% %20host}"),
    ],
)
def test_macros(text: str, expanded: str) -> None:
    """Macros are split at their delimiters, turned, cut on the left, joined with dots and escaped."""
    assert expand(parse_explanation(text), VALUES) == expanded


def test_values_are_not_expanded_again() -> None:
    """A value with a percent sign stays as it is."""
    assert expand(parse_explanation("%{h}"), {"h": "%{s}%"}.__getitem__) == "%{s}%"


def test_letters_used() -> None:
    """The letters of macros are told apart from those of literal text."""
    pieces = parse_explanation("s %{L} d")
    assert uses(pieces, "sl")
    assert not uses(pieces, "sd")


@given(st.text(alphabet=" %{}=:/.-+~?_,abeimnopqrsxall0123456789\r\né", max_size=60))
def test_any_text_is_a_record_or_an_error(text: str) -> None:
    """Whatever stands behind the version, the parser returns or raises ``RecordError``."""
    try:
        record = parse_record("v=spf1 " + text)
    except RecordError:
        return
    assert len(record.directives) <= len(text)


@pytest.mark.parametrize("piece", ["a ", "%", "%{d", ".", "ip4:1.2.3.4/", "%{d" + "1" * 50, "a:" + "a" * 50, "x=%% "])
def test_64_kilobytes_of_nonsense(piece: str) -> None:
    """The longest text that DNS can carry is refused in time that grows with its length alone."""
    with pytest.raises(RecordError) as caught:
        parse_record("v=spf1 a:" + piece * (65_000 // len(piece)) + "_")
    assert len(str(caught.value)) < 150


def test_64_kilobytes_of_addresses() -> None:
    """A record may have any number of addresses, but few terms of other kinds."""
    assert len(parse_record("v=spf1 " + "ip4:192.0.2.1 " * 4600).directives) == 4600
    assert len(parse_record("v=spf1" + " a" * 50).directives) == 50
    with pytest.raises(RecordError):
        parse_record("v=spf1" + " a" * 25 + " x=y" * 26)
