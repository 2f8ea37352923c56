"""Chains and TLSA records of DANE for SMTP (RFC 7672)."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from typing import Any

import pytest

from mtaq.deliver.dane import Tlsa, objection, usable
from tests.conformance.vectors import about, home, params

SUITE = "dane/dane"
NOW = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.mark.parametrize("case", params(SUITE))
def test_case(case: dict[str, Any]) -> None:
    """A host is the one that the records are about, or is not; without records nothing is asked."""
    pem = (home(SUITE) / case["server"]["chain"]).read_text("ascii")
    ends = pem.split("-----BEGIN")[1:]
    chain = [ssl.PEM_cert_to_DER_cert("-----BEGIN" + each) for each in ends]
    records = [Tlsa(*row[:3], bytes.fromhex(row[3])) for row in case["tlsa"]]
    agrees = not records or objection(chain, usable(records), [about(SUITE)["mx"]], now=NOW) is None
    assert agrees is (case["expect"] == "deliver")
