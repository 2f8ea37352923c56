"""What the verbs of the runtime state share: a bounded way to the database, and how entries are printed.

A verb writes to the database itself and then hints to the running processes, when the broker can be reached at once;
they find the change by looking as well, so a hint that fails is not worth a word. Root becomes ``user`` first, so that
no file comes to be that the instance cannot write.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import NoReturn, TypeVar

from mtaq.cli import exits
from mtaq.cli.parser import Subparsers
from mtaq.cli.run import become_user, make_folders
from mtaq.cli.settings import add_settings_arguments, load_or_exit
from mtaq.config import Settings
from mtaq.model.errors import BrokerError, ConfigError
from mtaq.model.times import format_time
from mtaq.state import Database, StateUnavailable
from mtaq.state.aside import aside
from mtaq.state.control_store import TooManyEntries

T = TypeVar("T")

_DATABASE_TIMEOUT_S = 60.0
_HINT_TIMEOUT_S = 1.5

Row = Mapping[str, str | bool | datetime | None]
"""One entry as it is printed: property → value."""

Verb = Callable[[argparse.Namespace], int]


def add_verb(verbs: Subparsers[argparse.ArgumentParser], name: str, func: Verb, words: str) -> argparse.ArgumentParser:
    """Add a verb that takes settings and ``--json``; *words* say what it does."""
    parser = verbs.add_parser(name, help=words, description=words)
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_settings_arguments(parser)
    parser.set_defaults(func=func)
    return parser


def argument(parse: Callable[[str], T]) -> Callable[[str], T]:
    """Let a parser of values check an argument; its words become the usage error."""

    def check(text: str) -> T:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return check


def utc_now() -> datetime:
    """The time of day that entries are made at."""
    return datetime.now(UTC)


def ask(args: argparse.Namespace, work: Callable[[Database], T], *, timeout_s: float = _DATABASE_TIMEOUT_S) -> T:
    """Do *work*, which only reads, on the database of the settings; a failure ends the program with its status."""
    return _run(load_or_exit(args), work, hint=False, timeout_s=timeout_s)


def read_state(settings: Settings, work: Callable[[Database], T]) -> T:
    """Do *work*, which only reads, for a verb that has its settings already; otherwise as ``ask``."""
    return _run(settings, work, hint=False)


def change(args: argparse.Namespace, work: Callable[[Database], T], *, timeout_s: float = _DATABASE_TIMEOUT_S) -> T:
    """Do *work*, which changes something, and hint to the running processes; otherwise as ``ask``."""
    return _run(load_or_exit(args), work, hint=True, timeout_s=timeout_s)


def _run(settings: Settings, work: Callable[[Database], T], *, hint: bool, timeout_s: float = _DATABASE_TIMEOUT_S) -> T:
    try:
        if os.geteuid() == 0:
            if settings.state.database_address is None:
                make_folders(settings)
            become_user(settings.process.user)
        return asyncio.run(_do(settings, work, hint=hint, timeout_s=timeout_s))
    except ConfigError as error:
        denied = isinstance(error.__cause__, PermissionError)
        _fail(error, exits.NO_PERMISSION if denied else exits.CONFIG)
    except StateUnavailable as error:
        _fail(error, exits.UNAVAILABLE)
    except TooManyEntries as error:
        _fail(error, exits.CANNOT_CREATE)
    except TimeoutError:
        _fail(f"the database did not answer within {timeout_s:g} s", exits.UNAVAILABLE)
    except BrokenPipeError:  # whoever reads what is printed has seen enough
        raise
    except OSError as error:
        _fail(exits.explain(error), exits.of_os_error(error))


def _fail(problem: object, status: int) -> NoReturn:
    print(f"mtaq: {problem}", file=sys.stderr)
    sys.exit(status)


async def _do(settings: Settings, work: Callable[[Database], T], *, hint: bool, timeout_s: float) -> T:
    def at_once() -> T:
        database = Database(settings.database_address)
        database.open()
        with contextlib.closing(database):
            return work(database)

    result = await aside(at_once, timeout_s=timeout_s)
    if hint and settings.state.cluster_exchange is not None:
        await _hint(settings, settings.state.cluster_exchange)
    return result


async def _hint(settings: Settings, exchange: str) -> None:
    from mtaq.broker import BrokerOptions, open_broker  # what only reads does without
    from mtaq.broker.address import EmbeddedAddress, parse_addresses

    queues = settings.queues
    addresses = parse_addresses(",".join(queues.rabbitmq_address))
    if isinstance(addresses, EmbeddedAddress):
        return
    logging.getLogger().addHandler(logging.NullHandler())  # that the broker is away is no business of this verb
    options = BrokerOptions(
        addresses=addresses, verify=queues.rabbitmq_verify, declare=queues.rabbitmq_declare, name="mtaq command line"
    )
    broker = open_broker(options)
    with contextlib.suppress(BrokerError, TimeoutError):
        async with asyncio.timeout(_HINT_TIMEOUT_S):
            await broker.start()
            await broker.broadcast(exchange, b"changed", timeout_s=_HINT_TIMEOUT_S)
    await broker.close()


def print_rows(rows: Sequence[Row], *, as_json: bool, nothing: str) -> None:
    """Print entries as JSON, or as a table; *nothing* is said when there are none."""
    if as_json:
        print(json.dumps([{name: _json(value) for name, value in row.items()} for row in rows], indent=2))
    elif rows:
        table = [[name.upper() for name in rows[0]], *([_text(value) for value in row.values()] for row in rows)]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        for line in table:
            print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    else:
        print(nothing)


def print_done(done: Sequence[str], missing: Sequence[str], *, verb: str, as_json: bool) -> int:
    """Say what was removed and what was not there; return the exit status."""
    if as_json:
        print(json.dumps({verb: done, "missing": missing}, indent=2))
    else:
        for name in done:
            print(f"{verb} {name}")
        for name in missing:
            print(f"mtaq: there is no {name}", file=sys.stderr)
    return exits.FAILURE if missing else exits.OK


def _json(value: object) -> object:
    return format_time(value) if isinstance(value, datetime) else value


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value in (None, "") else str(_json(value))
