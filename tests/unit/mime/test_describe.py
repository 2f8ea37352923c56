"""What the body of a message holds, described."""

from __future__ import annotations

import base64
import email
import hashlib
import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from mtaq.mime.describe import TEXT_LIMIT, parse_full
from mtaq.mime.entity import DEPTH_LIMIT, PARTS_LIMIT
from mtaq.mime.extract import extracted, extracted_shared

MESSAGE = """From: ada@example.org
Content-Type: multipart/mixed; boundary="outer"

preamble
--outer
Content-Type: multipart/alternative; boundary=inner

--inner
Content-Type: text/plain; charset=iso-8859-1
Content-Transfer-Encoding: quoted-printable

gr=FCn
--inner
Content-Type: text/html; charset=utf-8

<p>grün</p>
--inner--
--outer
Content-Type: image/png; name="=?utf-8?q?gr=C3=BCn.png?="
Content-Disposition: inline
Content-ID: <logo@x>
Content-Transfer-Encoding: base64

AAEC
--outer
Content-Type: text/plain; charset=utf-8
Content-Disposition: attachment;
 filename*0*=utf-8''gr%C3%BC;
 filename*1=n.txt

attached
--outer
Content-Type: message/rfc822

Subject: inner
Content-Type: text/html

<p>not ours</p>
--outer
Content-Type: text/plain

footer
--outer--
epilogue
""".replace("\n", "\r\n").encode()


def digest(octets: bytes) -> str:
    return hashlib.sha256(octets).hexdigest()


def test_texts_and_attachments() -> None:
    """Bodies are decoded, one after the other; everything else is described, in order."""
    inner = b"Subject: inner\r\nContent-Type: text/html\r\n\r\n<p>not ours</p>"
    assert parse_full(MESSAGE) == {
        "text": "grün\nfooter",
        "html": "<p>grün</p>",
        "attachments": [
            {"filename": "grün.png", "type": "image/png", "size": 3, "sha256": digest(b"\0\1\2"),
             "disposition": "inline", "cid": "logo@x"},
            {"filename": "grün.txt", "type": "text/plain", "size": 8, "sha256": digest(b"attached"),
             "disposition": "attachment"},
            {"type": "message/rfc822", "size": len(inner), "sha256": digest(inner)},
        ],
    }  # fmt: skip


def test_it_is_part_of_extracted_when_asked_for() -> None:
    """`full` adds to what the header section says; without it the body is not looked at."""
    shared = extracted_shared(MESSAGE, "")
    assert extracted_shared(MESSAGE, "", full=True) == shared | parse_full(MESSAGE)
    assert extracted(MESSAGE, "", "a@b.test", full=True) == shared | parse_full(MESSAGE) | {
        "recipient": {"local": "a", "domain": "b.test"}
    }


def test_published_schema_knows_it() -> None:
    """What is written is what the schema of the inbox says."""
    schema = json.loads((Path(__file__).parents[3] / "docs" / "schema" / "inbox.json").read_text(encoding="utf-8"))
    validator = Draft202012Validator(schema["properties"]["extracted"])
    assert not list(validator.iter_errors(extracted(MESSAGE, "", "a@b.test", full=True)))


@pytest.mark.parametrize(
    ("content", "described"),
    [
        (b"", {"text": None}),
        (b"Subject: x\r\n\r\nplain", {"text": "plain"}),
        (b"Content-Type: text/html\r\n\r\n<p>", {"html": "<p>"}),
        (b"Content-Type: TEXT/Plain; charset=UTF-16\r\n\r\n" + "a€".encode("utf-16"), {"text": "a€"}),
        (b"Content-Type: text/plain; charset=utf-7\r\n\r\n+AOQ-", {"text": "ä"}),
        (b"Content-Type: text/plain; charset=nonsense\r\n\r\n\xe4\x00", {"text": "ä\x00"}),
        (b"Content-Type: text/plain; charset=us-ascii\r\n\r\n\xe4", {"text": "ä"}),
        (b"Content-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n\r\n!!YWI=!!YWI=", {"text": "abab"}),
        (b"Content-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n\r\nYWJjYQ", {"text": "abca"}),
        (b"Content-Type: text/plain\r\nContent-Transfer-Encoding: nonsense\r\n\r\nx", {"text": "x"}),
        (b"Content-Type: multipart/mixed\r\n\r\nno boundary", {"text": None}),
        (b"Content-Type: multipart/mixed; boundary=b\r\n\r\nno parts", {"text": None}),
        (b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nno end", {"text": "no end"}),
        (b"Content-Type: nonsense\r\n\r\ntext", {"text": "text"}),
        (b"Content-Type: text/plain; name=a.txt\r\n\r\ntext", {"text": None}),
    ],
)
def test_broken_messages(content: bytes, described: dict[str, Any]) -> None:
    """What is broken is described as what it can be read as."""
    found = parse_full(content)
    for name, value in described.items():
        assert found.get(name) == value
    assert ("truncated" in found) is False


@pytest.mark.parametrize("word", ["form-data", "Attachment ; x=y", "inline"])
def test_dispositions(word: str) -> None:
    """A disposition that is not known counts as an attachment (RFC 2183 §2.8)."""
    content = f"Content-Type: image/png\r\nContent-Disposition: {word}\r\n\r\nx".encode()
    assert parse_full(content)["attachments"][0]["disposition"] == ("inline" if word == "inline" else "attachment")


def test_text_is_cut() -> None:
    """Long texts are cut, and it says so."""
    found = parse_full(b"Content-Type: text/plain\r\n\r\n" + b"x" * (TEXT_LIMIT + 1))
    assert (len(found["text"]), found["truncated"]) == (TEXT_LIMIT, True)


def test_parts_without_end() -> None:
    """Beyond a number of parts nothing is described, and it says so."""
    part = b"--b\r\nContent-Type: image/png\r\n\r\nx\r\n"
    found = parse_full(b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + part * (PARTS_LIMIT + 5) + b"--b--")
    assert len(found["attachments"]) == PARTS_LIMIT - 1
    assert found["truncated"] is True


@pytest.mark.parametrize("levels", [DEPTH_LIMIT + 2, 5_000])
def test_nesting_without_end(levels: int) -> None:
    """Beyond a depth nothing is described, and it says so."""
    content = b"".join(
        b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (number, number) for number in range(levels)
    )
    assert parse_full(content + b"\r\ntext") == {"attachments": [], "truncated": True}


@pytest.mark.parametrize(
    "value",
    [b";" * 200_000, b"; a" * 100_000, b'; a="' * 50_000, b"; a*0=b" * 50_000, b'; a="\\' * 50_000, b"; a =" * 50_000],
)
def test_hostile_parameters(value: bytes) -> None:
    """Parameters without end are read in one pass, up to a bound."""
    parse_full(b"Content-Type: text/plain" + value + b"\r\nContent-Disposition: inline" + value + b"\r\n\r\nx")


@given(st.binary(max_size=400))
def test_any_octets(content: bytes) -> None:
    """Whatever the octets, there is a description that goes into JSON."""
    orjson.dumps(parse_full(content))
    orjson.dumps(parse_full(b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n" + content + b"\r\n--b--"))


@given(st.binary(max_size=100), st.sampled_from(["utf-8", "utf-7", "utf-16", "hz", "gb18030", "iso2022_jp", "x"]))
def test_any_octets_in_any_charset(body: bytes, charset: str) -> None:
    """Whatever the octets and their charset, the text goes into JSON."""
    head = f"Content-Type: text/plain; charset={charset}\r\nContent-Transfer-Encoding: base64\r\n\r\n".encode()
    orjson.dumps(parse_full(head + base64.b64encode(body)))


VECTORS = Path(__file__).parents[3].parent / "shared" / "vectors" / "mime"


@pytest.mark.skipif(not VECTORS.is_dir(), reason="the shared vectors are not here; their licences differ")
def test_messages_of_other_projects() -> None:
    """Messages that other projects test with are described, and those without defects have the parts they have."""
    seen = compared = 0
    for suite in sorted(VECTORS.glob("*.json")):
        for case in json.loads(suite.read_text())["cases"]:
            content = (VECTORS / case["file"]).read_bytes()
            found = parse_full(content)
            orjson.dumps(found)
            seen += 1
            if "defects" not in case and "flags" not in case:
                names = [part.get_filename() for part in email.message_from_bytes(content).walk()]
                compared += bool([name for name in names if name])
                assert len(found["attachments"]) >= len({name for name in names if name}), case["file"]
    assert seen > 100
    assert compared > 10
