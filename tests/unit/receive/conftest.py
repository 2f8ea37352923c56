"""The event loops that these tests run on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop

#: What touches sockets that no transport has: there the two loops differ most.
ON_BOTH_LOOPS = {"test_listener.py", "test_proxy.py"}


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Return both loops that mtaq runs on, or Python's own where it makes no difference."""
    both = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    return both if item.path.name in ON_BOTH_LOOPS else {"asyncio": asyncio.new_event_loop}
