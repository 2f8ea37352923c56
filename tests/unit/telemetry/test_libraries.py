"""What libraries log becomes events."""

from __future__ import annotations

import logging

import pytest

from mtaq.telemetry.libraries import LibraryHandler, adopt_libraries


class Events:
    """An event log that keeps what libraries said."""

    def __init__(self) -> None:
        self.said = []

    def library(self, **fields):
        self.said.append(fields)


@pytest.fixture
def events():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    kept = Events()
    root.handlers = []
    adopt_libraries(kept)
    yield kept
    root.handlers, root.level = handlers, level


def test_warnings_become_events_and_less_does_not(events):
    """A library's warning is an event with the library's name; what is less important is not."""
    logging.getLogger("aiormq").info("hello")
    logging.getLogger("aiormq").warning("lost %s", "it")
    assert events.said == [{"logger": "aiormq", "reason": "lost it"}]


def test_passwords_in_urls_are_masked(events):
    """A URL's password is masked in text, error and traceback."""
    try:
        raise ConnectionError("cannot reach amqp://u:hunter2@host/")
    except ConnectionError:
        logging.getLogger("aiormq").exception("lost amqp://u:hunter2@host/")
    assert "hunter2" not in str(events.said)
    assert "amqp://u:***@host/" in events.said[0]["reason"]
    assert "ConnectionError" in events.said[0]["error"]


def test_wrong_arguments_do_not_raise(events):
    """A library's own mistake in its log line is not ours."""
    record = logging.LogRecord("x", logging.WARNING, __file__, 1, "%d things", ("no number",), None)
    LibraryHandler(events).handle(record)
    assert events.said == [{"logger": "x", "reason": "%d things"}]
