"""How checks and spam filters are named."""

from __future__ import annotations

import pytest

from mtaq.config import load
from mtaq.config.message_checks import auth_results, checks, filter_address, rejects
from mtaq.config.render import render_effective


def test_lists_of_words() -> None:
    """Words in any order and case, each once; the order is that of `checks[]`."""
    assert checks("spam, SPF ,dmarc,spf") == ("spf", "dmarc", "spam")
    assert checks("") == ()
    assert rejects("spam,spf") == ("spf", "spam")
    assert auth_results("nonlocal,local") == ("local", "nonlocal")


@pytest.mark.parametrize(("parser", "text"), [(checks, "rbl"), (rejects, "dkim"), (auth_results, "all")])
def test_other_words(parser, text):
    """They are mistakes."""
    with pytest.raises(ValueError, match="is not known here; expected"):
        parser(text)


@pytest.mark.parametrize("text", ["http://localhost:11333", "https://[::1]:443/rspamd", "http://user:pw@host"])
def test_addresses_of_filters(text: str) -> None:
    """A slash at the end does not matter."""
    assert filter_address(text) == text
    assert filter_address(text + "/") == text


@pytest.mark.parametrize(
    "text", ["localhost:11333", "ftp://host", "http://", "http://h:0", "http://h:x", "http://h/?a", "http://h/#a",
             "http://h o", "http://hé", "http://h\t", "http://[::1"]
)  # fmt: skip
def test_what_is_no_address(text: str) -> None:
    """It is a mistake, and never repeated."""
    with pytest.raises(ValueError, match=r"^not the address of a web server; expected http\(s\)://host:port$"):
        filter_address(text)


def test_its_password_is_not_shown() -> None:
    """What stands before the host is masked."""
    settings = load(path="/dev/null", environ={}, overrides=["--rspamd-address=http://user:secret@host:11333"])
    shown = render_effective(settings)
    assert "secret" not in shown
    assert "http://user:***@host:11333" in shown
