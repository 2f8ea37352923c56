"""Which flood or response pattern a reply matches."""

from __future__ import annotations

import pytest

from mtaq.model.control import ReplyPattern, Scope
from mtaq.state.control_entries import flood_pattern, response_pattern
from tests.support.control import about, control, place

EVERYWHERE = Scope()


def flood(position: int = 1, scope: Scope = EVERYWHERE, **reply: str):
    return flood_pattern(position=position, reply=ReplyPattern(**reply), scope=scope, pause_s=60, about=about())


def matches(pattern: ReplyPattern, code: int | None, status: str | None, text: str) -> bool:
    live = control(flood_pattern(position=1, reply=pattern, scope=Scope(), pause_s=60, about=about()))
    return live.flood_pattern_for(code=code, status=status, text=text, **place()) is not None


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (ReplyPattern(code="421"), True),
        (ReplyPattern(code="4"), True),
        (ReplyPattern(code="450"), False),
        (ReplyPattern(status="4.7"), True),
        (ReplyPattern(status="4.7.0"), True),
        (ReplyPattern(status="4.7.00"), False),
        (ReplyPattern(status="4.70"), False),
        (ReplyPattern(text="too MANY connections"), True),
        (ReplyPattern(text="^too"), True),
        (ReplyPattern(text="^many"), False),
        (ReplyPattern(code="4", status="4.7", text="connections$"), True),
        (ReplyPattern(code="5", text="connections"), False),
    ],
)
def test_replies(pattern, expected):
    """Codes are compared from their beginning, the text may match anywhere; all that is said must hold."""
    assert matches(pattern, 421, "4.7.0", "Too many connections") is expected


def test_failures_without_a_reply():
    """A time-out has no code and no status, but a text."""
    assert matches(ReplyPattern(text="no answer"), None, None, "no answer in 30 s")
    assert not matches(ReplyPattern(code="4"), None, None, "no answer in 30 s")
    assert not matches(ReplyPattern(status="4"), None, None, "no answer in 30 s")


def test_only_the_beginning_is_read():
    """A peer cannot make us look at much."""
    assert matches(ReplyPattern(text="x"), 421, None, "x" + "é" * 100_000)
    assert not matches(ReplyPattern(text="x"), 421, None, "é" * 100_000 + "x")


def test_the_first_by_position():
    """Of several that match the one with the lowest position is taken, whatever its scope."""
    wide, narrow = flood(1, code="421"), flood(2, Scope(domain="example.com"), code="4")
    asked = {"status": None, "text": "", **place()}
    assert control(narrow, wide).flood_pattern_for(code=421, **asked) == wide
    assert control(narrow, wide).flood_pattern_for(code=450, **asked) == narrow
    assert control(narrow, wide).flood_pattern_for(code=450, **(asked | {"domain": "example.org"})) is None


def test_response_patterns():
    """State, tag and scope are conditions as well."""
    pattern = response_pattern(
        position=1,
        reply=ReplyPattern(text="blocked"),
        scope=Scope(pool="bulk"),
        state="rcptto",
        tag="spring",
        action="retry",
        delay_s=600,
        about=about(),
    )
    good = place(pools=("bulk",)) | {
        "code": 550, "status": None, "text": "blocked", "state": "rcptto", "tags": ("spring",),
    }  # fmt: skip
    live = control(pattern)
    assert live.response_for(**good) == pattern
    for other in ({"state": "data"}, {"tags": ()}, {"pools": ()}, {"text": "fine"}):
        assert live.response_for(**(good | other)) is None
