"""What DMARC Policy Records ask for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtaq.mailauth.dmarc_record import POLICIES, DmarcRecord, parse_record, parse_records


def policies(text: str) -> tuple[str | None, ...]:
    record = parse_record(text)
    return record.policy, record.subdomains, record.missing_subdomains


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("v=DMARC1; p=reject", ("reject", "reject", "reject")),
        ("v=DMARC1;p=none;sp=quarantine", ("none", "quarantine", "quarantine")),
        ("v=DMARC1; p=none; np=reject", ("none", "none", "reject")),
        ("v=DMARC1; P=Reject; SP=NONE; np=quarantine", ("reject", "none", "quarantine")),
        ("v=DMARC1; sp=reject; rua=mailto:a@b.test; p = quarantine ", ("quarantine", "reject", "reject")),
        ("v=DMARC1; p=reject; p=none", ("reject", "reject", "reject")),
        ("v=DMARC1; p=reject; pct=0; x; =; ;;", ("reject", "reject", "reject")),
    ],
)
def test_policies(text: str, expected: tuple[str, ...]) -> None:
    """sp falls back to p and np to sp; letter case, blanks, order and unknown tags do not matter (RFC 9989 §4.7)."""
    assert policies(text) == expected


@pytest.mark.parametrize("tags", ["", "p=block", "p=", "p=reject; sp=bounce", "p=reject; np=", "adkim=s"])
def test_without_valid_policy_it_depends_on_who_is_told(tags: str) -> None:
    """A record without valid policy is p=none for one that wants reports, and nothing else (RFC 9989 §4.10.1)."""
    for uri in ("mailto:a@b.test", "mailto:a@b.test!10m", "nonsense, https://b.test/x"):
        assert policies(f"v=DMARC1; {tags}; rua={uri}") == ("none", "none", "none")
    for uri in ("", "a@b.test", "mailto:", "mailto:a b@c"):
        assert policies(f"v=DMARC1; {tags}; rua={uri}") == (None, None, None)


def test_other_tags() -> None:
    """Values that are not right are as if they were not there (RFC 9989 §4.8)."""
    right = parse_record("v=DMARC1; p=none; psd=Y; t=Y; adkim=S; aspf=s")
    assert right == DmarcRecord("none", "none", "none", "y", test=True, strict_dkim=True, strict_spf=True)
    wrong = parse_record("v=DMARC1; p=none; psd=yes; t=yes; adkim=strict; aspf=")
    assert wrong == DmarcRecord("none", "none", "none", "u")
    assert parse_record("v=DMARC1; p=none; psd=n").psd == "n"


@pytest.mark.parametrize("text", ["v=DMARC1", "V = DMARC1 ; p=reject", "v=DMARC1;", "v\t=\tDMARC1\t;x"])
def test_a_version(text: str) -> None:
    """The version's name may be in either case and have blanks around it."""
    assert parse_records([[text.encode()]]) is not None


@pytest.mark.parametrize("text", ["", "v=dmarc1; p=none", "v=DMARC1x; p=none", "p=none; v=DMARC1", "v=DMARC2", "x"])
def test_no_version(text: str) -> None:
    """Its value may not be in lower case, and stands first (RFC 9989 §4.7)."""
    assert parse_records([[text.encode()]]) is None


def test_one_record_counts() -> None:
    """Strings are joined, other TXT records passed over, and of several records none counts (RFC 9989 §4.10)."""
    record = [b"v=DMARC1; p=re", b"ject"]
    found = parse_records([[b"other"], record, [b"v=spf1 -all"]])
    assert found is not None
    assert found.policy == "reject"
    assert parse_records([record, [b"v=DMARC1; p=none"]]) is None
    assert parse_records([]) is None


@given(st.lists(st.binary(max_size=80)), st.booleans())
def test_any_octets_are_a_record_or_none(strings: list[bytes], versioned: bool) -> None:
    """No octets make the parser fail, and policies are the three that exist."""
    found = parse_records([[b"v=DMARC1;", *strings]] if versioned else [strings])
    assert found is None or {found.policy, found.subdomains, found.missing_subdomains} <= {*POLICIES, None}
