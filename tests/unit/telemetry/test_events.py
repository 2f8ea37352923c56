"""The event log: what a line holds, and that it never gets in the way."""

from __future__ import annotations

import inspect
from datetime import UTC, datetime

import pytest

from mtaq.telemetry.events import EventLog
from mtaq.telemetry.vocabulary import EVENTS, FIELD_MEANINGS, LEVEL_NAMES, LEVELS, Fields

AT = datetime(2026, 11, 21, 9, 30, tzinfo=UTC)


class Kept:
    """A sink that keeps records."""

    def __init__(self) -> None:
        self.records = []

    def write(self, level, record):
        self.records.append((level, record))


@pytest.fixture
def sink():
    return Kept()


@pytest.fixture
def events(sink):
    return EventLog(sink, node="relay1", clock=lambda: AT, level="debug")


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.name)
def test_every_event_has_a_method(events, sink, event):
    """Each event of the vocabulary is written by the method of its name, at its level."""
    getattr(events, event.name.replace(".", "_"))(reason="because")
    level, record = sink.records[0]
    assert level == event.level
    expected = {"at": AT, "event": event.name, "level": LEVEL_NAMES[level], "node": "relay1", "reason": "because"}
    assert record == expected


def test_every_method_is_an_event():
    """No line is written that the vocabulary does not know."""
    methods = {name for name, _ in inspect.getmembers(EventLog, inspect.isfunction) if not name.startswith("_")}
    assert methods - {"set_level"} == {event.name.replace(".", "_") for event in EVENTS}


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.name)
def test_fields_of_an_event_exist_and_are_explained(event):
    """What an event is said to carry is a known field with a meaning."""
    for name in event.fields.split():
        assert name in Fields.__annotations__
        assert name in FIELD_MEANINGS


def test_no_meaning_without_use():
    """The documents explain no field that no event carries."""
    assert set(FIELD_MEANINGS) == {name for event in EVENTS for name in event.fields.split()}


def test_none_is_not_written_and_empty_is(events, sink):
    """What is not known is left out; an empty value, like the null reverse-path, stays."""
    events.message_accepted(reverse_path="", helo=None)
    record = sink.records[0][1]
    assert record["reverse_path"] == ""
    assert "helo" not in record


@pytest.mark.parametrize("lowest", LEVELS)
def test_level_drops_what_is_less_important(events, sink, lowest):
    """Lines below the level are not written; the level can be changed while running."""
    events.set_level(lowest)
    for event in EVENTS:
        getattr(events, event.name.replace(".", "_"))()
    assert {record["event"] for _, record in sink.records} == {
        event.name for event in EVENTS if event.level >= LEVELS[lowest]
    }


def test_bug_tells_where_it_happened(events, sink):
    """A bug's line has the exception and its traceback, of bounded length."""

    def fail(depth):
        if depth == 0:
            raise RuntimeError("no such luck " + "x" * 20_000)
        fail(depth - 1)

    with pytest.raises(RuntimeError) as caught:
        fail(3)
    events.bug(caught.value, session_id="s1")
    record = sink.records[0][1]
    assert record["error"].startswith("RuntimeError: no such luck")
    assert record["session_id"] == "s1"
    assert len(record["traceback"]) <= 8000
    assert len(record["error"]) <= 8000
