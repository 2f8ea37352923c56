"""What the verbs about queues share: a connection to the broker, bounded, and what its failures end with."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from mtaq.broker.port import Broker
from mtaq.cli import exits
from mtaq.cli.loop import run_in_loop
from mtaq.cli.run import become_user, make_folders
from mtaq.cli.settings import load_or_exit
from mtaq.config import Settings
from mtaq.model.errors import BrokerError, BrokerUnavailable, ConfigError

T = TypeVar("T")

CONNECT_TIMEOUT_S = 15.0


def on_queues(args: argparse.Namespace, work: Callable[[Settings, Broker], Awaitable[T]]) -> T:
    """Do *work* on the broker of the settings; a failure ends the program with its status."""
    settings = load_or_exit(args)
    try:
        as_user(settings)
        return run_in_loop(_do(settings, work))
    except ConfigError as error:
        print(f"mtaq: {error}", file=sys.stderr)
        sys.exit(exits.CONFIG)
    except BrokerError as error:
        print(f"mtaq: {error}", file=sys.stderr)
        sys.exit(exits.UNAVAILABLE if isinstance(error, BrokerUnavailable) else exits.CANNOT_CREATE)
    except BrokenPipeError:  # whoever reads what is printed has seen enough
        raise
    except OSError as error:
        print(f"mtaq: {exits.explain(error)}", file=sys.stderr)
        sys.exit(exits.of_os_error(error))


def as_user(settings: Settings) -> None:
    """Become the instance's user, so that no file comes to be that it cannot write."""
    if os.geteuid() == 0:
        make_folders(settings)
        become_user(settings.process.user)


async def _do(settings: Settings, work: Callable[[Settings, Broker], Awaitable[T]]) -> T:
    async with connection(settings) as broker:
        return await work(settings, broker)


@contextlib.asynccontextmanager
async def connection(settings: Settings) -> AsyncIterator[Broker]:
    """Connect to the broker while the block lasts.

    Raises:
        BrokerUnavailable: It cannot be reached.
    """
    from mtaq.assembly.queues import broker_for  # heavy: verbs that only print their usage do without

    logging.getLogger().addHandler(logging.NullHandler())  # what matters of the library's words is in our errors
    broker = broker_for(settings, "command line")
    try:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await broker.start()
        except TimeoutError:
            raise BrokerUnavailable(f"the broker did not answer within {CONNECT_TIMEOUT_S:g} s") from None
        yield broker
    finally:
        await broker.close()
