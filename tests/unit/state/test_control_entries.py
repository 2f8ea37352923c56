"""What an operator may write into entries about delivery."""

from __future__ import annotations

from datetime import date

import pytest

from mtaq.model.control import Limits, OverrideHost, PoolMember, ReplyPattern, Scope
from mtaq.state import control_entries as entries
from mtaq.state import control_values as values
from tests.support.control import about

EVERYWHERE = Scope()
ANY_REPLY = ReplyPattern()
BLOCKED = ReplyPattern(text="blocked")


@pytest.mark.parametrize(
    ("parse", "text", "expected"),
    [
        (values.parse_scope_domain, "Example.COM", "example.com"),
        (values.parse_scope_domain, "*.Bücher.example", "*.bücher.example"),
        (values.parse_scope_domain, "xn--bcher-kva.example", "bücher.example"),
        (values.parse_site, "MX1.example.net,mx2.example.net", "mx1.example.net,mx2.example.net"),
        (values.parse_site, "*.example.net", "*.example.net"),
        (values.parse_sender_domain, "<>", ""),
        (values.parse_sender_domain, "Shop.example", "shop.example"),
        (values.parse_recipients, "Ann@Example.com", "ann@example.com"),
        (values.parse_recipients, "Example.com", "example.com"),
        (values.parse_recipients, "*@example.com", "example.com"),
        (values.parse_recipients, "*@*.example.com", "*.example.com"),
        (values.parse_recipients, "A*@example.com", "a*@example.com"),
        (values.parse_rate, "60", 60),
        (values.parse_rate, "2/s", 120),
        (values.parse_rate, "30/h", 0.5),
        (values.parse_rate, "0", 0),
        (values.parse_rate, "1440/d", 1),
        (values.parse_count, "5", 5),
        (values.parse_member, "192.0.2.1", PoolMember("192.0.2.1", 1)),
        (values.parse_member, "2001:DB8::1=3", PoolMember("2001:db8::1", 3)),
        (values.parse_override_host, "MX.example.net", OverrideHost("mx.example.net")),
        (values.parse_override_host, "mx.example.net:2525", OverrideHost("mx.example.net", 2525)),
        (values.parse_override_host, "192.0.2.1:25", OverrideHost("192.0.2.1", 25)),
        (values.parse_override_host, "[2001:db8::1]:25", OverrideHost("2001:db8::1", 25)),
        (values.parse_override_host, "[2001:db8::1]", OverrideHost("2001:db8::1")),
        (values.parse_override_host, "2001:db8::1", OverrideHost("2001:db8::1")),
        (values.parse_code, "421", "421"),
        (values.parse_code, "4xx", "4"),
        (values.parse_code, "45", "45"),
        (values.parse_status, "4.7", "4.7"),
        (values.parse_property, "pool=bulk", ("pool", "bulk")),
        (values.parse_property, 'ips=["192.0.2.1"]', ("ips", ["192.0.2.1"])),
        (values.parse_property, "maxattempts=3", ("maxattempts", 3)),
        (values.parse_property, "pool=", ("pool", None)),
    ],
)
def test_one_spelling(parse, text, expected):
    """What an operator writes is brought into the one spelling that is stored."""
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (values.parse_scope_domain, "a..b"),
        (values.parse_scope_domain, "ex*mple.com"),
        (values.parse_scope_domain, ""),
        (values.parse_site, "a b"),
        (values.parse_site, "a.*.b"),
        (values.parse_sender_domain, "*.example.com"),
        (values.parse_recipients, "ann@"),
        (values.parse_recipients, "an\nn@example.com"),
        (values.parse_word, "a b"),
        (values.parse_word, "-a"),
        (values.parse_tag, " "),
        (values.parse_rate, "-1"),
        (values.parse_rate, "nan"),
        (values.parse_rate, "5/y"),
        (values.parse_member, "192.0.2.1=0"),
        (values.parse_member, "mail.example.com"),
        (values.parse_override_host, "host:0"),
        (values.parse_override_host, "[2001:db8::1"),
        (values.parse_override_host, ""),
        (values.parse_code, "321"),
        (values.parse_code, "4211"),
        (values.parse_status, "3.7"),
        (values.parse_text, "("),
        (values.parse_text, "x" * 1000),
        (values.parse_property, "pool"),
        (values.parse_property, "mime=x"),
        (values.parse_property, "Pool=x"),
        (values.parse_property, "pool=" + "x" * 3000),
    ],
)
def test_what_is_refused(parse, text):
    """What cannot be meant is a mistake that says what is expected."""
    with pytest.raises(ValueError, match=r"expected|not|cannot|empty"):
        parse(text)


@pytest.mark.parametrize(
    "make",
    [
        lambda: entries.scope(source="192.0.2.1", pool="bulk"),
        lambda: entries.scope(domain="example.com", site="mx.example.com"),
        lambda: entries.throttle(EVERYWHERE, Limits(), about=about()),
        lambda: entries.throttle(EVERYWHERE, Limits(messages_burst=0), about=about()),
        lambda: entries.forced_error("example.com", code=250, text="", about=about()),
        lambda: entries.forced_error("example.com", code=450, status="5.0.0", text="", about=about()),
        lambda: entries.forced_error("example.com", code=450, text="a\nb", about=about()),
        lambda: entries.rewrite_rule(position=1, new_recipient="x", about=about()),
        lambda: entries.rewrite_rule(position=1, recipient="*@a.example", about=about()),
        lambda: entries.rewrite_rule(position=1, recipient="a.example", is_last=True, about=about()),
        lambda: entries.rewrite_rule(position=1, recipient="*@a.example", new_recipient=r"\2@b.example", about=about()),
        lambda: entries.rewrite_rule(position=1, envelope="*@a.example", new_recipient="x@b.example", about=about()),
        lambda: entries.rewrite_rule(position=1, kind="regex", recipient="(", is_last=True, about=about()),
        lambda: entries.rewrite_rule(position=1, recipient="*" * 400 + "@a.example", is_last=True, about=about()),
        lambda: entries.flood_pattern(position=1, reply=ANY_REPLY, scope=EVERYWHERE, pause_s=1, about=about()),
        lambda: entries.flood_pattern(position=1, reply=BLOCKED, scope=EVERYWHERE, about=about()),
        lambda: entries.flood_pattern(
            position=1, reply=BLOCKED, scope=EVERYWHERE, limits=Limits(connections=1), about=about()
        ),
        lambda: entries.flood_pattern(
            position=1, reply=BLOCKED, scope=EVERYWHERE, pause_s=1, limits_s=1, about=about()
        ),
        lambda: entries.response_pattern(position=1, reply=ANY_REPLY, scope=EVERYWHERE, action="fail", about=about()),
        lambda: entries.response_pattern(position=1, reply=BLOCKED, scope=EVERYWHERE, about=about()),
        lambda: entries.response_pattern(
            position=1, reply=BLOCKED, scope=EVERYWHERE, action="fail", delay_s=5, about=about()
        ),
        lambda: entries.warm_up(EVERYWHERE, starts_on=date(2026, 3, 1), steps=(5,), about=about()),
        lambda: entries.warm_up(Scope(pool="a"), starts_on=date(2026, 3, 1), steps=(), about=about()),
        lambda: entries.warm_up(Scope(pool="a"), starts_on=date(2026, 3, 1), steps=(0, 5), about=about()),
        lambda: entries.growth(50, 1.0, 100),
        lambda: entries.growth(50, 1.0001, 10**9),
        lambda: entries.growth(0, 2, 100),
        lambda: entries.pool("a", [], about=about()),
        lambda: entries.pool("a", [PoolMember("192.0.2.1"), PoolMember("192.0.2.1", 2)], about=about()),
        lambda: entries.dns_override("example.com", [], about=about()),
        lambda: entries.tls_level(Scope(source="192.0.2.1"), "required", about=about()),
        lambda: entries.tls_level(Scope(pool="bulk", domain="example.com"), "required", about=about()),
    ],
)
def test_what_makes_no_sense_together(make):
    """Each part may be right and the whole is not."""
    with pytest.raises(ValueError, match=r"\w"):
        make()


def test_growth():
    """Growth ends with the number that was to be reached."""
    assert entries.growth(50, 2, 300) == (50, 100, 200, 300)
    assert entries.growth(50, 1.5, 50) == (50,)


def test_names():
    """What is about the same has the same name, what mtaq added by itself another than what an operator added."""
    limits = Limits(connections=1)
    one = entries.throttle(Scope(domain="example.com"), limits, about=about())
    same = entries.throttle(Scope(domain="example.com"), Limits(connections=9), about=about(reason="more"))
    other = entries.throttle(Scope(site="example.com"), limits, about=about())
    automatic = entries.throttle(Scope(domain="example.com"), limits, about=about(automatic=True, for_s=5))
    assert one.id == same.id
    assert len({one.id, other.id, automatic.id}) == 3


def test_the_status_of_a_forced_error():
    """Without an enhanced status code it is that of the class."""
    assert entries.forced_error("example.com", code=452, text="later", about=about()).status == "4.0.0"
