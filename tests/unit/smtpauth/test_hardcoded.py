"""Users and passwords of the configuration."""

from __future__ import annotations

import asyncio

import pytest

from mtaq.smtp.scram import fake_keys
from mtaq.smtpauth import Verdict, hardcoded
from mtaq.smtpauth.hardcoded import Hardcoded

SECRET = b"shared with the session"


@pytest.mark.parametrize(
    ("user", "password", "accepted"),
    [("ada", "secret", True), ("ada", "Secret", False), ("ada", "secret ", False), ("bob", "x,y:z", True),
     ("Ada", "secret", False), ("eve", "secret", False), ("eve", "", False)],
)  # fmt: skip
async def test_check(user, password, accepted):
    """Exactly the password of exactly that user is accepted."""
    form = Hardcoded({"ada": "secret", "bob": "x,y:z"}, scram_secret=SECRET)
    assert (await form.check(user, password, "192.0.2.1") is Verdict.ACCEPTED) is accepted


async def test_names_are_prepared_for_scram():
    """A client prepares its name before it sends it; what cannot be prepared has no keys and breaks nothing."""
    form = Hardcoded({"\u2168": "x", "bad": "\u0007", "\u0007": "x"}, scram_secret=SECRET)
    assert await form.scram_keys("IX") is not None
    assert await form.scram_keys("bad") is None
    assert await form.scram_keys("\u0007") is None


async def test_salts_are_those_that_unknown_users_have():
    """A user who is added or removed keeps its salt, so salts do not tell who exists; nor does another process's."""
    form, other = (Hardcoded({"ada": password}, scram_secret=SECRET) for password in ("secret", "other"))
    keys, others = await form.scram_keys("ada"), await other.scram_keys("ada")
    fake = fake_keys("ada", secret=SECRET)
    assert keys is not None
    assert others is not None
    assert keys.salt == others.salt == fake.salt
    assert keys.iterations == fake.iterations
    assert len({keys.stored_key, others.stored_key, fake.stored_key}) == 3


async def test_an_unknown_user_is_found_out_no_sooner_than_a_known_one(monkeypatch):
    """The first question waits for the keys of all users, whoever it is about; later ones derive nothing."""
    derived = []

    def derive_keys(password, *, salt):
        derived.append(password)
        return fake_keys(password, secret=salt)

    monkeypatch.setattr(hardcoded, "derive_keys", derive_keys)
    form = Hardcoded({"ada": "secret", "bob": "x"}, scram_secret=SECRET)
    assert await form.scram_keys("eve") is None
    assert derived == ["secret", "x"]
    assert await form.scram_keys("bob") is not None
    assert len(derived) == 2


async def test_a_client_that_goes_away_spoils_nothing():
    """The keys are derived although the first who asked has gone."""
    form = Hardcoded({"ada": "secret"}, scram_secret=SECRET)
    asking = asyncio.create_task(form.scram_keys("ada"))
    await asyncio.sleep(0)
    asking.cancel()
    assert await form.scram_keys("ada") is not None


def test_nothing_is_shown():
    """Neither name nor representation holds a user or a password."""
    form = Hardcoded({"ada": "secret"}, scram_secret=SECRET)
    assert form.name == "hardcoded://"
    assert "secret" not in repr(form)
