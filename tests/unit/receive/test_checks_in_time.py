"""Whoever sends a message has it checked against names of his own, whose servers may be as slow as he likes.

That must not make a verdict on somebody else's name milder: silence is not a way around a policy.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from dataclasses import dataclass, replace

import pytest

from mtaq.dns.inquiry import Inquiry
from mtaq.mailauth.dkim import MAX_SIGNATURES
from mtaq.model.address import Address
from mtaq.model.dns import Ask, DnsAnswer, Question
from mtaq.receive.checks import Checks
from tests.unit.receive.checking import ORIGIN, Dns
from tests.unit.receive.fakes import event_log

#: Long beside what is answered at once, short for a test that waits for it.
TIMEOUT_S = 1.0

ZONE = {
    ("bank.test", "TXT"): ((b"v=spf1 include:spf.bank.test -all",),),
    ("spf.bank.test", "TXT"): ((b"v=spf1 ip4:192.0.2.1 -all",),),
    ("_dmarc.bank.test", "TXT"): ((b"v=DMARC1; p=reject",),),
    ("old.bank.test", "TXT"): ((b"v=spf1 ptr include:spf.bank.test -all",),),
}
BODY = b"hi\r\n"
BANK, SLOW = Address("ceo", "bank.test"), Address("x", "slow.test")


@dataclass
class SlowDns(Dns):
    """Everything below ``slow.test`` is silent; whoever asks gets no answer when his time is over."""

    def inquiry(self, *, timeout_s: float) -> Ask:
        """Return who answers one check."""
        return Inquiry(self.ask, timeout_s=timeout_s).ask

    async def ask(self, question: Question) -> DnsAnswer:
        """Answer."""
        await asyncio.sleep(0)  # as every real answer, it does not come at once, so none comes when the time is over
        if question.name.endswith("slow.test"):
            self.silent |= {question.name}
        return await super().ask(question)


def signature(domain: str) -> bytes:
    """Return a signature that only the key can tell to be none."""
    body_hash = base64.b64encode(hashlib.sha256(BODY).digest()).decode()
    return f"DKIM-Signature: v=1; a=rsa-sha256; d={domain}; s=k; h=from; bh={body_hash}; b=AAAA\r\n".encode()


SIGNATURES = b"".join(signature(f"{number}.slow.test") for number in range(MAX_SIGNATURES - 1)) + signature("bank.test")


@pytest.mark.parametrize(
    ("fields", "authors", "envelope", "helo"),
    [
        (b"", "ceo@bank.test", Address("x", "other.test"), "other.test"),
        (b"", "ceo@bank.test", SLOW, "other.test"),
        (b"", "ceo@mail.bank.test", SLOW, "other.test"),
        (b"", "ceo@bank.test", BANK, "slow.test"),
        (b"", "ceo@bank.test", None, "slow.test"),
        (SIGNATURES, "ceo@bank.test", BANK, "other.test"),
        (b"", "x@slow.test, ceo@bank.test", BANK, "other.test"),
        (b"", "x@slow.test, y@1.slow.test, z@2.slow.test, ceo@bank.test", BANK, "other.test"),
        (SIGNATURES, "x@slow.test, ceo@bank.test", BANK, "slow.test"),
    ],
    ids=["nothing", "mail-from", "mail-from-below", "helo", "null", "signers", "author", "authors", "all"],
)
async def test_silence_hides_no_policy(fields: bytes, authors: str, envelope: Address | None, helo: str) -> None:
    """The message fails DMARC, whatever else is silent."""
    content = fields + f"From: {authors}\r\n\r\n".encode() + BODY
    checks = Checks(SlowDns(ZONE), events=event_log()[0], timeout_s=TIMEOUT_S)
    report = await checks.run(content, replace(ORIGIN, envelope=envelope, helo=helo), ("spf", "dmarc"))
    [dmarc] = report.items["dmarc"]
    assert (dmarc["dmarc"], dmarc["disposition"]) == ("fail", "reject")
    if envelope == BANK:
        assert report.words("spf") == ["fail"]


async def test_silence_about_the_client() -> None:
    """What the network of the client does not tell of its names leaves time for the rest of a record."""
    reverse = "7.100.51.198.in-addr.arpa"
    checks = Checks(SlowDns(ZONE, silent=frozenset((reverse,))), events=event_log()[0], timeout_s=TIMEOUT_S)
    origin = replace(ORIGIN, envelope=Address("ceo", "old.bank.test"), helo="other.test")
    report = await checks.run(b"From: ceo@bank.test\r\n\r\n" + BODY, origin, ("spf", "dmarc"))
    assert (report.words("spf"), report.words("dmarc")) == (["fail"], ["fail"])
