"""DMARC from the From field to the disposition, with DNS from a dictionary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtaq.mailauth.asking import MAX_QUESTIONS
from mtaq.mailauth.dmarc import DmarcResult, check_dmarc
from mtaq.mailauth.dmarc_walk import walk_names
from mtaq.mailauth.verdict import Verdict
from mtaq.model.dns import Question
from tests.support.zones import driven

PASS = "pass"


def record(*tags: str) -> dict[str, Any]:
    return {"TXT": ["; ".join(("v=DMARC1", *tags))]}


def check(
    zones: dict[str, Any],
    sender: str | bytes = "a@example.test",
    *,
    spf: str | tuple[str, str] | None = None,
    dkim: Sequence[str | tuple[str, str]] = (),
    asked: list[Question] | None = None,
) -> DmarcResult:
    """Check a message from *sender*; identifiers given by name alone passed."""
    content = sender if isinstance(sender, bytes) else f"From: {sender}\r\n\r\nbody\r\n".encode()
    steps = check_dmarc(
        content,
        spf=(spf, PASS) if isinstance(spf, str) else spf,
        dkim=[(name, PASS) if isinstance(name, str) else name for name in dkim],
    )
    result = driven(steps, zones, asked)
    assert isinstance(result, DmarcResult)
    return result


REJECT = {"_dmarc.example.test": record("p=reject")}


def test_pass_by_identity_takes_one_walk() -> None:
    """An identifier that is the author domain itself is not walked for (RFC 9989 §4.10.2)."""
    asked: list[Question] = []
    result = check(REJECT, spf="example.test", dkim=["other.org"], asked=asked)
    assert (result.result, result.spf_aligned, result.dkim_aligned) == ("pass", True, False)
    assert (result.policy, result.disposition) == ("reject", "none")
    assert asked == [Question("_dmarc.example.test", "TXT"), Question("_dmarc.test", "TXT")]


def test_what_is_published() -> None:
    """checks[] and Authentication-Results say the same."""
    result = check(REJECT, "a@news.example.test", spf="evil.test")
    reason = "not aligned: spf evil.test; policy of example.test"
    assert result.to_json() == [
        {
            "dmarc": "fail",
            "header.from": "news.example.test",
            "policy": "reject",
            "reason": reason,
            "disposition": "reject",
            "aligned": {"spf": False, "dkim": False},
        }
    ]
    properties = (("header.from", "news.example.test"), ("policy.dmarc", "reject"))
    assert result.verdicts() == [Verdict("dmarc", "fail", reason, properties)]


def test_without_record_there_is_no_dmarc() -> None:
    """No record on the whole way: none, and nothing to be done."""
    result = check({}, spf="example.test")
    assert result.to_json() == [
        {
            "dmarc": "none",
            "header.from": "example.test",
            "disposition": "none",
            "aligned": {"spf": False, "dkim": False},
        }
    ]
    assert result.verdicts() == [Verdict("dmarc", "none", None, (("header.from", "example.test"),))]


def test_walk_names() -> None:
    """At most eight names are asked for; of long names labels are left out behind the first (RFC 9989 §4.10)."""
    assert walk_names("test") == ["test"]
    assert walk_names("a.b.test") == ["a.b.test", "b.test", "test"]
    assert walk_names("a.b.c.d.e.f.g.h.i.j.mail.example.com") == [
        "a.b.c.d.e.f.g.h.i.j.mail.example.com",
        "g.h.i.j.mail.example.com",
        "h.i.j.mail.example.com",
        "i.j.mail.example.com",
        "j.mail.example.com",
        "mail.example.com",
        "example.com",
        "com",
    ]
    for labels in (7, 8, 9):
        names = walk_names(".".join("abcdefghi"[:labels]))
        assert len(names) == min(labels, 8)
        assert names[1].count(".") == min(labels - 2, 6)


def test_of_records_above_the_one_with_fewest_labels_counts() -> None:
    """The Organizational Domain is the top of the records found (RFC 9989 §4.10.2)."""
    zones = {"_dmarc.b.example.test": record("p=none"), "_dmarc.example.test": record("p=reject")}
    result = check(zones, "a@a.b.example.test")
    assert (result.policy_domain, result.policy) == ("example.test", "reject")


def test_several_records_are_none_and_the_walk_goes_on() -> None:
    """Several records at the author domain are discarded like those of other names (RFC 9989 §4.10)."""
    zones = {
        "_dmarc.mail.example.test": {"TXT": ["v=DMARC1; p=none", "v=DMARC1; p=quarantine"]},
        "_dmarc.example.test": record("p=reject"),
    }
    assert check(zones, "a@mail.example.test").policy == "reject"


@pytest.mark.parametrize(
    ("adkim", "signer", "aligned"),
    [
        ("r", "example.test", True),
        ("r", "x.example.test", True),
        ("r", "EXAMPLE.test.", True),
        ("s", "example.test", False),
        ("s", "mail.example.test", True),
        ("r", "test", False),
        ("r", "badexample.test", False),
        ("r", "example.org", False),
    ],
)
def test_alignment(adkim: str, signer: str, aligned: bool) -> None:
    """Relaxed needs the same Organizational Domain, strict the same domain; letter case does not count."""
    result = check({"_dmarc.example.test": record("p=reject", f"adkim={adkim}")}, "a@mail.example.test", dkim=[signer])
    assert (result.dkim_aligned, result.result) == (aligned, "pass" if aligned else "fail")


def test_spf_has_its_own_strictness() -> None:
    """aspf is about SPF alone."""
    zones = {"_dmarc.example.test": record("p=reject", "aspf=s")}
    assert check(zones, "a@mail.example.test", spf="example.test").result == "fail"
    assert check(zones, "a@mail.example.test", dkim=["example.test"]).result == "pass"


def test_internationalized_domains_align() -> None:
    """U-labels and A-labels of a domain are one domain."""
    zones = {"_dmarc.xn--bcher-kva.test": record("p=reject")}
    result = check(zones, "a@bücher.test", spf="Bücher.test")
    assert (result.domain, result.result) == ("xn--bcher-kva.test", "pass")


def test_what_did_not_pass_is_no_identifier() -> None:
    """Only a pass counts; an identifier that is no domain is passed over."""
    words = ("none", "fail", "softfail", "neutral", "policy", "permerror")
    dkim = [("example.test", word) for word in words]
    assert check(REJECT, spf=("example.test", "softfail"), dkim=[*dkim, "not a domain"]).result == "fail"


def test_psd_n_ends_the_walk() -> None:
    """psd=n makes a domain an Organizational Domain below another."""
    zones = {"_dmarc.mail.example.test": record("p=quarantine", "psd=n"), "_dmarc.example.test": record("p=reject")}
    result = check(zones, "a@mail.example.test", dkim=["example.test"])
    assert (result.result, result.policy) == ("fail", "quarantine")
    assert check(zones, "a@x.mail.example.test", dkim=["y.mail.example.test"]).result == "pass"


BANK = {"_dmarc.bank.test": record("p=reject", "sp=quarantine", "np=none", "psd=y"), "giant.bank.test": "NODATA"}


def test_psd_y_puts_the_organizational_domain_one_below() -> None:
    """Registrants below a public suffix are strangers to each other, and to the suffix."""
    assert check(BANK, "a@giant.bank.test", dkim=["mega.bank.test"], spf="bank.test").result == "fail"
    assert check(BANK, "a@x.giant.bank.test", dkim=["y.giant.bank.test"]).result == "pass"
    result = check(BANK, "a@giant.bank.test")
    assert (result.policy_domain, result.policy) == ("bank.test", "quarantine")


def test_psd_policy_is_not_for_who_has_one() -> None:
    """Where the Organizational Domain has a record, that of the public suffix does not count (RFC 9989 §4.10.1)."""
    zones = BANK | {"_dmarc.giant.bank.test": record("p=none", "sp=reject")}
    result = check(zones, "a@mail.giant.bank.test")
    assert (result.policy_domain, result.policy) == ("giant.bank.test", "reject")


def test_a_public_suffix_may_send_itself() -> None:
    """A suffix is its own Organizational Domain; the names below it are not aligned with it."""
    result = check(BANK, "a@bank.test", dkim=["giant.bank.test"])
    assert (result.result, result.policy) == ("fail", "reject")


NP = {"_dmarc.example.test": record("p=quarantine", "sp=none", "np=reject")}


@pytest.mark.parametrize(
    ("entry", "policy"),
    [
        ("NXDOMAIN", "reject"),
        ("NODATA", "none"),
        ({"A": ["192.0.2.1"]}, "none"),
        ({"CNAME": ["nowhere.test"]}, "none"),
    ],
)
def test_np_is_for_names_that_do_not_exist(entry: Any, policy: str) -> None:
    """No data is existence, and so is an alias that leads nowhere (RFC 9989 §3.2.13)."""
    assert check(NP | {"x.example.test": entry}, "a@x.example.test").policy == policy


def test_existence_is_asked_for_where_it_matters() -> None:
    """Neither the domain of the record nor a record without np has anybody ask whether a name exists."""
    asked: list[Question] = []
    assert check(NP, asked=asked).policy == "quarantine"
    assert check(REJECT, "a@x.example.test", asked=asked).policy == "reject"
    assert {question.kind for question in asked} == {"TXT"}


@pytest.mark.parametrize(
    ("policy", "disposition"), [("reject", "quarantine"), ("quarantine", "none"), ("none", "none")]
)
def test_test_mode_takes_one_step_off(policy: str, disposition: str) -> None:
    """With t=y a failing message gets the next milder disposition, and policy says what is published."""
    result = check({"_dmarc.example.test": record(f"p={policy}", "t=y")})
    assert (result.result, result.policy, result.disposition) == ("fail", policy, disposition)


def test_a_record_without_policy_is_no_dmarc() -> None:
    """It is not passed over for that of a domain above (RFC 9989 §4.10.1)."""
    zones = {"_dmarc.mail.example.test": record("adkim=s")} | REJECT
    result = check(zones, "a@mail.example.test", spf="mail.example.test")
    assert (result.result, result.disposition, result.policy) == ("none", "none", None)
    assert result.reason


@pytest.mark.parametrize(
    ("failing", "sender", "dkim", "expected"),
    [
        ("_dmarc.example.test", "a@example.test", "example.test", "temperror"),  # there may be no record
        ("_dmarc.test", "a@example.test", "example.test", "pass"),
        ("_dmarc.test", "a@example.test", "mail.example.test", "temperror"),
        ("_dmarc.test", "a@example.test", "evil.org", "fail"),
        ("_dmarc.test", "a@mail.example.test", "evil.org", "temperror"),  # a record of test would be the one to apply
        ("_dmarc.mail.example.test", "a@example.test", "mail.example.test", "temperror"),
        ("_dmarc.mail.evil.test", "a@example.test", "mail.evil.test", "fail"),
    ],
)
def test_what_dns_does_not_say(failing: str, sender: str, dkim: str, expected: str) -> None:
    """What would have changed the verdict is temperror; what is sure already stays (RFC 9989 §5.3.6)."""
    result = check(REJECT | {failing: "SERVFAIL"}, sender, dkim=[dkim])
    assert result.result == expected
    assert (result.disposition == "none") is (expected != "fail")


def test_another_identifier_saves_the_message() -> None:
    """A walk that fails does not matter when another identifier is aligned."""
    zones = REJECT | {"_dmarc.mail.example.test": "SERVFAIL"}
    result = check(zones, dkim=["mail.example.test"], spf="bounce.example.test")
    assert (result.result, result.spf_aligned, result.dkim_aligned) == ("pass", True, False)


def test_existence_that_is_not_known() -> None:
    """Which policy applies is then not known either, but who passes needs none."""
    zones = NP | {"x.example.test": "SERVFAIL"}
    failed = check(zones, "a@x.example.test")
    assert (failed.result, failed.policy, failed.disposition) == ("temperror", None, "none")
    assert check(zones, "a@x.example.test", dkim=["example.test"]).result == "pass"


@pytest.mark.parametrize(
    ("domain", "expected"), [("example.test", "temperror"), ("mail.example.test", "temperror"), ("evil.test", "fail")]
)
def test_what_spf_and_dkim_could_not_find_out(domain: str, expected: str) -> None:
    """Their temperror is DMARC's where a pass would have been aligned; strangers cannot bring it about."""
    assert check(REJECT, spf=(domain, "temperror")).result == expected
    assert check(REJECT, dkim=[(domain, "temperror")]).result == expected
    assert check(REJECT, dkim=[(domain, "temperror"), "example.test"]).result == "pass"


@pytest.mark.parametrize(
    "content",
    [
        b"Subject: no From\r\n\r\n",
        b"From: a@example.test\r\nFrom: a@example.test\r\n\r\n",
        b"From: Undisclosed:;\r\n\r\n",
        b"From: <>\r\n\r\n",
        b"From: a@[192.0.2.1]\r\n\r\n",
        b"From: a@b1.test, a@b2.test, a@b3.test, a@b4.test, a@b5.test\r\n\r\n",
    ],
)
def test_no_single_author_is_no_way_around(content: bytes) -> None:
    """A message of which nobody can tell whose it claims to be is permerror, to be rejected, and asks nothing."""
    asked: list[Question] = []
    result = check(REJECT, content, spf="example.test", dkim=["example.test"], asked=asked)
    assert (result.result, result.domain, result.disposition, asked) == ("permerror", None, "reject", [])
    assert result.reason
    assert result.verdicts() == [Verdict("dmarc", "permerror", result.reason)]


MANY = {
    "_dmarc.reject.test": record("p=reject"),
    "_dmarc.quarantine.test": record("p=quarantine"),
    "_dmarc.none.test": record("p=none"),
    "_dmarc.silent.test": "SERVFAIL",
}


@pytest.mark.parametrize(
    ("domains", "expected"),
    [
        (["none.test", "reject.test", "quarantine.test"], ("fail", "reject.test", "reject")),
        (["none.test", "quarantine.test"], ("fail", "quarantine.test", "quarantine")),
        (["mine.test", "reject.test"], ("fail", "reject.test", "reject")),
        (["silent.test", "reject.test"], ("fail", "reject.test", "reject")),
        (["silent.test", "none.test"], ("temperror", "silent.test", "none")),
        (["mine.test", "unknown.test"], ("none", "unknown.test", "none")),
    ],
)
def test_of_several_authors_the_strictest_policy_counts(domains: list[str], expected: tuple[str, ...]) -> None:
    """One author that passes does not speak for the others (RFC 9989 §11.5)."""
    zones = MANY | {"_dmarc.mine.test": record("p=none")}
    for order in (domains, domains[::-1]):
        result = check(zones, ", ".join(f"a@{domain}" for domain in order), dkim=["mine.test"])
        assert (result.result, result.domain, result.disposition) == expected


def test_several_authors_of_one_domain_are_one() -> None:
    """One domain is one author, however many addresses it has; several may all pass (RFC 9989 §5.3.1)."""
    assert check(REJECT, "a@example.test, B <b@EXAMPLE.test>", dkim=["example.test"]).result == "pass"
    zones = REJECT | {"_dmarc.none.test": record("p=none")}
    assert check(zones, "a@example.test, b@none.test", dkim=["example.test"], spf="none.test").result == "pass"


def test_questions_are_bounded() -> None:
    """The most hostile message stays within the questions that a check may ask, and asks nothing twice."""
    signers = [".".join(f"{label}{number}" for label in "zyxwvut") + f".{number}.test" for number in range(30)]
    # Each signer must be walked for, and then turns out to be a stranger.
    zones = {f"_dmarc.{name}": record("p=none", "psd=n") for name in (*signers, "s.p.f.x.y.z.w.test")}
    zones["_dmarc.test"] = record("p=none", "sp=none", "np=reject")
    senders = ", ".join(f"a@{'.'.join(f'{label}{number}' for label in 'qrstuvwx')}.test" for number in range(4))
    asked: list[Question] = []
    identities = [(name, word) for name, word in zip(signers, ["pass", "temperror"] * 15, strict=True)]
    result = check(zones, senders, spf=("s.p.f.x.y.z.w.test", "temperror"), dkim=identities, asked=asked)
    assert result.result == "fail"
    assert 80 < len(asked) <= MAX_QUESTIONS
    assert len(asked) == len(set(asked))


def test_names_that_cannot_exist_are_not_asked_for() -> None:
    """A domain too long for the label in front of it has no record; those above it may."""
    long = ".".join(["a" * 60] * 4) + ".test"
    asked: list[Question] = []
    assert check({"_dmarc.test": record("p=reject")}, f"a@{long}", asked=asked).policy == "reject"
    assert max(len(question.name) for question in asked) <= 253


NAMES = st.sampled_from(["test", "a.test", "b.a.test", "c.b.a.test", "d.a.test", "x.org"])
TAGS = st.lists(st.sampled_from(["p=reject", "sp=none", "np=quarantine", "psd=y", "psd=n", "t=y", "adkim=s", "aspf=s"]))
ENTRIES = st.one_of(TAGS.map(lambda tags: record(*tags)), st.sampled_from(["NXDOMAIN", "NODATA", "SERVFAIL"]))
WORDS = st.sampled_from(["pass", "fail", "temperror"])


@given(
    st.dictionaries(NAMES.map(lambda name: f"_dmarc.{name}"), ENTRIES),
    NAMES,
    st.tuples(NAMES, WORDS),
    st.lists(st.tuples(NAMES, WORDS), max_size=4),
)
def test_every_tree_has_a_verdict(
    zones: dict[str, Any], author: str, spf: tuple[str, str], dkim: list[tuple[str, str]]
) -> None:
    """Whatever is published: a pass has an aligned pass, only a fail has a disposition, nothing is asked twice."""
    asked: list[Question] = []
    result = check(zones, f"x@{author}", spf=spf, dkim=dkim, asked=asked)
    assert (result.result == "pass") is (result.spf_aligned or result.dkim_aligned)
    assert result.disposition == "none" or result.result == "fail"
    assert result.result != "fail" or result.policy is not None
    passed = {name for name, word in (spf, *dkim) if word == "pass"}
    assert result.result != "fail" or author not in passed
    assert len(asked) == len(set(asked))
