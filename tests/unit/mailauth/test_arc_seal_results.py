"""What an ARC set tells of our checks."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtaq.mailauth.arc_seal_results import results_in, results_of_checks
from mtaq.mailauth.authres import parse
from mtaq.mailauth.dkim import DkimResult, SignatureResult
from mtaq.mailauth.dkim_message import SignedMessage
from mtaq.mailauth.dkim_signature import Named
from mtaq.mailauth.iprev import IprevResult
from mtaq.mailauth.verdict import Verdict

NOW = datetime(2025, 12, 1, tzinfo=UTC)


def told(checks: list[Any], **changes: Any) -> list[Verdict]:
    read = parse(results_of_checks("mx.example.com", checks, **changes))
    assert read.authserv_id == "mx.example.com"
    return list(read.verdicts)


def test_checks_say_what_their_field_says() -> None:
    """An item of ``checks[]`` comes to what the check itself would have written."""
    named = Named("example.com", "s1", "@example.com", "b" * 40, "rsa-sha256")
    results = DkimResult((SignatureResult("pass", named, "bbbbbbbb"), SignatureResult("fail", named, "cc", "why not")))
    iprev = IprevResult("pass", "192.0.2.1", "mx.example.net")
    assert told([*results.to_json()]) == [*results.verdicts()]
    assert told([*iprev.to_json()])[0].properties == iprev.verdicts()[0].properties


def test_every_check() -> None:
    """Words and properties of RFC 8601, in the order of the checks; what is no check is left out."""
    checks = [
        {"spf": "pass", "smtp.mailfrom": "a@example.net", "smtp.helo": "h.example", "explanation": "x"},
        {"dmarc": "fail", "header.from": "example.org", "policy": "reject", "disposition": "reject", "aligned": {}},
        {"arc": "pass", "instances": 2, "oldest-pass": 1, "sealers": ["a.example"]},
        {"spam": "ham", "score": 1.5, "threshold": 5, "engine": "rspamd"},
        {"other": "pass"}, {"spf": 5}, {"spf": "no word; x=y"}, "x", None,
    ]  # fmt: skip
    assert told(checks) == [
        Verdict("spf", "pass", None, (("smtp.mailfrom", "a@example.net"), ("smtp.helo", "h.example"))),
        Verdict("dmarc", "fail", None, (("header.from", "example.org"), ("policy.dmarc", "reject"))),
        Verdict("arc", "pass", None, (("header.oldest-pass", "0"),)),
        Verdict("x-spam", "ham", None, (("policy.score", "1.5"), ("policy.threshold", "5"))),
    ]


def test_the_chain_that_was_verified_here() -> None:
    """What was found at sealing stands for what was not found before."""
    assert told([{"spf": "pass"}], arc="fail") == [Verdict("arc", "fail"), Verdict("spf", "pass")]
    assert told([{"arc": "none"}], arc="fail") == [Verdict("arc", "fail")]
    assert results_of_checks("mx.example.com", []) == b"mx.example.com;\r\n none"


@given(st.dictionaries(st.sampled_from(["spf", "smtp.helo", "dkim", "domain", "header.i"]), st.text()))
def test_nothing_gets_out_of_its_place(item: dict[str, str]) -> None:
    """Whatever stands in a check, the field can be read and has one line end for each fold."""
    results = results_of_checks("mx.example.com", [item | {"spf": "pass"}])
    assert len(parse(results).verdicts) == 1
    assert b"\n" not in results.replace(b"\r\n ", b"")


def fields(*values: str) -> SignedMessage:
    section = "".join(f"Authentication-Results: {value}\r\n" for value in values)
    return SignedMessage(f"{section}From: a@b.test\r\n\r\n".encode())


def test_fields_of_ours_are_taken_together() -> None:
    """With their comments; those of others, and what cannot be read, are left out (RFC 8617 §4.1.1)."""
    message = fields(
        "(we) MX.example.com 1 (say); spf=pass (a; \"b\") smtp.mfrom=x@y.test \r\n\t",
        "mx.example.net; spf=fail", "garbage here", "mx.example.com; none",
        'mx.example.com; dkim=fail reason="a; b" header.d=y.test',
    )  # fmt: skip
    assert results_in(message, "mx.example.com").replace(b"\r\n\t", b" ") == (
        b'mx.example.com; spf=pass (a; "b") smtp.mfrom=x@y.test; dkim=fail reason="a; b" header.d=y.test'
    )


@pytest.mark.parametrize(
    ("values", "arc", "expected"),
    [
        ([], None, b"mx.example.com; none"),
        ([], "none", b"mx.example.com; arc=none"),
        (["mx.example.com; spf=pass"], "fail", b"mx.example.com; arc=fail; spf=pass"),
        (["mx.example.com; arc=pass"], "fail", b"mx.example.com; arc=pass"),
    ],
)
def test_the_chain_in_fields(values: list[str], arc: str | None, expected: bytes) -> None:
    """It is told where they do not say."""
    assert results_in(fields(*values), "mx.example.com", arc=arc) == expected
