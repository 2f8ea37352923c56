"""Addresses of email-validator's and is_email()'s tests, against the grammar and through a session."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mtaq.smtp.grammar import a_label_domain, parse_mailbox
from tests.conformance.vectors import cases, departs
from tests.support.dialog import DEFAULT_OPTIONS, SessionTransport

CASES = [(suite, case) for suite in ("address/email-validator", "address/isemail") for case in cases(suite)]
each_case = pytest.mark.parametrize(
    ("suite", "case"), CASES, ids=lambda value: value if isinstance(value, str) else str(value["id"])
)


def is_mailbox(text: str, *, strict: bool, smtputf8: bool) -> bool:
    try:
        parse_mailbox(text, strict=strict, smtputf8=smtputf8)
    except ValueError:
        return False
    return True


def verdict(text: str, *, strict: bool) -> str:
    """Return the verdict in the vectors' words."""
    if is_mailbox(text, strict=strict, smtputf8=False):
        return "valid"
    return "valid-utf8" if is_mailbox(text, strict=strict, smtputf8=True) else "invalid"


def wanted(case: dict[str, Any]) -> tuple[str, ...]:
    word = case["rfc5321_mailbox"]
    return ("valid-utf8", "invalid") if word == "unclear" else (word,)


@each_case
def test_strict_follows_the_verdict(suite: str, case: dict[str, Any]) -> None:
    """Strict takes what RFC 5321 or RFC 6531 takes and nothing else, or the case is a listed departure."""
    assert (verdict(case["address"], strict=True) in wanted(case)) is not departs(suite, case["id"])


@each_case
def test_loose_takes_what_strict_takes(suite: str, case: dict[str, Any]) -> None:
    """Whatever strict takes loose takes too."""
    strict = verdict(case["address"], strict=True)
    if strict != "invalid":
        assert verdict(case["address"], strict=False) == strict


@pytest.mark.parametrize("case", [case for _, case in CASES if "ascii_domain" in case], ids=lambda case: case["id"])
def test_domains_are_normalised(case: dict[str, Any]) -> None:
    """The domain comes out with U-labels, and its A-labels are those of the vector."""
    address = parse_mailbox(case["address"], strict=True, smtputf8=True)
    assert address.domain == case["domain"]
    assert a_label_domain(address.domain) == case["ascii_domain"]


@each_case
@pytest.mark.parametrize("strict", [True, False])
async def test_a_session_agrees_with_the_grammar(suite: str, case: dict[str, Any], strict: bool) -> None:
    """RCPT with the address gets 250 or 5yz as the grammar says; nothing in it becomes a second command."""
    text = case["address"]
    # A lone surrogate has no UTF-8; what some programs send for it is no UTF-8 either.
    line = f"RCPT TO:<{text}>\r\n".encode("utf-8", "surrogatepass")
    transport = SessionTransport(replace(DEFAULT_OPTIONS, strict_addresses=strict))
    await transport.send(b"EHLO c.test\r\nMAIL FROM:<> SMTPUTF8\r\n")
    for _ in range(3):
        await transport.read_reply()
    await transport.send(line)
    reply = await transport.read_reply()
    assert reply is not None
    assert (reply[0][:3] == "250") is (verdict(text, strict=strict) != "invalid")
