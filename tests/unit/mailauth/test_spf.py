"""Both identities of a transaction, in and beyond the cases of the openspf suite."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtaq.mailauth.asking import MAX_QUESTIONS
from mtaq.mailauth.spf import SpfResult, check_spf
from mtaq.model.address import Address
from mtaq.model.dns import Question
from tests.support.zones import driven

ALICE = Address("alice", "x.test")
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def check(
    zones: dict[str, Any],
    *,
    ip: str = "192.0.2.1",
    helo: str = "mail.x.test",
    sender: Address | None = ALICE,
    asked: list[Question] | None = None,
) -> SpfResult:
    steps = check_spf(client_ip=ip, helo=helo, envelope=sender, receiver="mx.our.test", now=NOW)
    result = driven(steps, zones, asked)
    assert isinstance(result, SpfResult)
    return result


def record(*terms: str) -> dict[str, Any]:
    return {"TXT": [" ".join(("v=spf1", *terms))]}


def test_helo_waits_for_mail_from() -> None:
    """Nothing is asked of HELO before MAIL FROM has its word; then each has its own."""
    steps = check_spf(client_ip="192.0.2.1", helo="mail.x.test", envelope=Address("a", "x.test"), receiver="mx")
    assert list(next(steps)) == [Question("x.test", "TXT")]
    result = check({"x.test": record("-all"), "mail.x.test": record("ip4:192.0.2.1", "-all")})
    assert (result.word, result.domain, result.helo_identity.word) == ("fail", "x.test", "pass")


def test_a_careless_helo_changes_nothing() -> None:
    """HELO's fail is told beside MAIL FROM's pass, in the JSON and in Authentication-Results."""
    result = check({"x.test": record("+all"), "mail.x.test": record("-all")})
    assert result.to_json() == [
        {
            "spf": "pass",
            "smtp.mailfrom": "alice@x.test",
            "smtp.helo": "mail.x.test",
            "explanation": "+all in the record of x.test matches 192.0.2.1",
            "helo-spf": "fail",
        }
    ]
    assert [(verdict.result, verdict.properties) for verdict in result.verdicts()] == [
        ("pass", (("smtp.mailfrom", "x.test"),)),
        ("fail", (("smtp.helo", "mail.x.test"),)),
    ]


def test_the_null_reverse_path_is_of_the_helo_name() -> None:
    """With ``<>`` the result is HELO's, and its macros know the sender as postmaster (RFC 7208 §2.4)."""
    zones = {"mail.x.test": record("-all", "exp=e.x.test"), "e.x.test": {"TXT": ["not %{s}"]}}
    result = check(zones, sender=None)
    assert (result.word, result.domain) == ("fail", "mail.x.test")
    assert result.explanation == "not postmaster@mail.x.test"
    assert result.to_json()[0]["smtp.mailfrom"] == ""
    assert [(v.method, v.result, v.properties) for v in result.verdicts()] == [
        ("spf", "fail", (("smtp.helo", "mail.x.test"),))
    ]


def test_an_empty_local_part_is_postmaster() -> None:
    """``@x.test`` is checked as postmaster (RFC 7208 §4.3)."""
    zones = {"x.test": record("exists:%{l}.x.test", "-all"), "postmaster.x.test": {"A": ["127.0.0.2"]}}
    assert check(zones, sender=Address("", "x.test")).word == "pass"


@pytest.mark.parametrize(
    "helo",
    ["", "mail", "[192.0.2.1]", "192.0.2.1",
     "a b.test", "%{d}.test", "x.test\r\nX: y", "\x00.test", "é.test", "a..test",
     "." * 300, "a." * 5000 + "test", "a" * 64 + ".test", "a" * 10_000, "\ud800.test", ".x.test"],
)  # fmt: skip
def test_a_helo_that_is_no_name(helo: str) -> None:
    """Whatever stands in place of a name, nothing is asked for it, and it comes out as one short printable line."""
    asked: list[Question] = []
    zones = {"x.test": record("a:%{h}", "exists:%{H1}.x.test", "-all", "exp=e.x.test"), "e.x.test": {"TXT": ["h %{h}"]}}
    result = check(zones, helo=helo, asked=asked)
    assert (result.word, result.helo_identity.word, result.helo_identity.domain) == ("fail", "none", "")
    assert not any(question.kind == "TXT" and question.name not in zones for question in asked)
    for text in (result.helo, result.explanation, result.reply_text):
        assert len(text) < 450
        assert text.isascii()
        assert not text or text.isprintable()


def test_names_are_compared_without_case_and_last_dot() -> None:
    """``MAIL.X.TEST.`` is the same name."""
    assert check({"mail.x.test": record("+all")}, helo="MAIL.X.TEST.", sender=None).word == "pass"


@pytest.mark.parametrize("domain", ["bücher.test", "xn--bcher-kva.test"])
def test_domains_are_asked_with_a_labels(domain: str) -> None:
    """A domain with U-labels is asked for, reported and expanded with A-labels (RFC 8616 §4)."""
    zones = {
        "xn--bcher-kva.test": record("exists:%{o}.x.test", "-all"),
        "xn--bcher-kva.test.x.test": {"A": ["127.0.0.2"]},
    }
    result = check(zones, sender=Address("a", domain))
    assert (result.word, result.domain) == ("pass", "xn--bcher-kva.test")


@pytest.mark.parametrize("domain", ["\u2024.test", "a\u0300" * 200 + ".test", "", "[192.0.2.1]", "localhost"])
def test_domains_that_cannot_have_a_record(domain: str) -> None:
    """Without a domain name of several labels the result is none."""
    result = check({}, sender=Address("a", domain))
    assert (result.word, result.domain) == ("none", "")
    assert result.verdicts()[0].properties[0][1].isascii()


def test_a_local_part_beyond_ascii_matches_nothing() -> None:
    """Terms with the local-part do not match it, and nothing is asked for them (RFC 8616 §4)."""
    asked: list[Question] = []
    zones = {"x.test": record("exists:%{l}.x.test", "a:%{s}.x.test", "?all")}
    assert check(zones, sender=Address("bücher", "x.test"), asked=asked).word == "neutral"
    assert {question.kind for question in asked} == {"TXT"}


def test_a_quoted_at_sign() -> None:
    """The domain of ``"a@b"@x.test`` is ``x.test``."""
    zones = {"x.test": record("exists:%{l}.x.test", "-all"), r"\"a\@b\".x.test": {"A": ["127.0.0.2"]}}
    assert check(zones, sender=Address('"a@b"', "x.test")).word == "pass"


@pytest.mark.parametrize("ip", ["::ffff:192.0.2.1", "192.0.2.1"])
def test_an_ipv4_mapped_client_is_an_ipv4_client(ip: str) -> None:
    """``ip4`` matches it and it is told as IPv4."""
    result = check({"x.test": record("ip6:::/0", "-ip4:192.0.2.0/24")}, ip=ip)
    assert (result.word, result.client_ip) == ("fail", "192.0.2.1")


def test_a_scope_is_no_part_of_the_address() -> None:
    """A link-local client is known without its interface."""
    zones = {"x.test": record("-ip6:fe80::/10", "exp=e.x.test"), "e.x.test": {"TXT": ["%{c}"]}}
    assert check(zones, ip="fe80::1%eth0").explanation == "fe80::1"


def test_no_address_is_an_error_of_the_caller() -> None:
    """A client without an IP address cannot be checked."""
    with pytest.raises(ValueError, match="does not appear"):
        next(check_spf(client_ip="nobody", helo="", envelope=None, receiver=""))


@pytest.mark.parametrize("place", ["x.test", "i.test", "mx.x.test", "e.x.test", "h.test"])
def test_silence_is_temperror(place: str) -> None:
    """A failure of DNS anywhere on the way is temperror, never a verdict about the client."""
    zones: dict[str, Any] = {
        "x.test": record("include:i.test", "exists:e.x.test", "a:h.test", "mx", "-all") | {"MX": [[1, "mx.x.test"]]},
        "i.test": record("-all"),
        "mx.x.test": {"A": ["192.0.2.9"]},
    }
    zones[place] = "SERVFAIL"
    assert check(zones).word == "temperror"


def test_silence_behind_the_match_is_no_matter() -> None:
    """Of mail hosts that are asked for together, one that fails behind the one that matches does no harm."""
    zones = {"x.test": record("mx", "-all") | {"MX": [[2, "b.test"], [1, "a.test"]]}, "b.test": "SERVFAIL"}
    assert check(zones | {"a.test": {"A": ["192.0.2.1"]}}).word == "pass"


@pytest.mark.parametrize(
    ("texts", "word"),
    [
        (["v=spf1 +all", "v=spf1 -all"], "permerror"),
        (["v=spf1 +all", "V=SPF1 +all"], "permerror"),
        (["v=spf10 -all", "other", "v=spf1 +all"], "pass"),
        ([["v=spf1 +", "all"]], "pass"),
        (["v=spf1 +all \xff".encode("latin-1")], "permerror"),
        ([b"\xff\xfe", "v=spf1 +all"], "pass"),
        (["v=spf1 " + "ip4:198.51.100.7 " * 3000 + "+all"], "pass"),
    ],
)
def test_records_among_texts(texts: list[Any], word: str) -> None:
    """Exactly one text is the record; two are a mistake, and so are octets beyond ASCII in it."""
    assert check({"x.test": {"TXT": texts}}).word == word


def chain(length: int, term: str) -> dict[str, Any]:
    zones = {f"d{n}.test": record(f"{term}d{n + 1}.test") for n in range(length)}
    return zones | {f"d{length}.test": record("+all"), "x.test": record(f"{term}d0.test")}


@pytest.mark.parametrize("term", ["include:", "redirect="])
def test_ten_terms_that_ask(term: str) -> None:
    """Ten includes or redirects are looked at, with the eleventh the record is wrong (RFC 7208 §4.6.4)."""
    assert check(chain(9, term)).word == "pass"
    assert check(chain(10, term)).word == "permerror"
    assert check({"x.test": record(f"{term}x.test")}).word == "permerror"


def test_two_voids() -> None:
    """Two names without records are tolerated, a third is permerror; those of the client's network do not count."""
    zones: dict[str, Any] = {"x.test": record("a:a.test", "mx:b.test", "+all")}
    assert check(zones).word == "pass"
    zones["x.test"] = record("a:a.test", "mx:b.test", "exists:c.test", "+all")
    assert check(zones).word == "permerror"
    zones["1.2.0.192.in-addr.arpa"] = {"PTR": [f"n{n}.test" for n in range(10)]}
    zones["x.test"] = record("ptr", "exists:%{p}.test", "-all")
    assert check(zones).word == "fail"


def test_ten_mail_hosts() -> None:
    """Ten hosts of ``mx`` are looked at, eleven are a mistake."""
    hosts: dict[str, Any] = {f"h{n}.test": {"A": [f"192.0.2.{n}"]} for n in range(2, 12)}
    zones = hosts | {"x.test": record("mx", "?all") | {"MX": [[n, f"h{n}.test"] for n in range(2, 12)]}}
    assert check(zones).word == "neutral"
    assert check(zones, ip="192.0.2.11").word == "pass"
    zones["x.test"]["MX"].append([1, "h1.test"])
    assert check(zones, ip="192.0.2.11").word == "permerror"


def test_a_null_mx_is_no_host() -> None:
    """``MX 0 .`` matches nothing and is no mistake."""
    assert check({"x.test": record("mx/0", "-all") | {"MX": [[0, "."]]}}).word == "fail"


def test_the_dearest_check_is_bounded() -> None:
    """Ten ``mx`` of ten hosts for both identities end within the questions that a check has; MAIL FROM is complete."""
    zones: dict[str, Any] = {}
    for domain in ("x.test", "mail.x.test"):
        zones[domain] = record(*(f"mx:m{n}.{domain}" for n in range(9)), "exists:%{p}.x.test", "~all")
        for n in range(9):
            zones[f"m{n}.{domain}"] = {"MX": [[1, f"h{m}.m{n}.{domain}"] for m in range(10)]}
            zones |= {f"h{m}.m{n}.{domain}": {"A": ["192.0.2.9"]} for m in range(10)}
    zones["1.2.0.192.in-addr.arpa"] = {"PTR": [f"n{n}.test" for n in range(20)]}
    asked: list[Question] = []
    result = check(zones, asked=asked)
    assert (result.word, result.helo_identity.word) == ("softfail", "permerror")
    assert len(asked) <= MAX_QUESTIONS
    assert len(asked) == len(set(asked))


def explained(text: Any, *terms: str) -> SpfResult:
    zones = {
        "x.test": record("include:i.test", *(terms or ("-all", "exp=e.x.test"))),
        "i.test": record("-all exp=w.test"),
    }
    return check(zones | {"e.x.test": {"TXT": text}, "w.test": {"TXT": ["wrong"]}})


def test_explanations() -> None:
    """The domain's own words are used, its macros expanded, and marked as its words in the reply."""
    result = explained([["%{i} is not ", "%{d}'s, says %{r} at %{t}"]])
    assert result.explanation == f"192.0.2.1 is not x.test's, says mx.our.test at {int(NOW.timestamp())}"
    assert result.reply_text == f"SPF: x.test explains: {result.explanation}"
    assert result.to_json()[0]["explanation"] == result.explanation


@pytest.mark.parametrize(
    "text", [["one", "two"], ["%{x}"], ["a\r\nb"], ["\x1b[31m"], [b"\xc3\xa9"], [""], ["%"], ["%{d}" * 200], "SERVFAIL"]
)
def test_explanations_that_are_none(text: Any) -> None:
    """Several texts, mistakes, more than one line, nothing: ours is used instead (RFC 7208 §6.2)."""
    result = explained(text)
    assert result.identity.explanation is None
    assert result.explanation == "-all in the record of x.test matches 192.0.2.1"
    assert result.reply_text == "SPF: 192.0.2.1 may not send for x.test"


def test_long_explanations_are_cut() -> None:
    """The reply fits its line."""
    result = explained(["x" * 500])
    assert len(result.explanation) == 400
    assert len(f"550 5.7.23 {result.reply_text}\r\n") < 512


def test_only_a_fail_is_explained() -> None:
    """For other results the explanation is not even asked for."""
    asked: list[Question] = []
    check({"x.test": record("~all", "exp=e.x.test")}, asked=asked)
    assert Question("e.x.test", "TXT") not in asked


NAMES = st.sampled_from(
    ["x.test", "mail.x.test", "i.test", "h.test", "%{d}", "%{p}", "%{h}.x.test", "%{ir}.%{l1r-}.i.test"]
)
TERMS = st.one_of(
    st.builds(
        "{}{}{}".format,
        st.sampled_from(["", "-", "~", "?"]),
        st.sampled_from(["a", "mx", "ptr", "a/8", "mx//0", "all", "ip4:198.51.100.0/24", "ip6:::/1", "a:", "bad"]),
        st.just(""),
    ),
    st.builds("{}:{}".format, st.sampled_from(["include", "a", "mx", "exists", "-ptr"]), NAMES),
    st.builds("{}={}".format, st.sampled_from(["redirect", "exp", "x"]), NAMES),
)
TEXTS = st.lists(TERMS, max_size=6).map(lambda terms: " ".join(["v=spf1", *terms]))
ENTRIES = st.one_of(
    st.just("SERVFAIL"),
    st.just("NODATA"),
    st.fixed_dictionaries(
        {},
        optional={
            "TXT": st.lists(st.one_of(TEXTS, st.binary(max_size=20)), min_size=1, max_size=2),
            "A": st.lists(st.sampled_from(["192.0.2.1", "192.0.2.2"]), min_size=1, max_size=3),
            "AAAA": st.just(["2001:db8::1"]),
            "MX": st.lists(
                st.tuples(st.integers(0, 9), st.sampled_from([".", "h.test", "i.test"])), min_size=1, max_size=12
            ),
            "PTR": st.lists(st.sampled_from(["h.test", "mail.x.test", "x.test"]), min_size=1, max_size=12),
            "CNAME": st.sampled_from([["h.test"], ["x.test"]]),
        },
    ),
)
ZONES = st.dictionaries(
    st.sampled_from(["x.test", "mail.x.test", "i.test", "h.test", "1.2.0.192.in-addr.arpa"]), ENTRIES, max_size=5
)


@given(zones=ZONES, helo=st.one_of(st.just("mail.x.test"), st.text(max_size=30)), local_part=st.text(max_size=10))
def test_any_zones_come_to_an_end(zones: dict[str, Any], helo: str, local_part: str) -> None:
    """Whatever is published and said, a word comes out, within the questions allowed, none of them twice."""
    asked: list[Question] = []
    result = check(zones, helo=helo, sender=Address(local_part, "x.test"), asked=asked)
    assert result.word in ("none", "pass", "fail", "softfail", "neutral", "temperror", "permerror")
    assert len(asked) <= MAX_QUESTIONS
    assert len(asked) == len(set(asked))
    assert result.explanation.isascii()
    assert result.explanation.isprintable()
