"""``mtaq requeue``: messages that were moved aside go back to the outbox."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable

from mtaq.broker.port import Broker
from mtaq.cli import exits
from mtaq.cli.control import refuse
from mtaq.cli.parser import Subparsers
from mtaq.cli.queues import on_queues
from mtaq.cli.state import add_verb, argument
from mtaq.config import Settings
from mtaq.deliver.forward import Lying
from mtaq.deliver.intake import REDELIVERED_HEADER
from mtaq.model.errors import BadMessage
from mtaq.model.parcel import OUTBOX_TYPE, REPORT_TYPE, RESULT_TYPE, Parcel, Sifted, Waiting

Matches = Callable[[Lying], bool]

#: What must not become an order; it lies there when its own queue refused it.
_NO_ORDERS = frozenset({RESULT_TYPE, REPORT_TYPE})


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = add_verb(
        subparsers, "requeue", _requeue, "move messages from the queue of dead letters back to the outbox"
    )
    parser.add_argument("--from", dest="source", metavar="QUEUE", help="another queue; without it rabbitmq-dead")
    parser.add_argument("--limit", metavar="N", type=argument(parse_limit), help="no more than so many")
    parser.add_argument(
        "--match", dest="matches", metavar="NAME=VALUE", action="append", default=[], type=argument(parse_match),
        help="only messages with this property, or header like reason; NAME=*TEXT* for a part of it; may be repeated",
    )  # fmt: skip
    parser.add_argument("--dry-run", action="store_true", help="only count")


def parse_limit(text: str) -> int:
    """Read how many.

    Raises:
        ValueError: It is no number, or 0.
    """
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"{text!r} is no number; expected 1 or more")
    return int(text)


def parse_match(text: str) -> Matches:
    """Read a condition.

    Raises:
        ValueError: It is none.
    """
    name, sign, value = text.partition("=")
    if not sign or not name:
        raise ValueError(f"{text!r} is no condition; expected name=value")
    is_part = len(value) > 1 and value.startswith("*") and value.endswith("*")

    def matches(lying: Lying) -> bool:
        found = lying.headers.get(name, lying.properties.get(name))
        written = found if isinstance(found, str) else json.dumps(found)
        return value[1:-1] in written if is_part else written == value

    return matches


def requeued(waiting: Waiting) -> Parcel:
    """Return what is published in the outbox: *waiting* without its reason, marked as one of which there may be two."""
    headers = {name: value for name, value in waiting.headers.items() if name != "reason"}
    return Parcel(
        body=waiting.body,
        type=waiting.type or OUTBOX_TYPE,
        correlation_id=waiting.correlation_id,
        message_id=waiting.message_id or None,
        priority=waiting.priority,
        headers={**headers, REDELIVERED_HEADER: True},
    )


def _requeue(args: argparse.Namespace) -> int:
    left = args.limit
    matching = 0

    def choose(waiting: Waiting) -> Parcel | None:
        nonlocal left, matching
        if left == 0 or waiting.type in _NO_ORDERS:
            return None
        lying = Lying(waiting)
        if not all(matches(lying) for matches in args.matches):
            return None
        matching += 1
        if left is not None:
            left -= 1
        return None if args.dry_run else requeued(waiting)

    async def work(settings: Settings, broker: Broker) -> Sifted:
        queues = settings.queues
        source = args.source or queues.rabbitmq_dead
        if source == queues.rabbitmq_outbox or source.startswith(f"{queues.rabbitmq_outbox}.delay."):
            raise BadMessage("that is the outbox itself; see mtaq flush")
        return await broker.sift(source, choose, to=queues.rabbitmq_outbox)

    try:
        moved = on_queues(args, work)
    except BadMessage as error:
        refuse("requeue", error)
    done = matching if args.dry_run else moved.moved
    if args.json:
        print(
            json.dumps({"looked-at": moved.seen, "requeued": done, "refused": moved.refused, "dry-run": args.dry_run})
        )
    else:
        print(f"{'would requeue' if args.dry_run else 'requeued'} {done} of {moved.seen} messages")
    if moved.refused:
        print(f"mtaq: the outbox refused {moved.refused} messages; they stay where they were", file=sys.stderr)
    return exits.TEMPORARY if moved.refused else exits.OK
