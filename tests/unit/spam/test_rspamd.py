"""What Rspamd is told, and what its answers mean."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtaq.mailauth.spam import SpamResult
from mtaq.spam.rspamd import headers_of, read_answer
from tests.unit.spam.fakes import ORIGIN

#: Recorded from Rspamd 3.4, shortened.
SAID: dict[str, Any] = {
    "is_skipped": False,
    "score": 6.5,
    "required_score": 15.0,
    "action": "add header",
    "symbols": {"WORD": {"name": "WORD", "score": 6.5, "metric_score": 6.5, "options": ["a"]}},
    "messages": {},
    "message-id": "undef",
    "time_real": 0.054358,
}


def answer(**changes: Any) -> SpamResult:
    return read_answer(json.dumps(SAID | changes).encode())


def test_what_it_would_only_mark() -> None:
    """Mail that is let through is ham, with the action beside it."""
    assert answer() == SpamResult("ham", "rspamd", 6.5, 15.0, ("WORD",), "add header")
    assert answer().to_json() == [
        {
            "spam": "ham",
            "score": 6.5,
            "threshold": 15.0,
            "rules": ["WORD"],
            "engine": "rspamd",
            "action": "add header",
        }
    ]


def test_what_it_would_refuse() -> None:
    """Its decision counts, whatever the score is; GTUBE is even "skipped"."""
    assert answer(action="reject", score=1).word == "spam"
    assert answer(action="reject", is_skipped=True).word == "spam"
    assert answer(action="no action", score=99).word == "ham"


def test_what_it_skipped() -> None:
    """It was told not to look, so nothing is known."""
    result = answer(is_skipped=True, action="no action")
    assert (result.word, result.score, result.reason) == ("none", None, "Rspamd was told to skip it")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b"[" * 200_000,
        b"\xff",
        *(
            json.dumps(SAID | change).encode()
            for change in (
                {"action": 1},
                {"action": "x" * 41},
                {"action": "a\r\nb"},
                {"action": None},
                {"score": "many"},
                {"score": None},
                {"score": 10**400},
                {"required_score": float("nan")},
                {"symbols": [1]},
            )
        ),
    ],
)
def test_what_is_no_answer(body: bytes) -> None:
    """Anything else is no judgement."""
    with pytest.raises(OSError, match="none of Rspamd"):
        read_answer(body)


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), lambda item: st.lists(item)), st.data())
def test_any_values(value: Any, data: st.DataObject) -> None:
    """Whatever stands in place of a value, it is a judgement or `OSError`."""
    key = data.draw(st.sampled_from(sorted(SAID)))
    with contextlib.suppress(OSError):
        answer(**{key: value})


def test_what_it_is_told() -> None:
    """The envelope, in the fields that Rspamd knows; a name that could end a line is left out."""
    assert headers_of(ORIGIN) == {
        "IP": "198.51.100.7",
        "Helo": "client.test",
        "From": "<ada@example.org>",
        "Rcpt": "<grace@example.com>, <joan@example.com>",
        "Queue-Id": "srv.id",
        "MTA-Name": "relay.test",
    }
    odd = replace(ORIGIN, client_ip=None, envelope=None, helo="a\r\nUser: root", user="ö\n")
    assert headers_of(odd).keys() == {"From", "Rcpt", "Queue-Id", "MTA-Name"}
    assert headers_of(replace(ORIGIN, helo="a\r\nb", user="é"))["User"] == "Ã©"  # its UTF-8 octets


def test_many_recipients() -> None:
    """Not more are named than fit."""
    many = replace(ORIGIN, recipients=("r@example.com",) * 10_000)
    assert 10_000 < len(headers_of(many)["Rcpt"]) <= 16 * 1024
