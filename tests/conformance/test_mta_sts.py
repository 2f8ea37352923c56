"""TXT records, policies and patterns of MTA-STS (RFC 8461)."""

from __future__ import annotations

from typing import Any

import pytest

from mtaq.deliver.mta_sts import StsPolicy, parse_policy, policy_id
from mtaq.model.dns import DnsAnswer, Found
from tests.conformance.vectors import cases

SUITE = "mta-sts/mta-sts"


def of_kind(kind: str) -> list[Any]:
    return [pytest.param(case, id=case["id"]) for case in cases(SUITE) if case["kind"] == kind]


@pytest.mark.parametrize("case", of_kind("policies"))
def test_policy(case: dict[str, Any]) -> None:
    """A policy is read, or is none."""
    expected = case["expect"]
    if not expected["valid"]:
        with pytest.raises(ValueError, match=r"version|mode|max_age"):
            parse_policy(case["text"].encode())
        return
    policy = parse_policy(case["text"].encode())
    read = {"valid": True, "mode": policy.mode, "mx": list(policy.mx), "max_age": policy.max_age_s}
    assert {name: read[name] for name in expected} == expected


@pytest.mark.parametrize("case", of_kind("txt"))
def test_txt(case: dict[str, Any]) -> None:
    """A domain has a policy when exactly one of its records says so."""
    answer = DnsAnswer(Found.RECORDS, tuple((record.encode(),) for record in case["records"]))
    assert (policy_id(answer) is not None) is case["sts_supported"]


@pytest.mark.parametrize("case", of_kind("mx_match"))
def test_mx_match(case: dict[str, Any]) -> None:
    """A policy names a host, or does not."""
    policy = parse_policy(f"version: STSv1\nmode: enforce\nmx: {case['pattern']}\nmax_age: 1\n".encode())
    assert isinstance(policy, StsPolicy)
    assert policy.names(case["mx"]) is case["match"]
