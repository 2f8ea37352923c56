"""``mtaq queue list|peek`` and ``mtaq inject``: what lies in the queues, and putting something there by hand."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from mtaq.broker.port import Broker
from mtaq.cli import exits
from mtaq.cli.parser import Subparsers
from mtaq.cli.queues import on_queues
from mtaq.cli.requeue import parse_limit
from mtaq.cli.state import add_verb, argument, print_rows
from mtaq.config import Settings
from mtaq.deliver.forward import Lying
from mtaq.deliver.intake import check_queues
from mtaq.model.codec import CONTENT_PROPERTIES, decode_outbox
from mtaq.model.errors import BadMessage
from mtaq.model.parcel import OUTBOX_TYPE, Depth, Parcel, Waiting

_PUBLISH_TIMEOUT_S = 30.0
#: Files are read whole.
_MOST_BYTES = 256 * 1024 * 1024
#: What is never shown of a message.
_SECRETS = ("smarthost", "dkim")


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """Add ``queue`` with its verbs, and ``inject``."""
    parser = subparsers.add_parser("queue", help="what lies in the queues")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    add_verb(verbs, "list", _list, "print how much lies in each queue")
    peeking = add_verb(verbs, "peek", _peek, "print the oldest messages of a queue, which stay where they are")
    peeking.add_argument("queue", metavar="QUEUE")
    peeking.add_argument("--limit", metavar="N", type=argument(parse_limit), default=10, help="so many; 10 without it")
    peeking.add_argument("--delayed", action="store_true", help="those in its delay queues, the longest waits first")
    peeking.add_argument("--content", action="store_true", help="content and secrets as well")
    injecting = add_verb(
        subparsers, "inject", _inject, "put a message into the outbox: JSON as its consumers expect it"
    )
    injecting.add_argument("files", nargs="+", metavar="FILE", help="one JSON object each; - is standard input")


def _list(args: argparse.Namespace) -> int:
    rows = on_queues(args, depths)
    if args.json:
        print(json.dumps(rows, indent=2))
    else:
        print_rows([{name: _text(value) for name, value in row.items()} for row in rows], as_json=False, nothing="")
    return exits.OK


async def depths(settings: Settings, broker: Broker) -> list[dict[str, Any]]:
    """Return a row for each queue of the settings."""
    from mtaq.assembly.queues import topology

    found = await broker.depths([spec.name for spec in topology(settings)])
    return [{"queue": name, **_row(depth)} for name, depth in sorted(found.items())]


def _row(depth: Depth | None) -> dict[str, Any]:
    if depth is None:
        return {"ready": None, "waiting": None, "consumers": None, "rungs": {}}
    return {
        "ready": depth.ready,
        "waiting": sum(depth.delayed.values()),
        "consumers": depth.consumers,
        "rungs": {str(rung): count for rung, count in depth.delayed.items()},
    }


def _text(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{rung}: {count}" for rung, count in value.items())
    return "missing" if value is None else str(value)


def _peek(args: argparse.Namespace) -> int:
    async def work(settings: Settings, broker: Broker) -> list[dict[str, Any]]:
        shown: list[dict[str, Any]] = []

        def look(waiting: Waiting) -> None:
            shown.append(_shown(waiting, whole=args.content))

        await broker.sift(args.queue, look, delayed=args.delayed, most=args.limit)
        return shown

    for shown in on_queues(args, work):
        print(json.dumps(shown, indent=None if args.json else 2, ensure_ascii=False))
    return exits.OK


def _shown(waiting: Waiting, *, whole: bool) -> dict[str, Any]:
    properties: Any = dict(Lying(waiting).properties)
    if not whole:
        properties = {name: _instead_of(name, value) for name, value in properties.items()}
    if not properties:
        properties = {"unreadable": waiting.body[:1000].decode(errors="replace")}
    return {
        "queue": waiting.queue,
        "type": waiting.type,
        "id": waiting.message_id,
        "headers": dict(waiting.headers),
        "message": properties,
    }


def _instead_of(name: str, value: Any) -> Any:
    if name in CONTENT_PROPERTIES:
        return f"({len(str(value))} characters)"
    return "(hidden)" if name in _SECRETS else value


def _inject(args: argparse.Namespace) -> int:
    bodies = [_read(file) for file in args.files]

    async def work(settings: Settings, broker: Broker) -> list[str]:
        from mtaq.assembly.queues import topology

        outbox = settings.queues.rabbitmq_outbox
        parcels = [_parcel(file, body, outbox) for file, body in zip(args.files, bodies, strict=True)]
        await broker.declare(topology(settings))
        for parcel in parcels:
            await broker.publish(outbox, parcel, timeout_s=_PUBLISH_TIMEOUT_S)
        return [parcel.correlation_id for parcel in parcels]

    try:
        ids = on_queues(args, work)
    except BadMessage as error:
        print(f"mtaq inject: {error}", file=sys.stderr)
        return exits.DATA
    if args.json:
        print(
            json.dumps([{"file": file, "message-id": id} for file, id in zip(args.files, ids, strict=True)], indent=2)
        )
    else:
        for file, id in zip(args.files, ids, strict=True):
            print(f"{file} is in the outbox{f' as {id}' if id else ''}")
    return exits.OK


def _read(file: str) -> bytes:
    try:
        if file == "-":
            body = sys.stdin.buffer.read(_MOST_BYTES + 1)
        else:
            with Path(file).open("rb") as opened:
                body = opened.read(_MOST_BYTES + 1)
    except OSError as error:
        print(f"mtaq inject: {exits.explain(error)}", file=sys.stderr)
        sys.exit(exits.NO_INPUT)
    if len(body) > _MOST_BYTES:
        print(f"mtaq inject: {file}: larger than {_MOST_BYTES} bytes", file=sys.stderr)
        sys.exit(exits.DATA)
    return body


def _parcel(file: str, body: bytes, outbox: str) -> Parcel:
    try:
        message = decode_outbox(body)
        check_queues(message, outbox)
    except BadMessage as error:
        raise BadMessage(f"{file}: {error}") from error
    message_id = message.message_id
    return Parcel(
        body=body,
        type=OUTBOX_TYPE,
        correlation_id=message_id if len(message_id.encode()) <= 255 else "",
        priority=min(max(message.priority, 0), 255),
    )
