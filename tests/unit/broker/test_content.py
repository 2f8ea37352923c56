"""Ids, headers and gzip of what is published."""

from __future__ import annotations

import gzip
import itertools
import uuid

import pytest

from mtaq.broker.rabbitmq.content import deflate, fresh_ids, headers_of, inflate


def test_fresh_ids() -> None:
    """Ids are UUIDs, and no two are alike, from one source or from two."""
    ids = [*itertools.islice(fresh_ids(), 1000), *itertools.islice(fresh_ids(), 1000)]
    assert len(set(ids)) == 2000
    assert {uuid.UUID(each).version for each in ids} == {4}


def test_headers_of() -> None:
    """Only the publisher's own headers of the plain types come back."""
    table = {
        "traceparent": "t",
        "attempt": 3,
        "kept": True,
        "x-mtaq-reason": "no recipient",
        "x-death": [{"queue": "q"}],
        "x-first-death-queue": "q",
        "x-last-death-reason": "expired",
        "x-delivery-count": 1,
        "bytes": b"x",
        "nothing": None,
        "table": {},
    }
    expected = {"traceparent": "t", "attempt": 3, "kept": True, "x-mtaq-reason": "no recipient"}
    assert headers_of(table) == expected


@pytest.mark.parametrize("body", [b"", b"{}", b"\xff" * 100_000])
def test_gzip(body: bytes) -> None:
    """What was deflated inflates to the same; the same body always deflates to the same."""
    assert inflate(deflate(body), limit_bytes=len(body)) == body
    assert deflate(body) == deflate(body)


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", gzip.compress(b"abc")[:-1], gzip.compress(b"a" * 1001), b"\x1f\x8b" + b"\0" * 30],
    ids=["empty", "plain", "cut", "beyond the limit", "broken"],
)
def test_not_to_be_inflated(body: bytes) -> None:
    """What is no gzip, not whole, or larger than allowed stays as it is."""
    assert inflate(body, limit_bytes=1000) == body
