"""``mtaq.smtp.grammar``: paths, mailboxes, domains."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtaq.model.address import Address
from mtaq.smtp.grammar import (
    NeedsSmtputf8,
    a_label_domain,
    parse_address_literal,
    parse_domain,
    parse_forward_path,
    parse_mailbox,
    parse_reverse_path,
    split_forward_path,
    split_reverse_path,
)

ATEXT = "abcXYZ019!#$%&'*+-/=?^_`{|}~"
atoms = st.text(ATEXT, min_size=1, max_size=10)
dot_strings = st.lists(atoms, min_size=1, max_size=4).map(".".join)
quoted_strings = st.lists(
    st.one_of(st.sampled_from(" !#$%&'()*+,-./:;=?@[]^_`{|}~azAZ09"), st.sampled_from(['\\"', "\\\\", "\\ ", "\\a"])),
    max_size=20,
).map(lambda parts: f'"{"".join(parts)}"')
labels = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True).filter(lambda s: "--" not in s)
domains = st.lists(labels, min_size=1, max_size=4).map(".".join)


@given(st.one_of(dot_strings, quoted_strings), domains)
def test_every_rfc_5321_mailbox_is_taken_in_both_modes(local_part: str, domain: str) -> None:
    """Strict takes the whole grammar, loose no less, and the text comes back as it was."""
    text = f"{local_part}@{domain}"
    for strict in (True, False):
        address = parse_mailbox(text, strict=strict, smtputf8=False)
        assert address == Address(local_part, domain)
        assert str(address) == text


@given(st.text(max_size=40), st.booleans(), st.booleans())
def test_any_text_is_an_address_or_a_value_error(text: str, strict: bool, smtputf8: bool) -> None:
    """Nothing but ``ValueError`` comes out, and what is taken is taken again, unchanged."""
    try:
        address = parse_mailbox(text, strict=strict, smtputf8=smtputf8)
    except ValueError:
        return
    assert parse_mailbox(str(address), strict=strict, smtputf8=True) == address
    assert not set(str(address)) & set("\r\n\0<>")


@given(st.binary(max_size=40), st.booleans())
def test_any_octets_are_a_path_or_a_value_error(octets: bytes, strict: bool) -> None:
    """Nothing but ``ValueError`` comes out of a path from the wire."""
    for parse in (parse_reverse_path, parse_forward_path):
        try:
            parse(octets, strict=strict, smtputf8=True)
        except ValueError:
            continue


@pytest.mark.parametrize(
    "text",
    [
        *("", "@", "a", "a@", "@b.test", "a@b..test", "a@.b", "a@b.", "a@-b", "a@b-", "a@b_c", "a b@c.test", "a@b c"),
        *("a.@b", ".a@b", "a..b@c", '"a@b', 'a"b"@c', '"a"b@c', '"a"."b"@c', "(c)a@b", "a@(c)b", "a,b@c", "a@b@c"),
        *('"a<b"@c', '"a>b"@c', '"a\r\nb"@c', '"a\x7fb"@c', '"\\é"@c', "a@" + "b" * 64, "a" * 65 + "@b.test"),
    ],
)
def test_strict_refuses(text: str) -> None:
    """What is no Mailbox of RFC 5321 or RFC 6531 is refused."""
    with pytest.raises(ValueError):  # noqa: PT011 - the reasons' wording is free
        parse_mailbox(text, strict=True, smtputf8=True)


@pytest.mark.parametrize("local_part", ["a..b", ".a", "a.", "a b", "a,b", "(c)a", 'a"b', "a\\", '"a@b"', "x" * 512])
def test_loose_takes_any_local_part(local_part: str) -> None:
    """Loose takes any local-part that can be told from its domain."""
    assert parse_mailbox(f"{local_part}@c.test", strict=False, smtputf8=False) == Address(local_part, "c.test")


@pytest.mark.parametrize(
    "text",
    ["a@b@c", "@c", "a@", "a@b..c", "a@b_c", "a<b@c", "a>b@c", "a\rb@c", "a\nb@c", "a\0b@c", "a\tb@c", "a\x85b@c"],
)
def test_loose_still_refuses(text: str) -> None:
    """Control characters, angle brackets, a second @ and a bad domain are refused in loose too."""
    with pytest.raises(ValueError):  # noqa: PT011 - the reasons' wording is free
        parse_mailbox(text, strict=False, smtputf8=True)


def test_loose_local_parts_are_bounded() -> None:
    """A local-part beyond 512 octets is refused in loose."""
    with pytest.raises(ValueError, match="512"):
        parse_mailbox("x" * 513 + "@c.test", strict=False, smtputf8=False)


def test_a_path_is_bounded() -> None:
    """A mailbox of 254 octets passes in strict, one of 255 does not (RFC 5321 §4.5.3.1.3)."""
    domain = ".".join(["d" * 63] * 2 + ["e" * 61])
    assert parse_mailbox(f"{'a' * 64}@{domain}", strict=True, smtputf8=False).domain == domain
    with pytest.raises(ValueError, match="254"):
        parse_mailbox(f"{'a' * 64}@{domain}d", strict=True, smtputf8=False)


def test_non_ascii_needs_smtputf8() -> None:
    """An address beyond ASCII is told apart from a malformed one."""
    for text in ("é@b.test", "a@é.test", '"é"@b.test'):
        for strict in (True, False):
            with pytest.raises(NeedsSmtputf8):
                parse_mailbox(text, strict=strict, smtputf8=False)
            assert parse_mailbox(text, strict=strict, smtputf8=True)


@pytest.mark.parametrize(
    ("given", "domain"),
    [
        ("EXAMPLE.Test", "example.test"),
        ("xn--bcher-kva.test", "bücher.test"),
        ("XN--BCHER-KVA.test", "bücher.test"),
        ("BÜCHER.test", "bücher.test"),
        ("ｅｘ．test", "ex.test"),
        ("xn--ls8h.test", "xn--ls8h.test"),
        ("faß.test", "faß.test"),
    ],
)
def test_domains_become_lower_case_u_labels(given: str, domain: str) -> None:
    """A domain is kept in lower case with U-labels, and as it was where IDNA 2008 knows none."""
    assert parse_domain(given) == domain
    assert parse_domain(a_label_domain(domain)) == domain


@given(st.text(max_size=30))
def test_a_parsed_domain_has_an_ascii_form(text: str) -> None:
    """Whatever is taken as a domain can be told to a peer without SMTPUTF8, and means the same then."""
    try:
        domain = parse_domain(text)
    except ValueError:
        return
    a_labels = a_label_domain(domain)
    assert a_labels.isascii()
    assert parse_domain(a_labels) == domain


def test_a_domain_without_ascii_form_is_refused() -> None:
    """``a_label_domain`` raises ``ValueError`` for what IDNA refuses."""
    with pytest.raises(ValueError, match="ASCII"):
        a_label_domain("bücher..test")


@pytest.mark.parametrize(
    ("given", "literal"),
    [
        ("[192.0.2.1]", "[192.0.2.1]"),
        ("[ipv6:2001:DB8:0:0:0:0:0:1]", "[IPv6:2001:db8::1]"),
        ("[IPv6:::]", "[IPv6:::]"),
        ("[IPv6:1:2:3:4:5::8]", "[IPv6:1:2:3:4:5::8]"),
    ],
)
def test_address_literals_are_spelt_one_way(given: str, literal: str) -> None:
    """Address literals come out in RFC 5952's spelling."""
    assert parse_address_literal(given) == literal


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "[1.2.3]",
        "[256.0.0.1]",
        "[::1]",
        "[IPv6:]",
        "[IPv6:1:2:3:4:5:6::8]",
        "[x:y]",
        "[IPv6:::1%lo]",
        "[01.2.3.4]",
    ],
)
def test_bad_address_literals_are_refused(text: str) -> None:
    """What is neither IPv4 nor IPv6 is refused."""
    with pytest.raises(ValueError, match="address literal"):
        parse_address_literal(text)


def test_paths() -> None:
    """Null reverse-path, postmaster and source routes are read as RFC 5321 has them."""
    assert parse_reverse_path(b"", strict=True, smtputf8=False) is None
    assert parse_forward_path(b"PostMaster", strict=True, smtputf8=False) == Address("PostMaster", "")
    for path in (b"@x.test:a@b.test", b"@x.test,@y.test:a@b.test"):
        assert parse_reverse_path(path, strict=True, smtputf8=False) == Address("a", "b.test")
    for path in (b"", b"someone", b"@x.test:", b"@x.test", b"\xff@b.test"):
        with pytest.raises(ValueError):  # noqa: PT011 - the reasons' wording is free
            parse_forward_path(path, strict=True, smtputf8=True)
    with pytest.raises(ValueError, match="@"):
        parse_reverse_path(b"postmaster", strict=True, smtputf8=False)


@pytest.mark.parametrize(
    ("argument", "parts"),
    [
        (b"FROM:<a@b>", (b"a@b", b"")),
        (b"from:   <>", (b"", b"")),
        (b"FROM:<a@b> SIZE=1 BODY=7BIT", (b"a@b", b"SIZE=1 BODY=7BIT")),
    ],
)
def test_a_path_is_split_from_its_parameters(argument: bytes, parts: tuple[bytes, bytes]) -> None:
    """Path and parameters come apart, in both modes alike."""
    assert split_reverse_path(argument, strict=True) == parts == split_reverse_path(argument, strict=False)


def test_brackets_may_be_left_out_in_loose_only() -> None:
    """A path without angle brackets ends at the first blank outside quotes, in loose; strict refuses it."""
    assert split_forward_path(b'TO: "a b"@c X=1', strict=False) == (b'"a b"@c', b"X=1")
    for argument in (b"TO:a@b", b'TO:"a b"@c'):
        with pytest.raises(ValueError, match="bracket"):
            split_forward_path(argument, strict=True)
    for argument in (b"TO:", b"TO:<a@b", b"TO:a@b>", b"TO:<a@b>c", b'TO:"a b', b"a@b"):
        with pytest.raises(ValueError, match="colon"):
            split_forward_path(argument, strict=False)


@pytest.mark.parametrize("strict", [True, False])
def test_a_local_part_alone_is_a_path_where_that_is_wanted(strict: bool) -> None:
    """Nothing else is forgiven; the null reverse-path and whole addresses stay what they are."""
    known = {"strict": strict, "smtputf8": False}
    assert parse_reverse_path(b"ada", **known, bare=True) == Address("ada", "")
    assert parse_forward_path(b"ada.l", **known, bare=True) == Address("ada.l", "")
    assert parse_reverse_path(b"", **known, bare=True) is None
    assert parse_forward_path(b"ada@b.test", **known, bare=True) == Address("ada", "b.test")
    for path in (b"a<b", b"x" * 600, b"ada@", b"@", b"a\x00", b"\xc3\xa4"):
        with pytest.raises(ValueError):  # noqa: PT011 - any will do
            parse_forward_path(path, **known, bare=True)
    for parse in (parse_reverse_path, parse_forward_path):
        with pytest.raises(ValueError, match="local-part@domain"):
            parse(b"ada", **known)
