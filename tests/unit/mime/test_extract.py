"""The `extracted` property."""

from __future__ import annotations

import json
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtaq.mime import extract
from mtaq.mime.extract import addresses_in, extracted, extracted_shared

MESSAGE = """Received: one
Received: two
From: "Doe, Jane" <jane@example.test> (work)
To: Team: a@x.test, "B" <b@x.test>;, =?utf-8?Q?J=C3=B6rg?= <j@x.test>
To: again@x.test
Cc: c@x.test
Subject: =?utf-8?B?R3LDvMOfZQ==?=
 all
Date: Sat, 21 Nov 2026 09:00:00 +0000
Message-ID: <1@example.test>
X-8: grün

Subject: not this
""".replace("\n", "\r\n").encode()


def test_extracted() -> None:
    """The properties of the contract, from a message that has them all."""
    result = extracted(MESSAGE, "bounce@example.test", "j@x.test")
    assert result["from"] == "jane@example.test"
    assert result["to"] == ["a@x.test", "b@x.test", "j@x.test", "again@x.test"]
    assert result["cc"] == ["c@x.test"]
    assert result["subject"] == "Grüße all"
    assert result["date"] == "Sat, 21 Nov 2026 09:00:00 +0000"
    assert result["message-id"] == "<1@example.test>"
    assert result["headers"]["received"] == ["one", "two"]
    assert result["headers"]["x-8"] == "grün"
    assert result["headers"]["subject"] == "=?utf-8?B?R3LDvMOfZQ==?= all"
    assert result["envelope"] == {"local": "bounce", "domain": "example.test"}
    assert result["recipient"] == {"local": "j", "domain": "x.test"}


def test_shared_part() -> None:
    """What all recipients share is everything but the recipient."""
    shared = extracted_shared(MESSAGE, "bounce@example.test")
    whole = extracted(MESSAGE, "bounce@example.test", "j@x.test")
    assert "recipient" not in shared
    assert whole == shared | {"recipient": {"local": "j", "domain": "x.test"}}


def test_nothing_to_extract() -> None:
    """A message without fields has empty lists and no more; the null reverse-path has empty parts."""
    assert extracted(b"\r\nbody", "", "postmaster") == {
        "to": [],
        "cc": [],
        "headers": {},
        "envelope": {"local": "", "domain": ""},
        "recipient": {"local": "postmaster", "domain": ""},
    }


@pytest.mark.parametrize(
    ("value", "addresses"),
    [
        ("a@b.test", ["a@b.test"]),
        ("a@b.test (comment (nested) , x@y), c@d.test", ["a@b.test", "c@d.test"]),
        ('"a, b" <a@b.test>; c@d.test', ["a@b.test", "c@d.test"]),
        ('"quoted local"@b.test', ['"quoted local"@b.test']),
        ("undisclosed-recipients:;", []),
        ("Name <a@[IPv6:::1]>, b@[127.0.0.1]", ["a@[IPv6:::1]", "b@[127.0.0.1]"]),
        ("b@[IPv6:::1]", ["b@[IPv6:::1]"]),
        ("jörg@bücher.test", ["jörg@bücher.test"]),
        ('"unclosed <a@b.test>', ['"unclosed <a@b.test>']),
        ("(unclosed <a@b.test>", []),
        ("<<a@b.test>", ["a@b.test"]),
        ("no address", []),
        ("", []),
    ],
)
def test_addresses_in(value: str, addresses: list[str]) -> None:
    """Addresses without display names, comments and groups."""
    assert addresses_in(value) == addresses


@given(st.text(alphabet='ab.@<>"\\\\(),;: \t[]ü', max_size=20))
def test_one_address_is_found_as_one_of_many(value: str) -> None:
    """The short way for fields with one address finds what the long way finds."""
    assert addresses_in(value) == extract._many_addresses_in(value)


@pytest.mark.parametrize("value", ["a@b.test", "<a@b.test>", "Ann B. <a@b.test>", '"B, Ann" <a@b.test>'])
def test_usual_fields_take_the_short_way(value: str) -> None:
    """Fields with one address need not be taken apart."""
    assert extract._match_one(value)
    assert addresses_in(value) == ["a@b.test"]


@given(st.binary(max_size=300))
def test_any_bytes_make_json(content: bytes) -> None:
    """Any content gives a property that can be written as JSON."""
    orjson.dumps(extracted(content, "", "a@b.test"))


@pytest.mark.parametrize("piece", ['"', '\\"', "<", "[", "(", "a@b,", ":", "a", '"\\', " "])
def test_hostile_addresses_take_linear_time(piece: str) -> None:
    """A quarter of a megabyte of anything in an address field is read in one pass."""
    content = b"From: " + (piece * (250_000 // len(piece))).encode() + b"\r\n\r\n"
    extracted(content, "", "a@b.test")


VECTORS = Path(__file__).parents[3].parent / "shared" / "vectors" / "mime"


@pytest.mark.skipif(not VECTORS.is_dir(), reason="the shared vectors are not here; their licences differ")
def test_messages_of_other_projects() -> None:
    """Every message that other projects test with gives a property that can be written as JSON."""
    seen = 0
    for suite in sorted(VECTORS.glob("*.json")):
        json.loads(suite.read_text())
        for path in sorted((VECTORS / suite.stem).rglob("*")):
            if path.is_file():
                orjson.dumps(extracted(path.read_bytes(), "a@b.test", "c@d.test"))
                seen += 1
    assert seen > 100
