"""Whose word about encryption counts: the message's, an operator's entry's, the smarthost's or the configuration's."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from mtaq.config import DeliverOptions, Security
from mtaq.deliver.attempt import demanded_security
from mtaq.deliver.ports import MailHost
from mtaq.deliver.route import Login, Route
from mtaq.model.codec import decode_outbox
from mtaq.model.control import DemandedSecurity, Scope
from mtaq.state.control_entries import tls_level
from tests.support.control import about
from tests.support.delivery import outbox_json


def demanded(
    level: DemandedSecurity | None,
    *,
    at_smarthost: Security | None = None,
    login: Login | None = None,
    default: Security = "opportunistic",
    **properties: Any,
) -> DemandedSecurity:
    """What a message with *properties* demands where an entry says *level*."""
    route = Route("mx.test", (MailHost(0, "mx.test"),), 25, login=login, security=at_smarthost)
    message = decode_outbox(orjson.dumps(outbox_json(**properties)))
    entry = None if level is None else tls_level(Scope(domain="example.com"), level, about=about())
    return demanded_security(message, route, DeliverOptions(delivery_security=default), entry)


@pytest.mark.parametrize("level", ["optional", "opportunistic", "required", "verified", "dane-only"])
def test_an_entry_stands_in_the_place_of_the_configuration(level):
    """Whatever that says."""
    assert demanded(level, default="opportunistic") == demanded(level, default="verified") == level
    assert demanded(None, default="verified") == "verified"


@pytest.mark.parametrize("level", ["optional", "verified", "dane-only"])
def test_the_word_of_a_message_goes_before_an_entry(level):
    """In either direction."""
    assert demanded(level, security="required") == "required"


@pytest.mark.parametrize(
    ("level", "expected"), [("optional", "required"), ("verified", "verified"), ("dane-only", "dane-only")]
)
def test_entries_make_the_demand_at_the_smarthost_stronger_only(level, expected):
    """They are about recipients whose hosts are others; and no message undercuts them there."""
    assert demanded(level, at_smarthost="required") == expected
    assert demanded(level, at_smarthost="required", security="optional") == expected


def test_a_message_decides_about_its_own_smarthost():
    """Nobody knows that host but who wrote the message; where he says nothing, entries do."""
    own = {"hostname": "mx.test", "security": "opportunistic"}
    assert demanded("verified", at_smarthost="opportunistic", smarthost=own) == "opportunistic"
    assert demanded("verified", smarthost={"hostname": "mx.test"}) == "verified"


def test_no_password_goes_in_clear():
    """An entry cannot allow it (RFC 4954 §4)."""
    login = Login("ada", "secret")
    assert demanded("optional", login=login) == "required"
    assert demanded("dane-only", login=login) == "dane-only"


@pytest.mark.parametrize(("level", "expected"), [("optional", "verified"), ("dane-only", "dane-only")])
def test_requiretls_is_verified_at_least(level, expected):
    """An entry cannot take from what the sender was promised (RFC 8689 §4.2.1)."""
    assert demanded(level, requiretls=True) == expected
