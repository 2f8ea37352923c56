"""Authentication-Results fields of authres's and go-msgauth's tests, and forged ones."""

from __future__ import annotations

from typing import Any

import pytest

from mtaq.mailauth.authres import AuthresSyntaxError, compose, parse
from mtaq.mailauth.authres_forged import without_forged
from tests.conformance.vectors import departs, params

OURS = "mx.relay.test"
READABLE = [param for param in params("authres/authres") if "error" not in param.values[0]["parsed"]]


def parsed(field: str) -> dict[str, Any]:
    """Return a field as the vectors have it."""
    try:
        read = parse(field.partition(":")[2].encode())
    except AuthresSyntaxError:
        return {"error": "SyntaxError"}
    return {
        "authserv_id": read.authserv_id,
        "version": read.version,
        "results": [
            {
                "method": verdict.method,
                "result": verdict.result,
                "reason": verdict.reason,
                "properties": [[*name.split(".", 1), value] for name, value in verdict.properties],
            }
            for verdict in read.verdicts
        ],
    }


@pytest.mark.parametrize("case", params("authres/authres"))
def test_parse(case: dict[str, Any]) -> None:
    """Every field comes out as the vector has it."""
    assert (parsed(case["header"]) == case["parsed"]) is not departs("authres/authres", case["id"])


@pytest.mark.parametrize("case", READABLE)
def test_what_was_read_is_written(case: dict[str, Any]) -> None:
    """What is read of a field and written anew is read the same."""
    read = parse(case["header"].partition(":")[2].encode())
    again = parse(compose(read.authserv_id, read.verdicts).partition(b":")[2])
    assert (again.authserv_id, again.verdicts) == (read.authserv_id, read.verdicts)


@pytest.mark.parametrize("case", params("authres/forged"))
def test_forged(case: dict[str, Any]) -> None:
    """Fields that claim to be ours go, others stay octet for octet."""
    before, field, after = b"Subject: a\r\n", case["header"].encode() + b"\r\n", b"To: b\r\n\r\nbody\r\n"
    kept = field if case["expect"] == "keep" else b""
    is_met = without_forged(before + field + after, OURS) == before + kept + after
    assert is_met is not departs("authres/forged", case["id"])
