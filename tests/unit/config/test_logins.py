"""The forms of ``smtp-auth``: what they mean, what is wrong, what may be printed."""

from __future__ import annotations

import pytest

from mtaq.config.logins import (
    FileLogin,
    HardcodedLogin,
    HttpLogin,
    LdapLogin,
    ProgramLogin,
    RadiusLogin,
    SystemLogin,
    logins,
    mask_logins,
)

SECRETS = "hardcoded://ada:hunter2,bob:hun%40ter2 radius://mtaq:hunter2@r.example https://h.example/x?key=hunter2"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("hardcoded://ada:secret", HardcodedLogin((("ada", "secret"),))),
        ("hardcoded://ada@a.test:x,b%2Cc:%3A%40%20%25", HardcodedLogin((("ada@a.test", "x"), ("b,c", ":@ %")))),
        ("hardcoded://j%C3%BCrgen:p+q", HardcodedLogin((("jürgen", "p+q"),))),
        ("ldap://dir.example/dc=x", LdapLogin("dir.example", 389, False, "dc=x")),
        ("ldaps://[2001:db8::1]:1636/ou=a%20b,dc=x", LdapLogin("2001:db8::1", 1636, True, "ou=a b,dc=x")),
        ("radius://mtaq:s%40c%2Fd@r.example", RadiusLogin("mtaq", "s@c/d", "r.example", 1812)),
        ("radius://mtaq:s@192.0.2.1:1645", RadiusLogin("mtaq", "s", "192.0.2.1", 1645)),
        ("users://root,mailerq,client*", SystemLogin(("root", "mailerq", "client*"))),
        ("http://h.example/login?x=1", HttpLogin("http://h.example/login?x=1")),
        ("https://h.example", HttpLogin("https://h.example")),
        ("file:///etc/mtaq/users", FileLogin("/etc/mtaq/users")),
        ("file:///etc/a%20b", FileLogin("/etc/a b")),
        ("exec:///usr/local/bin/login", ProgramLogin("/usr/local/bin/login")),
    ],
)  # fmt: skip
def test_a_form(text, wanted):
    """Each form is parsed into a value, its escapes decoded."""
    assert logins(text) == (wanted,)


def test_several_forms_keep_their_order():
    """Forms are separated by blanks and asked in the order written; nothing is nobody."""
    assert logins("file:///a  exec:///b file:///c") == (FileLogin("/a"), ProgramLogin("/b"), FileLogin("/c"))
    assert logins("") == ()


@pytest.mark.parametrize(
    "text",
    [
        "hardcoded://", "hardcoded://ada", "hardcoded://ada:", "hardcoded://:x", "hardcoded://a:x,", "hardcoded://a:b:c",
        "hardcoded://ada:x,ada:y", "hardcoded://ada:%zz", "hardcoded://ada:%00", "hardcoded://ada:%0a",
        "hardcoded://ada:%ff", "ldap://h", "ldap://h/", "ldap://h/people", "ldap:///dc=x", "ldap://u:p@h/dc=x",
        "ldap://h:0/dc=x", "ldap://h:99999/dc=x", "ldap://h:x/dc=x", "ldap://[::1/dc=x", "ldap://h/dc=x?uid",
        "radius://h", "radius://mtaq@h", "radius://:s@h", "radius://mtaq:@h", "radius://mtaq:s@", "radius://mtaq:s@h/x",
        "radius://mtaq:a@b@h", "radius://mtaq:a/b@h", "users://", "users://,", "http://", "http:///x",
        "http://u:p@h/", "http://h/#x", "http://hé/", "file://etc/users", "file:///", "file:///x/", "exec://x",
        "ftp://h/", "/etc/mtaq/users", "hardcoded", "FILE:///x", "file:///x,file:///y x",
    ],
)  # fmt: skip
def test_what_is_wrong(text):
    """What is no form is refused, with what is expected."""
    with pytest.raises(ValueError, match="expected"):
        logins(text)


@pytest.mark.parametrize(
    "text",
    ["hunter2", "hardcoded://a:hunter2,", "hardcoded://a:hunter2%zz", "radius://x:hunter2/@h", "http://a:hunter2@h/",
     "ldap://a:hunter2@h/dc=x", "ldap://h:hunter2/dc=x", "hardcoded://a:b:hunter2", "x://hunter2"],
)  # fmt: skip
def test_mistakes_do_not_repeat_the_text(text):
    """What stands on a wrong line may be a password, so the mistake does not quote it."""
    with pytest.raises(ValueError, match="expected") as caught:
        logins(text)
    assert "hunter2" not in str(caught.value)


def test_the_wrong_one_is_named():
    """Of several forms the number of the wrong one is told, and no secret of any."""
    with pytest.raises(ValueError, match="form 2 of 2") as caught:
        logins("hardcoded://ada:hunter2 radius://mtaq:hunter2")
    assert "hunter2" not in str(caught.value)


def test_secrets_are_masked():
    """What is printed keeps names and places, and no password, secret or query."""
    assert mask_logins(SECRETS) == "hardcoded://ada:***,bob:*** radius://mtaq:***@r.example https://h.example/x?***"
    assert mask_logins("ldap://d.example:389/dc=x file:///etc/x") == "ldap://d.example:389/dc=x file:///etc/x"


@pytest.mark.parametrize("text", ["hunter2", "http://ada:hunter2@h/", "radius://x:a@hunter2@h", "x://hunter2"])
def test_what_has_no_form_is_masked(text):
    """A text that is no form shows nothing that might be a secret."""
    assert "hunter2" not in mask_logins(text)


def test_values_do_not_show_secrets():
    """The representation of a value, as an exception or a debugger prints it, has no secret."""
    assert "hunter2" not in repr(logins(SECRETS.rpartition(" ")[0]))
