"""From what the operator's code said to a decision."""

from __future__ import annotations

from typing import Any

import pytest

from mtaq.hooks.answer import LONGEST_TEXT, harmless, judge
from mtaq.hooks.objects import Message
from mtaq.hooks.ports import HookFailure, Said
from mtaq.model.decision import Decision, accept, defer, drop, reject

SESSION: dict[str, Any] = {
    "client": {"ip": "192.0.2.1", "port": 4711, "helo": "client.example", "secure": False},
    "envelope": "a@example.org",
}
MESSAGE: dict[str, Any] = {
    "message-id": "relay1.06eaih8a000020g30g2gc1o814",
    "envelope": "a@example.org",
    "recipients": ["b@example.net", "c@example.net"],
    "received": "2026-03-01 12:00:00",
    "hostname": "relay.example.org",
    "connection": {"remote-ip": "192.0.2.1", "local-ip": "192.0.2.10"},
    "size": 21,
    "mime": "Subject: x\r\n\r\nhello\r\n",
}


def judged(value: Any, point: str = "sender", *, verdict: str = "accept") -> Decision:
    data = MESSAGE if point in ("message", "pipeline") else SESSION
    return judge(Said(verdict, value), point, data)


@pytest.mark.parametrize(
    ("value", "verdict", "expected"),
    [
        (None, "accept", accept()),
        (True, "accept", accept()),
        ({}, "accept", accept()),
        ({"action": "accept"}, "accept", accept()),
        ({"action": "accept", "code": 250, "text": "fine"}, "accept", accept()),
        (accept(), "accept", accept()),
        (False, "accept", reject()),
        (None, "reject", reject()),
        ({"text": "go away"}, "reject", reject("go away")),
        ({"action": "reject", "code": 554, "status": "5.7.9"}, "accept", reject(code=554, status="5.7.9")),
        ({"code": 550}, "accept", reject()),
        ({"code": 450}, "accept", Decision("defer", 450, "4.7.1", defer().text)),
        ({"action": "reject", "code": 452, "status": "4.2.2"}, "accept", defer(code=452, status="4.2.2")),
        ({"action": "defer"}, "accept", defer()),
        ({"action": "defer", "text": "later"}, "reject", defer("later")),
        (reject("no", code=450), "accept", defer("no", code=450)),
        (reject("no"), "accept", reject("no")),
        ({"action": "reject", "text": None, "code": None}, "accept", reject()),
    ],
)
def test_clear_answers(value, verdict, expected):
    """Each documented way to accept, reject and defer is understood."""
    assert judged(value, verdict=verdict) == expected


@pytest.mark.parametrize(
    ("value", "verdict"),
    [
        (1, "accept"),
        ("accept", "accept"),
        ([], "accept"),
        (0.5, "accept"),
        ({"acton": "reject"}, "accept"),
        ({"action": "accept", "reason": "x"}, "accept"),
        ({"action": "yes"}, "accept"),
        ({"action": ["accept"]}, "accept"),
        ({"action": "accept", "code": 550}, "accept"),
        ({"action": "accept"}, "reject"),
        (True, "reject"),
        ({"action": "accept"}, "drop"),
        ({"action": "reject", "code": 250}, "accept"),
        ({"action": "reject", "code": "550"}, "accept"),
        ({"action": "reject", "code": True}, "accept"),
        ({"action": "reject", "code": 550.0}, "accept"),
        ({"action": "reject", "code": 354}, "accept"),
        ({"action": "reject", "code": 600}, "accept"),
        ({"action": "reject", "code": 5500}, "accept"),
        ({"action": "reject", "code": 577}, "accept"),
        ({"action": "reject", "code": -550}, "accept"),
        ({"action": "defer", "code": 421}, "accept"),
        ({"action": "defer", "code": 550}, "accept"),
        ({"code": 300}, "accept"),
        ({"code": 200}, "accept"),
        ({"action": "reject", "status": "4.7.1"}, "accept"),
        ({"action": "reject", "status": "5.7"}, "accept"),
        ({"action": "reject", "status": "5.7.1\r\n250 ok"}, "accept"),
        ({"action": "reject", "status": "5.7.1\n"}, "accept"),
        ({"action": "reject", "status": "5.٧.1"}, "accept"),
        ({"action": "reject", "status": 571}, "accept"),
        ({"action": "reject", "text": 5}, "accept"),
        ({"action": "reject", "text": ["no"]}, "accept"),
        ({"action": "drop"}, "accept"),
        (None, "drop"),
        (drop(), "accept"),
        ({"message": {}}, "accept"),
        ({"changes": {}}, "accept"),
        (accept({"mime": "x"}), "accept"),
        (Decision("accept", 550), "accept"),
        (Decision("nonsense"), "accept"),
        (Decision("reject", 250, "2.0.0", "ok"), "accept"),
    ],
)
def test_unclear_answers(value, verdict):
    """What is not clear, or cannot be said at that point, is no answer: never an accept, never a rejection."""
    with pytest.raises(HookFailure):
        judged(value, verdict=verdict)


@pytest.mark.parametrize("point", ["message", "pipeline"])
def test_drop_at_the_message(point):
    """A message can be dropped, by status or by JSON."""
    assert judged(None, point, verdict="drop") == drop()
    assert judged({"action": "drop"}, point) == drop()
    assert judged({"action": "drop"}, point, verdict="drop") == drop()


@pytest.mark.parametrize(
    "value",
    [
        {"action": "drop", "changes": {"tags": ["x"]}},
        {"action": "reject", "message": {**MESSAGE, "tags": ["x"]}},
        {"action": "defer", "changes": {}},
        {"message": MESSAGE, "changes": {"tags": ["x"]}},
        {"message": []},
        {"message": "x"},
        {"changes": []},
    ],
)
def test_contradictions_at_the_message(value):
    """A refusal with a changed message, or two changed messages, are no answer."""
    with pytest.raises(HookFailure):
        judged(value, "message")


def test_a_pipeline_cannot_reject():
    """A step of a pipeline changes, drops or defers; a rejection there is no answer."""
    with pytest.raises(HookFailure):
        judged(None, "pipeline", verdict="reject")
    with pytest.raises(HookFailure):
        judged({"action": "reject"}, "pipeline")
    assert judged({"action": "defer", "text": "later"}, "pipeline") == defer("later")


@pytest.mark.parametrize(
    "value",
    [
        {**MESSAGE, "hook": "message", "tags": ["x"]},
        {"message": {**MESSAGE, "tags": ["x"]}},
        {"action": "accept", "message": {**MESSAGE, "tags": ["x"]}},
        {"changes": {"tags": ["x"]}},
        accept({**MESSAGE, "tags": ["x"]}),
        Message({**MESSAGE, "tags": ["x"]}),
    ],
)
def test_ways_to_change_a_message(value):
    """The JSON echoed with changes, in ``message``, or only what differs in ``changes``: all mean the same."""
    assert judged(value, "message") == accept({**MESSAGE, "tags": ["x"]})


@pytest.mark.parametrize("value", [{**MESSAGE, "hook": "message"}, {"message": MESSAGE}, {"changes": {}}])
def test_nothing_changed(value):
    """What comes back as it was given is no change."""
    assert judged(value, "message") == accept()


def test_what_was_given_echoed_at_the_other_points():
    """A script that prints what it read accepts."""
    assert judged({**SESSION, "hook": "sender"}) == accept()


def test_an_echo_of_another_point_is_no_answer():
    """The JSON of another point is not an answer to this one."""
    with pytest.raises(HookFailure):
        judged({**SESSION, "hook": "recipient"})


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("no", "no"),
        ("no\r\n250 2.0.0 ok", "no 250 2.0.0 ok"),
        ("no\n", "no"),
        ("\r\n", ""),
        ("a\x00b\x1b[31mc\x7f", "a?b?[31mc?"),
        ("a\u2028b\u0085c\vd", "a b c d"),
        ("Empfänger gelöscht", "Empf?nger gel?scht"),
        ("tab\there", "tab here"),
        ("x" * 5000, "x" * LONGEST_TEXT),
        ("\ud800", "?"),
    ],
)
def test_texts_are_made_harmless(text, line):
    """Whatever a hook says is sent as one line of printable ASCII that fits a reply (RFC 5321 §4.5.3.1.5)."""
    assert harmless(text) == line
    wire = judged({"action": "reject", "text": text}).reply.encode()
    assert wire.count(b"\r\n") == 1
    assert wire.endswith(b"\r\n")
    assert wire.isascii()
    assert len(wire) <= 512
