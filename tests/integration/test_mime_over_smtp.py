"""Odd messages of other projects through a running relay: SMTP in, JSON out, byte for byte."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.conformance.test_mime import CASES, on_the_wire
from tests.support.front_door import messages
from tests.support.instance import ROOT, Relay
from tests.support.wire import Wire

SCHEMA = Draft202012Validator(json.loads((ROOT / "docs" / "schema" / "inbox.json").read_text(encoding="utf-8")))

#: Every case goes through the session in tests/conformance; so many of them, spread over the suites, go all the way.
STEP = 3


@pytest.mark.slow
@pytest.mark.parametrize("parse", ["none", "full"])
def test_content_comes_out_as_it_went_in(tmp_path: Path, parse: str) -> None:
    """Below our ``Received:`` field the JSON has the vector's octets, whether or not they are looked into."""
    address = f"embedded://{tmp_path}/queue"
    relay = Relay(tmp_path, address, verb="receive", smtp_threads=1, smtp_parse=parse, smtp_extract="false")
    relay.start()
    try:
        relay.wait_ready()
        sent = send_all(relay.port)
        assert len(sent) > 50
        taken = messages(address, "inbox")
        for digest in sent:
            message = next(taken)
            assert [error.message for error in SCHEMA.iter_errors(message)] == []
            assert digest in digests(content_of(message))
        taken.close()
    finally:
        relay.cleanup()


def send_all(port: int) -> list[str]:
    """Send the cases in one session; return the digests of those that were accepted."""
    accepted = []
    with Wire(port) as client:
        client.say("EHLO client.test")
        for suite, case in CASES[::STEP]:
            client.say("MAIL FROM:<ada@example.org> BODY=8BITMIME")
            client.say("RCPT TO:<grace@example.com>")
            content = on_the_wire(suite, case)
            reply = client.data(content if content.endswith(b"\r\n") else content + b"\r\n")
            assert reply.startswith(("250", "550 5.6.")), reply
            if reply.startswith("250"):
                accepted.append(case["wire_sha256"])
    return accepted


def content_of(message: dict[str, Any]) -> bytes:
    """Return the content of a message below our own field."""
    content = base64.b64decode(message["mime-base64"]) if "mime-base64" in message else message["mime"].encode()
    assert content.startswith(b"Received: from client.test ")
    return bytes(content[len(content) - message["size"] :])


def digests(content: bytes) -> set[str]:
    """Return the digests with and without the last line end, which DATA adds to content that has none."""
    return {hashlib.sha256(octets).hexdigest() for octets in (content, content.removesuffix(b"\r\n"))}
