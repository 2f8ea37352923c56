"""Users and passwords of the configuration."""

from __future__ import annotations

import pytest

from mtaq.smtpauth import Verdict
from mtaq.smtpauth.hardcoded import Hardcoded


@pytest.mark.parametrize(
    ("user", "password", "accepted"),
    [("ada", "secret", True), ("ada", "Secret", False), ("ada", "secret ", False), ("bob", "x,y:z", True),
     ("Ada", "secret", False), ("eve", "secret", False), ("eve", "", False)],
)  # fmt: skip
async def test_check(user, password, accepted):
    """Exactly the password of exactly that user is accepted."""
    form = Hardcoded({"ada": "secret", "bob": "x,y:z"})
    assert (await form.check(user, password, "192.0.2.1") is Verdict.ACCEPTED) is accepted


async def test_names_are_prepared_for_scram():
    """A client prepares its name before it sends it; what cannot be prepared has no keys and breaks nothing."""
    form = Hardcoded({"\u2168": "x", "bad": "\u0007", "\u0007": "x"})
    assert await form.scram_keys("IX") is not None
    assert await form.scram_keys("bad") is None
    assert await form.scram_keys("\u0007") is None


def test_nothing_is_shown():
    """Neither name nor representation holds a user or a password."""
    form = Hardcoded({"ada": "secret"})
    assert form.name == "hardcoded://"
    assert "secret" not in repr(form)
