"""Fixtures that need something beside Python."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support import postgresql as postgres
from tests.support.rabbitmq import PACKAGE, RabbitNode, is_installed, running_node

# A slow machine is no fault of an example.
settings.register_profile("mtaq", deadline=None)
settings.load_profile("mtaq")


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[RabbitNode]:
    """A private RabbitMQ node that all tests share: each uses queues of its own. Never stop it or block it.

    Taken from ``python -m tests.support.rabbitmq exec`` when the tests run under it, else started here.
    """
    directory = os.environ.get("RABBITMQ_TEST_DIR")
    if directory is not None:
        yield RabbitNode.attach(Path(directory))
        return
    if not is_installed():
        pytest.skip(f"install {PACKAGE} (Debian package) to run this")
    with running_node() as node:
        yield node


@pytest.fixture(scope="session")
def postgresql() -> Iterator[postgres.PostgresServer]:
    """A private PostgreSQL server that tests share: each uses a database of its own. Never stop it."""
    if not postgres.is_installed():
        pytest.skip(f"install {postgres.PACKAGE} (Debian package) to run this")
    with postgres.running_server() as server:
        yield server
