"""Records and policies of MTA-STS."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtaq.deliver.mta_sts import MAX_AGE_S, MAX_PATTERNS, StsPolicy, from_json, parse_policy, policy_id, to_json
from mtaq.model.dns import DnsAnswer, Found

GOOD = b"version: STSv1\nmode: enforce\nmx: a.test\nmx: *.b.test\nmax_age: 86400\n"


def txt(*records: bytes | tuple[bytes, ...]) -> DnsAnswer:
    """An answer with these records."""
    return DnsAnswer(Found.RECORDS, tuple(each if isinstance(each, tuple) else (each,) for each in records))


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (b"v=STSv1; id=20160831085700Z;", "20160831085700Z"),
        (b"v=STSv1;id=1", "1"),
        (b"v=STSv1 ; x-more=a.b ;\tid=1 ; ", "1"),
        (b"v=STSv1; id=1; id=2", "1"),
        (b"v=STSv1; id=", None),
        (b"v=STSv1; id=a-b", None),
        (b"v=STSv1; id=" + b"1" * 33, None),
        (b"v=STSv1; id=1;;", None),
        (b"v=STSv1; nonsense; id=1", None),
        (b"v=STSv1;", None),
        (b"v=STSv10; id=1", None),
        (b" v=STSv1; id=1", None),
        (b"V=stsv1; id=1", None),
        (b"v=STSv1; id=\xff", None),
    ],
)
def test_the_record_has_its_form(record, expected):
    """RFC 8461 §3.1."""
    assert policy_id(txt(record)) == expected
    assert policy_id(txt(b"something else", record)) == expected


def test_the_strings_of_a_record_are_one_text():
    """Wherever it was cut."""
    record = b"v=STSv1; id=12"
    assert all(policy_id(txt((record[:at], record[at:]))) == "12" for at in range(len(record)))


@pytest.mark.parametrize("found", [Found.NO_DATA, Found.NO_NAME, Found.FAILED])
def test_no_answer_is_no_record(found):
    """Silence too."""
    assert policy_id(DnsAnswer(found)) is None


def test_a_policy_is_read():
    """Patterns in lower case, as often as they stand once."""
    policy = parse_policy(GOOD.replace(b"a.test", b"A.test").replace(b"mode:", b"mx: a.test\nmode:"))
    assert policy == StsPolicy("enforce", ("a.test", "*.b.test"), 86_400)
    assert policy.lines == ("version: STSv1", "mode: enforce", "mx: a.test", "mx: *.b.test", "max_age: 86400")


def test_of_a_field_that_is_there_twice_the_first_counts():
    """But for mx, of which all do."""
    assert parse_policy(GOOD + b"mode: none\nmax_age: 1\nversion: 2") == parse_policy(GOOD)


@pytest.mark.parametrize(
    "text",
    [
        b"", b"\n", GOOD + b"\n\n", GOOD + b"nonsense\n", GOOD.replace(b"STSv1", b"STSv2"),
        GOOD.replace(b"86400", b"-1"), GOOD.replace(b"86400", b"1e3"), GOOD.replace(b"86400", b"12345678901"),
        GOOD.replace(b"a.test", b""), GOOD.replace(b"a.test", b"a..test"), GOOD.replace(b"a.test", b"a.*.test"),
        GOOD.replace(b"a.test", b"*"), GOOD.replace(b"a.test", b"a.test, b.test"), GOOD.replace(b"mode", b"\xff"),
        GOOD.replace(b"86400", "٣".encode()), GOOD.replace(b"mx: a.test\n", b"mx: a.test\n" * (MAX_PATTERNS + 1)),
        GOOD + b"x: " + b"y" * 65_536, b"version: STSv1\nmode: testing\nmax_age: 1\n",
    ],
)  # fmt: skip
def test_half_a_policy_is_none(text):
    """Lines that are no field, values of another form, more than anybody needs."""
    with pytest.raises(ValueError, match=r".+"):
        parse_policy(text)


def test_no_policy_holds_longer_than_a_year():
    """RFC 8461 §3.2."""
    assert parse_policy(GOOD.replace(b"86400", b"9999999999")).max_age_s == MAX_AGE_S


def test_what_was_kept_is_the_same():
    """And something else is none."""
    policy = parse_policy(GOOD)
    assert from_json(to_json(policy)) == policy
    for other in (
        None,
        [],
        {},
        {"mode": "enforce"},
        {"mode": "enforce", "mx": 1, "max-age": 1},
        {**to_json(policy), "mx": []},
    ):
        with pytest.raises(ValueError, match=r".+"):
            from_json(other)


@given(st.binary(max_size=300))
def test_nonsense_is_no_policy_and_no_record(data):
    """Any octets give a policy or ``ValueError``, an id or nothing."""
    assert policy_id(txt(b"v=STSv1;" + data)) is None or b"id=" in data
    try:
        parse_policy(data)
    except ValueError:
        return
    raise AssertionError("no policy has so little")
