"""Patterns, one and many at once."""

from __future__ import annotations

import pytest

from mtaq.state.patterns import AddressPatterns, PatternSet, compiled, covering

PATTERNS = [
    ("ann@example.com", "exact"),
    ("example.com", "exact"),
    ("*@example.com", "wildcard"),
    ("a?n@example.com", "wildcard"),
    ("*.example.com", "wildcard"),
    ("*@*.example.com", "wildcard"),
    ("info*@*.example.com", "wildcard"),
    ("*@ex*.com", "wildcard"),
    (r"[a-z]+@example\.(com|net)", "regex"),
]


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("ann@example.com", [0, 1, 2, 3, 7, 8]),
        ("bob@example.com", [1, 2, 7, 8]),
        ("ann@sub.example.com", [4, 5]),
        ("info1@a.b.example.com", [4, 5, 6]),
        ("ann@example.net", [8]),
        ("bob@extra.com", [7]),
        ("ann@example.com.evil.example", []),
        ("postmaster", []),
        ("", []),
    ],
)
def test_addresses(address, expected):
    """All patterns that hold an address are found, whichever way they are looked for."""
    assert AddressPatterns(PATTERNS).matching(address) == expected


def test_letters_do_not_matter():
    """A pattern matches in either case; the domain comes in lower case."""
    assert AddressPatterns([("ann+*@example.com", "wildcard")]).matching("ANN+x@example.com") == [0]


def test_no_patterns():
    """Nothing matches nothing."""
    assert AddressPatterns([]).matching("ann@example.com") == []
    assert PatternSet([], whole=True).matching(b"") == []


@pytest.mark.parametrize("whole", [True, False])
def test_one_pass_agrees_with_each(whole):
    """Many patterns at once say what each says by itself."""
    patterns = [(rf"{'a' * (number % 7 + 1)}[0-9]*{number % 11}", "regex") for number in range(200)]
    patterns.append(("", "regex"))
    together = PatternSet(patterns, whole=whole)
    for text in (b"", b"a1", b"xaaa55 a7", b"aaaaaaa10", b"no"):
        alone = [
            index
            for index, (pattern, kind) in enumerate(patterns)
            if (compiled(pattern, kind).fullmatch(text) if whole else compiled(pattern, kind).search(text))
        ]
        assert together.matching(text) == alone


def test_too_many_for_one_automaton():
    """Patterns that do not fit together are tried in parts, and none is lost."""
    patterns = [(rf"x{number}(?:[a-z0-9]{{1,60}}-?){{1,12}}y", "regex") for number in range(400)]
    together = PatternSet(patterns, whole=False)
    assert len(together._sets) > 1
    assert together.matching(b"-x399abc-defy x7ay") == [3, 7, 39, 399]


class OutOfMemory:
    """An automaton that could not work: RE2 then says that nothing matches."""

    def Match(self, octets: bytes) -> None:
        return None


def test_an_automaton_that_gives_up():
    """No answer is not taken for a no; each pattern is tried by itself then."""
    together = PatternSet([("a+", "regex"), ("b", "regex")], whole=False)
    together._sets = [(OutOfMemory(), [0, 1])]
    assert together.matching(b"xaax") == [0]


def test_what_is_not_a_pattern():
    """What was stored by hand and does not compile matches nothing and spoils nothing."""
    assert PatternSet([("(", "regex"), ("a", "regex")], whole=False).matching(b"(a") == [1]
    with pytest.raises(ValueError, match="regular expression"):
        compiled("(", "regex")


def test_domains_that_cover():
    """From the domain itself to the widest wildcard."""
    assert covering("a.example.com") == ("a.example.com", "*.example.com", "*.com")
    assert covering("") == ("",)
