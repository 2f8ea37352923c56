"""Whose domain a From field claims, whatever stands in it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtaq.mailauth.from_field import (
    MAX_DOMAINS,
    MAX_FIELD_BYTES,
    Authors,
    a_label_domain,
    authors,
    authors_of,
)
from mtaq.mime.headers import TRACE_LIMIT_BYTES

CEO = ("bank.test",)


@pytest.mark.parametrize(
    "value",
    [
        "ceo@bank.test",
        "CEO <ceo@bank.test>",
        '"Doe, John" <j@bank.test>, a@BANK.test',
        "Doe, John <j@bank.test>",
        "John Q. Public <j@bank.test>",
        "a@bank.test (Comment (nested \\) ) <x@evil.test>)",
        "=?utf-8?Q?J=C3=B6rg?= <j@bank.test>",
        "=?utf-8?Q?user@evil.test?= <j@bank.test>",
        "=?utf-8?Q?user=40evil.test?= Jr. <j@bank.test>",
        '"user@evil.test" Jr. <j@bank.test>, "B" <b@bank.test>',
        "Jörg [Jack] <j@bank.test>",
        '"ceo@evil.test"@bank.test',
        '"a\\"@evil.test" <ceo@bank.test>',
        "<@evil.test,@[192.0.2.1]:ceo@bank.test>",
        "Group: a@bank.test, B <b@bank.test>;",
        "Group: a@bank.test",
        ", a@bank.test,,",
        "ceo@bank.test.",
        "ceo@bank .test",
        "ceo@(x)bank(y) .\r\n\ttest(z)",
        "ceo @ bank . test",
        "CEO <ceo@bank.test",
        "@bank.test",
        "ceo@bank\u200b.test",
        "ceo@ｂａｎｋ。test",
    ],
)
def test_one_domain(value: str) -> None:
    """What shows one domain is read, in the spellings of RFC 5322 and in common faulty ones."""
    assert authors(f"Subject: x\r\nFrom: {value}\r\n\r\n".encode()) == Authors(CEO)


@pytest.mark.parametrize(
    "value",
    [
        "ceo@bank.test, x@evil.test",
        "ceo@bank.test <x@evil.test>",
        "ceo@bank.test; x@evil.test",
        "<ceo@bank.test> x@evil.test",
        "CEO <ceo@bank.test> <x@evil.test>",
        "ceo@bank.test@evil.test",
        "=?utf-8?q?<ceo@bank.test>?= <x@evil.test>",
        "ceo\\@bank.test@evil.test",
        "<@bank.test@evil.test>",
        "G: ceo@bank.test;, x@evil.test",
    ],
)
def test_every_domain_that_may_be_shown_counts(value: str) -> None:
    """Of several addresses none is picked: each domain is an author."""
    assert authors_of(value.encode()) == Authors(("bank.test", "evil.test"))


def test_internationalized_domains_become_a_labels() -> None:
    """Two spellings of a domain are one domain (RFC 9989 §5.3.1)."""
    assert authors_of("a@Bücher.test, b@xn--bcher-kva.test".encode()) == Authors(("xn--bcher-kva.test",))


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"<>",
        b"Mailer-Daemon",
        b"undisclosed-recipients:;",
        b'"ceo@bank.test"',
        b'"ceo@bank.test',
        b'"ceo@bank.test", x@evil.test',
        b"[ceo@bank.test] <x@evil.test>",
        b"<=?utf-8?q?ceo=40bank.test?=><x@evil.test>",
        b"=?utf-8?q?ceo=40bank.test?=><x@evil.test>",
        b"=?x-unknown?q?ceo@bank.test?=, x@evil.test",
        b'x@evil.test "ceo@bank.test"',
        b'<x@evil.test> "ceo@bank.test"',
        b"=?utf-8?q?ceo=40bank.test?=, x@evil.test",
        b"=?utf-8?q?ceo=40bank.test?=x; x@evil.test",
        b"<x@evil.test> =?utf-8?B?Y2VvQGJhbmsudGVzdA==?=",
        b"=?utf-8?q?ceo=40bank.test?=@evil.test",
        b'"=?utf-8?q?ceo=40bank.test?="@evil.test',
        b'"=?utf-8?b?Y2VvQGJhbmsudGVzdA==?==?utf-8?q?=0A=00?="@evil.test',
        b"ceo@bank.test (comment",
        b"a@[192.0.2.1]",
        b"a@[1.2.3.4",
        b"u@",
        b"u@.",
        b"u@.bank.test",
        b"a@bank..test",
        b"ceo@bank example",
        b"ceo@bank.test evil",
        b"ceo@bank.test x@evil.test",
        b'u@bank"x".test',
        b"ceo@bank\x00.test",
        b"ceo@bank.test\x7f",
        b"(\x00) ceo@bank.test",
        "ceo@bank\u3000.test".encode(),
        "ceo@bank\u00a0.test".encode(),
        b"ceo@b\xfccher.test",
        b"ceo@=?utf-8?q?bank.test?=",
        b"ceo@" + b"a" * 64 + b".test",
        b"ceo@" + b"a." * 127 + b"test",
        b"good@bank.test, bad@[192.0.2.1]",
    ],
)
def test_what_can_only_be_guessed_is_a_problem(value: bytes) -> None:
    """No domain, or one that readers disagree about: there is no author, and it says why."""
    found = authors_of(value)
    assert not found.domains
    assert found.problem


@pytest.mark.parametrize(
    "content",
    [
        b"Subject: x\r\n\r\nFrom: ceo@bank.test\r\n",
        b"From: ceo@bank.test\r\nFrom: ceo@bank.test\r\n\r\n",
        b"From: ceo@bank.test\r\nFROM : x@evil.test\r\n\r\n",
        b"From: ceo@bank.test\nfrom:\n x@evil.test\n\n",
        b"Subject: x\r\n From: ceo@bank.test\r\n\r\n",
        b"",
        b"\r\nFrom: ceo@bank.test\r\n",
    ],
)
def test_there_is_one_from_field(content: bytes) -> None:
    """None, or several, even with the same address, are a problem (RFC 9989 §4.4)."""
    found = authors(content)
    assert not found.domains
    assert found.problem


@pytest.mark.parametrize(
    "other",
    [
        b" From: ceo@bank.test",
        b"\tFrom: ceo@bank.test",
        b"From\r\n : ceo@bank.test",
        b"From\r\n\t: ceo@bank.test",
        b"From\xc2\xa0: ceo@bank.test",
        b"\xef\xbb\xbfFROM: ceo@bank.test",
        b"Fr\0om: ceo@bank.test",
        b"From\x01 : ceo@bank.test",
        b"X: y\rFrom: ceo@bank.test",
        b"X: y\x0cfrom\0: ceo@bank.test",
    ],
)
def test_a_second_from_that_only_some_readers_see(other: bytes) -> None:
    """A From in what is no field, or in what some take for the end of a line, is another author."""
    assert authors(other + b"\r\nFrom: x@evil.test\r\n\r\n").problem == "several From fields"
    if not other.startswith((b" ", b"\t")):
        assert authors(b"From: x@evil.test\r\n" + other + b"\r\n\r\n").problem == "several From fields"


@pytest.mark.parametrize(
    "other",
    [
        b"DKIM-Signature: h=date:\r\n\tfrom:to; d=bank.test",
        b"Subject: Fwd:\r\n From: ceo@bank.test",
        b"From ceo@bank.test Thu Jan  1 00:00:00 1970",
        b">From: ceo@bank.test",
        b"X-From: ceo@bank.test",
        b"From-Line: ceo@bank.test",
        "Gr\u00fc\u00dfe from: all".encode(),
    ],
)
def test_what_nobody_takes_for_a_second_from(other: bytes) -> None:
    """Lines that only hold the word change nothing."""
    assert authors(other + b"\r\nFrom: ceo@bank.test\r\n\r\n") == Authors(CEO)


def test_a_second_field_is_found_behind_the_limits_of_other_readers() -> None:
    """A From field far down cannot hide behind a thousand others."""
    filler = b"X-A: b\r\n" * 40_000
    assert authors(b"From: a@bank.test\r\n" + filler + b"From: x@evil.test\r\n\r\n").problem == "several From fields"


@pytest.mark.parametrize(
    "content",
    [
        b"From: " + b"(" * MAX_FIELD_BYTES + b"\r\n\r\n",
        b"From: " + b"a@b.test," * 100_000 + b"\r\n\r\n",
        b"From: " + b"a," * (MAX_FIELD_BYTES // 2) + b"\r\n\r\n",
        b"From: a@b.test\r\n" + b"X: y\r\n" * (TRACE_LIMIT_BYTES // 6) + b"\r\n",
        b"From: " + b", ".join(b"a@b%d.test" % number for number in range(MAX_DOMAINS + 1)) + b"\r\n\r\n",
    ],
)
def test_reading_is_bounded(content: bytes) -> None:
    """What is too long or too much is a problem, not work."""
    found = authors(content)
    assert not found.domains
    assert "too" in (found.problem or "") or "end" in (found.problem or "")


@pytest.mark.parametrize(
    ("text", "domain"),
    [
        ("Example.TEST.", "example.test"),
        ("a_b.test", "a_b.test"),
        ("BÜCHER.test", "xn--bcher-kva.test"),
        ("localhost", "localhost"),
        ("", None),
        (".", None),
        ("a..b", None),
        ("-a.test", None),
        ("a b.test", None),
        ("a.test\n", None),
        ("\ud800.test", None),
        ("ü" * 10_000, None),
    ],
)
def test_a_label_domain(text: str, domain: str | None) -> None:
    """A domain has one spelling, and what is none has none."""
    assert a_label_domain(text) == domain


PIECES = st.sampled_from([*'@<>(),;:.\\"[] \t\x00', "a", "b.test", "=?utf-8?q?x?=", "ü", "\r\n "])


@given(st.one_of(st.binary(max_size=60), st.lists(PIECES, max_size=30).map(lambda parts: "".join(parts).encode())))
def test_any_octets_are_authors_or_a_problem(value: bytes) -> None:
    """Whatever the octets, there are domains in their one spelling, or there is a problem."""
    for found in (authors_of(value), authors(b"From: " + value + b"\r\n\r\nbody")):
        assert bool(found.domains) is (found.problem is None)
        assert all(a_label_domain(domain) == domain for domain in found.domains)
