"""Names of clients that lead back to them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtaq.mailauth.iprev import IprevResult, check_iprev
from mtaq.model.dns import Question
from tests.support.zones import driven

REVERSE = "1.2.0.192.in-addr.arpa"
REVERSE6 = "1" + ".0" * 23 + ".8.b.d.0.1.0.0.2.ip6.arpa"


def check(zones: dict[str, Any], ip: str = "192.0.2.1", asked: list[Question] | None = None) -> IprevResult:
    result = driven(check_iprev(ip), zones, asked)
    assert isinstance(result, IprevResult)
    return result


@pytest.mark.parametrize(
    ("zones", "word", "name"),
    [
        ({REVERSE: {"PTR": ["a.test"]}, "a.test": {"A": ["192.0.2.9", "192.0.2.1"]}}, "pass", "a.test"),
        ({REVERSE: {"PTR": ["a.test", "b.test"]}, "b.test": {"A": ["192.0.2.1"]}}, "pass", "b.test"),
        ({REVERSE: {"PTR": ["a.test", "b.test"]}, "a.test": "SERVFAIL", "b.test": {"A": ["192.0.2.1"]}}, "pass",
         "b.test"),
        ({REVERSE: {"PTR": ["a.test"]}, "a.test": {"A": ["192.0.2.9"], "AAAA": ["::1"]}}, "fail", "a.test"),
        ({REVERSE: {"PTR": ["a.test"]}}, "fail", "a.test"),
        ({REVERSE: {"PTR": ["a.test"]}, "a.test": "SERVFAIL"}, "temperror", "a.test"),
        ({REVERSE: "SERVFAIL"}, "temperror", ""),
        ({REVERSE: "NODATA"}, "permerror", ""),
        ({}, "permerror", ""),
        ({REVERSE: {"PTR": ["a b.test", "a\r\n.test", "", "x" * 300, "(c).test"]}}, "permerror", ""),
    ],
)  # fmt: skip
def test_words(zones: dict[str, Any], word: str, name: str) -> None:
    """A name that leads back passes, others fail; none is permerror, silence temperror (RFC 8601 §2.7.3)."""
    result = check(zones)
    assert (result.word, result.name) == (word, name)


@pytest.mark.parametrize("ip", ["2001:db8::1", "2001:DB8:0::1%eth0"])
def test_ipv6(ip: str) -> None:
    """An IPv6 client is looked up under ip6.arpa, and its names for IPv6 addresses, however they are written."""
    result = check({REVERSE6: {"PTR": ["a.test"]}, "a.test": {"AAAA": ["2001:0db8::0001"]}}, ip)
    assert result.to_json() == [{"iprev": "pass", "policy.iprev": "2001:db8::1", "name": "a.test"}]
    assert result.verdicts()[0].properties == (("policy.iprev", "2001:db8::1"),)


def test_an_ipv4_mapped_client_is_an_ipv4_client() -> None:
    """It is looked up and told as IPv4."""
    result = check({REVERSE: {"PTR": ["a.test"]}, "a.test": {"A": ["192.0.2.1"]}}, "::ffff:192.0.2.1")
    assert (result.word, result.client_ip) == ("pass", "192.0.2.1")


def test_ten_names_are_looked_at() -> None:
    """The eleventh name has no say."""
    names = [f"n{n}.test" for n in range(11)]
    zones: dict[str, Any] = {REVERSE: {"PTR": names}, "n10.test": {"A": ["192.0.2.1"]}}
    asked: list[Question] = []
    assert check(zones, asked=asked).word == "fail"
    assert len(asked) == 11


def test_no_address_is_an_error_of_the_caller() -> None:
    """A client without an IP address cannot be checked."""
    with pytest.raises(ValueError, match="does not appear"):
        next(check_iprev("nobody"))


@given(names=st.lists(st.text(max_size=20), min_size=1, max_size=20))
def test_any_names(names: list[str]) -> None:
    """Whatever a network calls its hosts, what comes out is a host name."""
    result = check({REVERSE: {"PTR": names}})
    assert result.word in ("fail", "permerror")
    assert result.name.isascii()
    assert not set(result.name) & set(' \r\n()";\\')
