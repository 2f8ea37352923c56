"""Entries as JSON, and back."""

from __future__ import annotations

import json
from datetime import date, timedelta

import pytest

from mtaq.model.control import Limits, OverrideHost, Pause, PoolMember, ReplyPattern, Scope, TlsLevel
from mtaq.state import control_entries as entries
from mtaq.state.dkim_keys import dkim_key, generate
from mtaq.state.rows import KINDS, from_json, kind_of_entry, to_json
from tests.support.control import START, about

ONE_OF_EACH = [
    entries.throttle(Scope(pool="bulk", site="*.example.net"), Limits(messages_per_minute=0.5, connections=0),
                     one_for_sources=True, about=about(for_s=60, automatic=True, reason="größer")),
    entries.pause(Scope(), sender_domain="", about=about()),
    entries.forced_error("example.com", code=550, text="no", about=about()),
    entries.rewrite_rule(position=3, envelope="", recipient="*@example.com", new_recipient=r"\1@example.org",
                         new_envelope="", properties={"ips": ["192.0.2.1"], "pool": None}, about=about()),
    entries.flood_pattern(position=1, reply=ReplyPattern(code="4", text="too many"), scope=Scope(),
                          limits=Limits(connections=1), limits_s=60, about=about()),
    entries.response_pattern(position=1, reply=ReplyPattern(status="4.7"), scope=Scope(), state="data",
                             action="retry", delay_s=60, add_tags=["x"], about=about()),
    entries.warm_up(Scope(source="192.0.2.1"), starts_on=date(2026, 3, 1), steps=(50, 0), about=about()),
    dkim_key("example.com", "s1", generate("ed25519-sha256"), starts_at=START + timedelta(days=1), about=about()),
    entries.pool("bulk", [PoolMember("192.0.2.1", 3)], about=about()),
    entries.dns_override("*.example.com", [OverrideHost("mx.example.net", 25), OverrideHost("192.0.2.1")],
                         about=about()),
    entries.tls_level(Scope(domain="*.example.com"), "dane-only", about=about()),
]  # fmt: skip


@pytest.mark.parametrize("entry", ONE_OF_EACH, ids=lambda entry: type(entry).__name__)
def test_back_and_forth(entry):
    """Every entry comes back as it was, through JSON as text."""
    assert from_json(type(entry), json.loads(json.dumps(to_json(entry)))) == entry


def test_every_kind_is_here():
    """The list above has one of each kind."""
    assert [kind_of_entry(entry) for entry in ONE_OF_EACH] == list(KINDS)


def test_what_an_older_or_newer_program_wrote():
    """What is missing is as by default, and what is not known is passed over."""
    written = {"id": "x", "scope": {}, "created_at": "2026-03-01 12:00:00", "colour": "red"}
    assert from_json(Pause, written) == Pause(id="x", scope=Scope(), created_at=START)


@pytest.mark.parametrize("written", [{}, {"id": "x", "scope": 5, "created_at": "2026-03-01 12:00:00"},
                                     {"id": "x", "scope": {}, "created_at": "soon"}])  # fmt: skip
def test_what_is_no_entry(written):
    """Anything else is a mistake that can be caught."""
    with pytest.raises(ValueError, match=r"Pause|Invalid|Scope"):
        from_json(Pause, written)


def test_a_word_that_is_not_known():
    """It is no entry, and not one that says nothing."""
    written = {"id": "x", "scope": {}, "created_at": "2026-03-01 12:00:00", "level": "required"}
    assert from_json(TlsLevel, written).level == "required"
    with pytest.raises(ValueError, match="'stronger' is none of"):
        from_json(TlsLevel, written | {"level": "stronger"})
