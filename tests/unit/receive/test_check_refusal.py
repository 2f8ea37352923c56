"""What refuses a message, and what never does."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mtaq.config.message_checks import Reject
from mtaq.mailauth.dmarc import DmarcResult
from mtaq.mailauth.spam import SpamResult
from mtaq.receive.check_refusal import refusal_of
from mtaq.receive.check_report import Report, Undecided
from mtaq.receive.checks import Checks
from tests.unit.receive.checking import CONTENT, HAM, ORIGIN, SPAM, Dns
from tests.unit.receive.fakes import event_log

ALL: tuple[Reject, ...] = ("spf", "dmarc", "spam")

FAILED = DmarcResult("fail", "example.org", "reject", "example.org", reason="neither SPF nor DKIM passed")


async def spf_report(record: bytes, **more: tuple[tuple[bytes, ...], ...]) -> Report:
    """Return what SPF says of a domain with *record*."""
    records = {("example.org", "TXT"): ((record,),), **{(name, "TXT"): texts for name, texts in more.items()}}
    return await Checks(Dns(records), events=event_log()[0]).run(CONTENT, ORIGIN, ("spf",))


async def test_spf() -> None:
    """Its `fail` is told with the code that says so."""
    refusal = refusal_of(await spf_report(b"v=spf1 -all"), ALL, ORIGIN)
    assert refusal is not None
    reply, reason = refusal
    assert (reply.code, reply.status) == (550, "5.7.23")
    assert "198.51.100.7 may not send for example.org" in reply.text
    assert reason.startswith("SPF: ")


async def test_an_explanation() -> None:
    """What the domain has to say of it is passed on as its own words."""
    records = await spf_report(b"v=spf1 exp=e.test -all", **{"e.test": ((b"see http://%{d}/ for %{i}",),)})
    refusal = refusal_of(records, ALL, ORIGIN)
    assert refusal is not None
    assert refusal[0].text == "SPF: example.org explains: see http://example.org/ for 198.51.100.7"


@pytest.mark.parametrize(
    "octets", [b"a\r\n250 2.0.0 ok", b"\x1b[2J", "é".encode(), b"x" * 3000, b"250 2.0.0 ok\n", b"\x00"]
)
async def test_an_explanation_that_is_none(octets: bytes) -> None:
    """Whatever a stranger published, the reply is one line of ASCII within the bounds of RFC 5321 §4.5.3.1.5."""
    texts = (tuple(octets[at : at + 255] for at in range(0, len(octets), 255)),)
    refusal = refusal_of(await spf_report(b"v=spf1 exp=e.test -all", **{"e.test": texts}), ALL, ORIGIN)
    assert refusal is not None
    wire = refusal[0].encode()
    assert wire.count(b"\r\n") == 1
    assert len(wire) <= 512
    assert wire.removesuffix(b"\r\n").decode("ascii").isprintable()


@pytest.mark.parametrize("record", [b"v=spf1 ~all", b"v=spf1 ?all", b"v=spf1 +all", b"v=spf1 nonsense", b"none"])
async def test_spf_that_is_no_fail(record: bytes) -> None:
    """Nothing else that SPF says refuses."""
    assert refusal_of(await spf_report(record), ALL, ORIGIN) is None


def test_dmarc() -> None:
    """It is refused where the owner of the domain wants it so, which the reply tells."""
    refusal = refusal_of(Report({"dmarc": FAILED}), ALL, ORIGIN)
    assert refusal is not None
    assert str(refusal[0]) == "550 5.7.1 rejected per DMARC policy for example.org"
    assert refusal[1] == "DMARC: neither SPF nor DKIM passed"


@pytest.mark.parametrize(
    "result",
    [
        replace(FAILED, policy="quarantine"),
        replace(FAILED, policy="none"),
        replace(FAILED, test=True),
        replace(FAILED, result="pass"),
        replace(FAILED, result="temperror"),
        DmarcResult("none"),
    ],
)
def test_dmarc_that_does_not_refuse(result: DmarcResult) -> None:
    """Only a failure under `p=reject` refuses, and none that is only tested."""
    assert refusal_of(Report({"dmarc": result}), ALL, ORIGIN) is None


def test_a_message_of_nobody() -> None:
    """One that does not say whose it is has a disposition, and no domain to name."""
    refusal = refusal_of(Report({"dmarc": DmarcResult("permerror", reason="no From")}), ALL, ORIGIN)
    assert refusal is not None
    assert refusal[0].text == "the message does not say whose it is, so no DMARC policy can be found"


@pytest.mark.parametrize("domain", ["a b.test", "a\r\nb", "-", "x" * 300, "é.test"])
def test_a_domain_that_is_none(domain: str) -> None:
    """It is not repeated; `-` does no harm."""
    refusal = refusal_of(Report({"dmarc": replace(FAILED, domain=domain)}), ALL, ORIGIN)
    assert refusal is not None
    assert domain == "-" or domain not in refusal[0].text


def test_spam() -> None:
    """It is refused without a word about the rules, which the log has."""
    refusal = refusal_of(Report({"spam": SPAM}), ALL, ORIGIN)
    assert refusal is not None
    assert str(refusal[0]) == "550 5.7.1 the message looks like spam"
    assert refusal[1] == "spam: 9.0 of 5.0 by spamassassin"


@pytest.mark.parametrize("result", [HAM, SpamResult("temperror", "rspamd"), SpamResult("none", "rspamd")])
def test_what_is_no_spam(result: SpamResult) -> None:
    """Silence is no spam."""
    assert refusal_of(Report({"spam": result}), ALL, ORIGIN) is None


def test_what_was_not_decided() -> None:
    """Nothing follows from it."""
    report = Report({check: Undecided(check, "not finished in time") for check in ALL})
    assert refusal_of(report, ALL, ORIGIN) is None


def test_what_is_not_to_be_refused() -> None:
    """Without the option nothing is."""
    assert refusal_of(Report({"dmarc": FAILED, "spam": SPAM}), (), ORIGIN) is None
    assert refusal_of(Report({"dmarc": FAILED, "spam": SPAM}), ("spf",), ORIGIN) is None


async def test_who_has_logged_in() -> None:
    """SPF and DMARC are about strangers; spam is refused all the same."""
    user = replace(ORIGIN, user="ada")
    assert refusal_of(await spf_report(b"v=spf1 -all"), ALL, user) is None
    assert refusal_of(Report({"dmarc": FAILED}), ALL, user) is None
    assert refusal_of(Report({"dmarc": FAILED, "spam": SPAM}), ALL, user) is not None
