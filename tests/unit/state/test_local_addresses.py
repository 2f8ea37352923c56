from __future__ import annotations

from datetime import UTC, datetime

import pytest

from mtaq.model.address import Address
from mtaq.state.entries import Kind, LocalAddress, parse_pattern
from mtaq.state.local_addresses import LocalAddresses
from mtaq.state.patterns import compiled

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def local_addresses(*patterns: str, kind: Kind | None = None) -> LocalAddresses:
    read = [parse_pattern(pattern, kind) for pattern in patterns]
    return LocalAddresses(LocalAddress(pattern=text, kind=found, created_at=NOW) for text, found in read)


def address(text: str) -> Address:
    return Address(*text.rsplit("@", 1)) if "@" in text else Address(text, "")


def is_local(text: str, *patterns: str, kind: Kind | None = None) -> bool:
    return local_addresses(*patterns, kind=kind).find(address(text)) is not None


@pytest.mark.parametrize(
    ("text", "pattern", "expected"),
    [
        ("ann@example.com", "ann@example.com", True),
        ("bob@example.com", "ann@example.com", False),
        ("ann@sub.example.com", "ann@example.com", False),
        ("Ann@example.com", "ann@example.com", True),
        ("ann@example.com", "ANN@EXAMPLE.COM", True),
        ('"ann"@example.com', "ann@example.com", True),
        (r'"a\nn"@example.com', "ann@example.com", True),
        ("ann@bücher.example", "ann@xn--bcher-kva.example", True),
        ("ÄNN@example.com", "änn@example.com", True),
        ("ann@[192.0.2.1]", "ann@[192.0.2.1]", True),
        ("postmaster", "Postmaster", True),
        ("postmaster@example.com", "postmaster", False),
        ("ann@example.com", "*@example.com", True),
        ("ann@sub.example.com", "*@example.com", False),
        ("ann@exampleXcom", "*@example.com", False),
        ("ann@bücher.example", "*@XN--BCHER-KVA.example", True),
        ("list-owner@example.com", "list-*@example.com", True),
        ("owner@example.com", "list-*@example.com", False),
        ("a1@example.com", "a?@example.com", True),
        ("a12@example.com", "a?@example.com", False),
        ("ä1@example.com", "?1@example.com", True),
        ("ann@a.example.com", "*@*.example.com", True),
        ("ann@a.b.example.com", "*@*.example.com", True),
        ("ann@example.com", "*@*.example.com", False),
        ("a.b@example.com", "a.b*@example.com", True),
        ("axb@example.com", "a.b*@example.com", False),
        ("(x)@example.com", "(*)@example.com", True),
    ],
)
def test_patterns(text, pattern, expected):
    """Exact addresses and wildcards match whole addresses, whatever the case and the quotes."""
    assert is_local(text, pattern) is expected


@pytest.mark.parametrize(
    ("text", "pattern", "expected"),
    [
        ("ann@example.com", r"[a-c]+nn?@example\.com", True),
        ("Ann@example.com", r"ann@example\.com", True),
        ("ann@example.com", r"ANN@EXAMPLE\.COM", True),
        ("ann@example.com", "ann", False),
        ("ann@example.com.evil.example", r"ann@example\.com", False),
        ("ann@example.com", r"^ann@example\.com$", True),
        ("ann@example.com", r"bob@.*|ann@.*", True),
        ("joann@example.com", r"bob@.*|ann@.*", False),
        ("ann@evil.example", r".*@example\.com", False),
    ],
)
def test_regular_expressions(text, pattern, expected):
    """A regular expression matches the whole address or not at all."""
    assert is_local(text, pattern, kind="regex") is expected


def test_nothing_is_local_at_first():
    """Without entries no address is ours."""
    assert LocalAddresses().find(Address("postmaster", "")) is None


def test_null_domain_and_wildcards():
    """The bare postmaster is local only when it was named."""
    assert not is_local("postmaster", "*@*", "*@example.com")


@pytest.mark.parametrize("kind", ["wildcard", "regex"])
def test_the_entry_is_told(kind):
    """The answer names the entry that matched, also when it is remembered."""
    patterns = ["x-*@a.test", "*@*.b.test"] if kind == "wildcard" else [r"x-.*@a\.test", r".*@.*\.b\.test"]
    found = local_addresses(*patterns, kind=kind)
    for _ in range(2):
        for text, pattern in (("x-1@a.test", patterns[0]), ("y@z.b.test", patterns[1])):
            entry = found.find(address(text))
            assert entry is not None
            assert entry.pattern == pattern
        assert found.find(address("x@c.test")) is None


def test_an_entry_that_does_not_compile_matches_nothing():
    """What another version let in does not keep the others from working."""
    broken = LocalAddress(pattern="(", kind="regex", created_at=NOW)
    fine = LocalAddress(pattern="ann@example.com", kind="exact", created_at=NOW)
    found = LocalAddresses([broken, fine])
    assert found.find(Address("ann", "example.com")) is fine
    assert found.find(Address("(", "example.com")) is None


CATASTROPHES = [
    ("(a+)+b", "regex"),
    ("(a|aa)+b", "regex"),
    ("(.*)(.*)(.*)(.*)(.*)(.*)(.*)(.*)b", "regex"),
    ("(?:(?:a*)*)*b", "regex"),
    ("*a*a*a*a*a*a*a*a*a*a*b@*.test", "wildcard"),
]


@pytest.mark.parametrize(("pattern", "kind"), CATASTROPHES)
def test_catastrophic_patterns(pattern, kind):
    """A pattern that stops a backtracking engine for longer than any test may take is answered like any other."""
    found = LocalAddresses([LocalAddress(pattern=pattern, kind=kind, created_at=NOW)])
    for number in range(20):
        assert found.find(Address("a" * 500 + str(number), "x.test")) is None


@pytest.mark.parametrize(
    "pattern", ["(", "a{1000}{1000}", r"(a)\1", "(?=a)", "[z-a]", "*", "((((a{99}){99}){99}){99})"]
)
def test_patterns_that_do_not_compile(pattern):
    """A mistake, a pattern without an end and one that is too large are refused in words."""
    with pytest.raises(ValueError, match="regular expression"):
        compiled(pattern, "regex")


def test_remembered_answers_are_bounded():
    """However many addresses are asked for, memory does not grow without end."""
    found = local_addresses("x*@a.test")
    for number in range(10_000):
        found.find(Address(f"y{number}", "a.test"))
    assert len(found._answers) <= 4096
