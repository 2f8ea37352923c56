"""A record becomes one line, whatever peers put into it."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtaq.telemetry.format import console_line, json_line

AT = datetime(2026, 11, 21, 9, 30, 1, 5000, tzinfo=UTC)
ANYTHING = st.text() | st.text(st.characters(categories=["Cc", "Cf", "Cs", "Zl", "Zp"])) | st.integers() | st.none()


def test_json_line():
    """A line is one JSON object with times in UTC."""
    record = {"at": AT, "event": "bug", "size_bytes": 5, "next_attempt_at": AT}
    assert json_line(record) == (
        b'{"at":"2026-11-21T09:30:01.005000Z","event":"bug","size_bytes":5,'
        b'"next_attempt_at":"2026-11-21T09:30:01.005000Z"}\n'
    )


def test_console_line():
    """A line for reading has time, level, event and the fields; blanks are quoted."""
    record = {"at": AT, "event": "message.accepted", "level": "info", "node": "n", "helo": "a b", "reverse_path": ""}
    assert console_line(record) == b'09:30:01 info    message.accepted   helo="a b" reverse_path=""\n'


@pytest.mark.parametrize("line", [json_line, console_line])
@given(value=ANYTHING)
def test_no_value_ends_the_line_or_steers_the_terminal(line, value):
    """Whatever a value holds, the line stays one line of visible text."""
    made = line({"at": AT, "event": "bug", "level": "error", "node": "n", "reply_text": value})
    text = made.decode()
    assert text.endswith("\n")
    assert not set(text[:-1].encode()) & set(range(32))
    if line is console_line:
        assert text[:-1].isprintable()


@given(value=st.text(st.characters(exclude_categories=["Cs"])))
def test_json_gives_back_what_was_put_in(value):
    """A text comes back from the JSON as it was."""
    assert json.loads(json_line({"reply_text": value})) == {"reply_text": value}


@pytest.mark.parametrize("value", ["\udc80", 2**70, {1, 2}, b"\xff", object()])
def test_values_that_json_does_not_know_still_give_a_line(value):
    """A surrogate, a huge number or an object never makes a line fail."""
    assert json.loads(json_line({"event": "bug", "error": value}))["event"] == "bug"
    assert b"bug" in console_line({"at": AT, "event": "bug", "error": value})
