"""What an outage of the broker leaves in the log."""

from __future__ import annotations

import logging
import sys

import pytest
from aiormq.exceptions import AMQPConnectionError, ConnectionClosed

from mtaq.broker.rabbitmq.quiet import REPEAT_S, OutageFilter


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def said(clock: Clock) -> list[str]:
    """What comes through."""
    return []


@pytest.fixture
def logger(clock: Clock, said: list[str]) -> logging.Logger:
    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage() + (" with traceback" if record.exc_info else ""))

    logger = logging.Logger("library")
    logger.addFilter(OutageFilter(clock))
    logger.addHandler(Keep())
    return logger


def attempt(logger: logging.Logger, why: str = "refused") -> None:
    """Say what the libraries say at every attempt."""
    logger.error("error when creating transport: %r", ConnectionRefusedError(why))
    logger.warning('Connection attempt to "%s" failed: %s. Reconnecting after %r seconds.', "amqp://b", why, 1)


def test_an_outage_is_one_line(logger: logging.Logger, said: list[str], clock: Clock) -> None:
    """However long it takes; a reason that changes is a line of its own, and it is said again after a while."""
    for _ in range(60):
        attempt(logger)
        clock.now += 1
    assert said == ['Connection attempt to "amqp://b" failed: refused. Reconnecting after 1 seconds.']
    attempt(logger, "login refused")
    assert len(said) == 2
    clock.now += REPEAT_S
    attempt(logger)
    assert len(said) == 3


def test_a_lost_connection_is_one_line_without_traceback(logger: logging.Logger, said: list[str]) -> None:
    """Its cause is kept."""
    for _ in range(2):
        try:
            raise AMQPConnectionError("Server connection reset")
        except AMQPConnectionError:
            logger.warning("Cancelling cause reader exited abnormally", exc_info=sys.exc_info())
    assert said == ["connection lost: Server connection reset"]


def test_what_the_broker_said_is_told_once(logger: logging.Logger, said: list[str]) -> None:
    """Not a second time as an exception."""
    logger.error('Unexpected connection close from remote "%s", %s', "amqp://b", "CONNECTION_FORCED")
    logger.warning(
        "Cancelling cause reader exited abnormally", exc_info=(ConnectionClosed, ConnectionClosed(320, "x"), None)
    )
    assert said == ['Unexpected connection close from remote "amqp://b", CONNECTION_FORCED']


def test_surprises_pass(logger: logging.Logger, said: list[str]) -> None:
    """Each time, with their tracebacks."""
    for _ in range(2):
        logger.error("Unexpected frame %r", "x")
        try:
            raise KeyError("x")
        except KeyError:
            logger.exception("Unhandled return callback exception")
    assert said == ["Unexpected frame 'x'", "Unhandled return callback exception with traceback"] * 2


def test_the_memory_is_bounded(logger: logging.Logger, said: list[str]) -> None:
    """A thousand different reasons are a thousand lines, and forgotten."""
    for number in range(1000):
        attempt(logger, str(number))
    assert len(said) == 1000
    assert len(logger.filters[0]._told_at) <= 100  # type: ignore[union-attr]  # it is our filter
