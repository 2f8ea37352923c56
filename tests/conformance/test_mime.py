"""Odd messages of other projects: what goes in by SMTP comes out of the JSON byte for byte; their parts are found.

A file with bare CR or NUL may be refused instead; it is never changed.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

import orjson
import pytest

from mtaq.mime.describe import parse_full
from mtaq.mime.entity import entity_at, inner_places
from mtaq.mime.extract import extracted
from mtaq.model.address import Address
from mtaq.model.codec import content_of, encode_inbox
from mtaq.model.message import InboxRecipient
from mtaq.reports import may_be_report, recognise
from mtaq.reports.fields import groups
from tests.conformance.vectors import SUITES, departs, home, params
from tests.support.dialog import DEFAULT_OPTIONS, SessionTransport

CASES = [(suite, *param.values) for suite in SUITES if suite.startswith("mime/") for param in params(suite)]
each_case = pytest.mark.parametrize(("suite", "case"), CASES, ids=[case["id"] for _, case in CASES])

Json = dict[str, Any]


def on_the_wire(suite: str, case: Json) -> bytes:
    """Return the file as it is sent: line ends are CRLF, a bare CR stays."""
    return re.sub(rb"\r?\n", b"\r\n", (home(suite) / case["file"]).read_bytes())


def dot_stuffed(content: bytes) -> bytes:
    return re.sub(rb"(?m)^\.", b"..", content) + (b"" if content.endswith(b"\r\n") or not content else b"\r\n")


@each_case
@pytest.mark.parametrize("block_bytes", [0, 7])
async def test_what_is_sent_is_what_the_json_holds(suite: str, case: Json, block_bytes: int) -> None:
    """DATA, our ``Received:`` in front, JSON and back: the octets are those of the vector; or it is refused."""
    sent = on_the_wire(suite, case)
    transport = SessionTransport(DEFAULT_OPTIONS, block_bytes=block_bytes)
    await transport.send(b"EHLO a.test\r\nMAIL FROM:<a@b.test> BODY=8BITMIME\r\nRCPT TO:<x@local.example>\r\nDATA\r\n")
    await transport.send(dot_stuffed(sent) + b".\r\n")
    reply = [await transport.read_reply() or [""] for _ in range(6)][-1][0]
    if not reply.startswith("250"):
        assert re.match(r"550 5\.6\.(0|11) ", reply)
        assert re.search(rb"\r(?!\n)|\0", sent)
        assert not transport.messages
        return
    (content,) = transport.messages
    received = b"Received: from a.test by mx.test; x\r\n"
    recipient = InboxRecipient("t.1", Address("x", "local.example"))
    ((_, body),) = encode_inbox({"envelope": "a@b.test"}, [recipient], received + content)
    out = content_of(orjson.loads(body)).removeprefix(received)
    without_last_line_end = sent if sent.endswith(b"\r\n") or not sent else sent + b"\r\n"
    assert out == without_last_line_end
    digests = {hashlib.sha256(octets).hexdigest() for octets in (out, out.removesuffix(b"\r\n"))}
    assert case["wire_sha256"] in digests


@each_case
def test_parts(suite: str, case: Json) -> None:
    """Type and number of parts are those that CPython finds, but for listed departures."""
    content = on_the_wire(suite, case)
    found = entity_at(content, 0, len(content)).media_type, number_of_parts(content, 0, len(content))
    wanted = case["content_type"], case["parts"]
    assert (found == wanted) is not departs(suite, case["id"]), f"{found} for {wanted}"


def number_of_parts(content: bytes, start: int, end: int, default: str = "text/plain") -> int:
    """Count a part and those inside of it, messages and groups of fields included, as CPython does."""
    entity = entity_at(content, start, end)
    media_type = entity.media_type if entity.values(b"content-type") else default
    if media_type in ("message/delivery-status", "message/global-delivery-status"):
        return 1 + len(groups(content[entity.body : entity.end]))
    inner = list(inner_places(content, entity)) if media_type.startswith("multipart/") else []
    if media_type.startswith("message/"):
        inner = [(entity.body, entity.end)]
    of_inner = "message/rfc822" if media_type == "multipart/digest" else "text/plain"
    return 1 + sum(number_of_parts(content, *place, of_inner) for place in inner)


@each_case
def test_nothing_in_it_is_too_odd(suite: str, case: Json) -> None:
    """Whatever it is, it is described in JSON, whole and cut off anywhere, and looked at for a report."""
    content = on_the_wire(suite, case)
    for octets in [content, *(content[: len(content) * part // 7] for part in range(7))]:
        orjson.dumps([extracted(octets, "", "x@local.example"), parse_full(octets)])
        may_be_report(octets, "")
        found = recognise(octets, envelope="")
        orjson.dumps(found and found.to_json())
