"""``mtaq flush``: mail that waits in the delay queues is attempted now."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from mtaq.broker.port import Broker
from mtaq.cli import exits
from mtaq.cli.control import refuse
from mtaq.cli.parser import Subparsers
from mtaq.cli.queues import on_queues
from mtaq.cli.state import add_verb, argument
from mtaq.config import Settings
from mtaq.deliver.forward import AGAIN, CAUSES, USUAL, Wanted
from mtaq.model.parcel import Sifted
from mtaq.state.control_values import parse_scope_domain, parse_site
from mtaq.state.entries import parse_ip


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = add_verb(
        subparsers, "flush", _flush, "attempt now what waits for a later attempt; limits and pauses hold as ever"
    )
    parser.add_argument(
        "site", nargs="?", metavar="SITE", type=argument(parse_site),
        help="a site, one of its mail hosts, or *.example.com for all mail hosts below",
    )  # fmt: skip
    parser.add_argument(
        "--domain", metavar="DOMAIN", type=argument(parse_scope_domain),
        help="recipients in this domain; *.example.com for all below it",
    )  # fmt: skip
    parser.add_argument("--source", metavar="IP", type=argument(parse_ip), help="what was to leave from this address")
    parser.add_argument(
        "--id", dest="ids", metavar="ID", action="append", default=[], help="this message-id; may be repeated"
    )
    parser.add_argument(
        "--cause", dest="causes", action="append", choices=CAUSES, default=[],
        help="what waits for this reason; may be repeated; without it everything but scheduled",
    )  # fmt: skip
    parser.add_argument("--all", action="store_true", help="everything")


def _flush(args: argparse.Namespace) -> int:
    wanted = _wanted(args)

    async def work(settings: Settings, broker: Broker) -> Sifted:
        from mtaq.assembly.sweeping import SweepLock

        lock = SweepLock(Path(settings.process.run_directory))
        async with lock.held(lambda: print("waiting for another sweep to end", file=sys.stderr)):
            return await broker.sift(settings.queues.rabbitmq_outbox, wanted.choose, delayed=True, again=AGAIN)

    began_s = time.monotonic()
    swept = on_queues(args, work)
    if args.json:
        print(json.dumps({"looked-at": swept.seen, "flushed": swept.moved, "refused": swept.refused}))
    else:
        print(f"flushed {swept.moved} of {swept.seen} waiting messages in {time.monotonic() - began_s:.1f} s")
    if swept.refused:
        print(f"mtaq: the outbox refused {swept.refused} messages; they wait on", file=sys.stderr)
    return exits.TEMPORARY if swept.refused else exits.OK


def _wanted(args: argparse.Namespace) -> Wanted:
    conditions: Sequence[object] = (args.site, args.domain, args.source, args.ids, args.causes)
    if args.all == any(conditions):
        refuse("flush", "expected what to flush, or --all")
    return Wanted(
        site=args.site,
        domain=args.domain,
        source=args.source,
        causes=frozenset(args.causes) or USUAL,
        ids=frozenset(args.ids),
    )
