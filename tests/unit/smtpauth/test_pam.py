"""System accounts, as far as no account is needed."""

from __future__ import annotations

import pytest

from mtaq.smtpauth import Verdict, pam
from mtaq.smtpauth.pam import SystemUsers

IP = "192.0.2.1"


@pytest.fixture
async def listed():
    """Two names and a pattern."""
    form = SystemUsers(("root", "mailerq", "client*"))
    yield form
    await form.close()


@pytest.mark.parametrize(
    ("user", "asked"),
    [("root", True), ("mailerq", True), ("client", True), ("client-7", True), ("Client-7", False), ("xclient", False),
     ("mailerq2", False), ("toor", False), ("*", False)],
)  # fmt: skip
async def test_who_is_asked_for(listed, monkeypatch, user, asked):
    """PAM is asked for accounts that are listed or match, and refuses the others."""
    seen = []
    monkeypatch.setattr(pam, "authenticate", lambda *login: seen.append(login) or 0)
    verdict = await listed.check(user, "secret", IP)
    assert verdict is (Verdict.ACCEPTED if asked else Verdict.REFUSED)
    assert seen == ([(user, "secret", IP)] if asked else [])


@pytest.mark.parametrize("status", [6, 7, 10, 11, 12, 13, 27])
async def test_a_no(listed, monkeypatch, status):
    """A wrong password, an unknown or expired account, or a password that must be changed is a no."""
    monkeypatch.setattr(pam, "authenticate", lambda *_: status)
    assert await listed.check("root", "secret", IP) is Verdict.REFUSED


@pytest.mark.parametrize("status", [1, 4, 8, 9, 19, 26, 28])
async def test_nobodys_answer(listed, monkeypatch, status):
    """Broken modules and directories that do not answer are nobody's no."""
    monkeypatch.setattr(pam, "authenticate", lambda *_: status)
    with pytest.raises(OSError, match="PAM: ") as caught:
        await listed.check("root", "secret", IP)
    assert "secret" not in str(caught.value)
