"""``mtaq trace``: everything that is known of one message: its lines in the logs, where it waits, who suppresses it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mtaq.broker.port import Broker
from mtaq.cli import exits
from mtaq.cli.parser import Subparsers
from mtaq.cli.queues import on_queues
from mtaq.cli.settings import load_or_exit
from mtaq.cli.state import add_verb, read_state, utc_now
from mtaq.cli.trace_logs import Line, rotated, search
from mtaq.config import Settings
from mtaq.deliver.forward import Lying
from mtaq.deliver.parking import UNTIL_HEADER
from mtaq.model.parcel import Waiting
from mtaq.smtp.grammar import parse_mailbox
from mtaq.state.control_database import ControlDatabase
from mtaq.state.local_addresses import plain_text

#: What the timeline says of a line, in this order.
_TOLD = (
    "attempt", "reverse_path", "forward_path", "peer_ip", "site", "mx_host", "remote_ip", "egress_source", "queue",
    "state", "result", "outcome", "reply_code", "enhanced_code", "reply_text", "next_attempt_at", "reason", "error",
)  # fmt: skip


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = add_verb(
        subparsers, "trace", _trace, "everything that is known of a message; exit status 1 when that is nothing"
    )
    parser.add_argument("id", metavar="ID", help="a message-id, or that of its transaction, as the 250 reply has it")
    parser.add_argument("--queues", action="store_true", help="look for it in the outbox's queues as well, all of them")
    parser.add_argument("--log", dest="logs", metavar="FILE", action="append", default=[], help="a log file more")


def _trace(args: argparse.Namespace) -> int:
    settings = load_or_exit(args)
    if not args.id.strip():
        print("mtaq trace: expected an id", file=sys.stderr)
        return exits.USAGE
    paths = [path for log in [*log_files(settings), *map(Path, args.logs)] for path in rotated(log)]
    found = search(paths, [args.id])
    waits = on_queues(args, lambda settings, broker: _waits(settings, broker, args.id)) if args.queues else []
    recipients = _recipients(found.lines, waits)
    suppressed = [name for name in recipients if _is_suppressed(settings, name)]
    for problem in found.problems:
        print(f"mtaq: {problem}", file=sys.stderr)
    if args.json:
        lines = [{"file": line.file, **line.record} for line in found.lines]
        print(json.dumps({"lines": lines, "waits": waits, "suppressed": suppressed}, indent=2, ensure_ascii=False))
    else:
        _print(args.id, found.lines, waits, suppressed, paths)
    return exits.OK if found.lines or waits else exits.FAILURE


def log_files(settings: Settings) -> list[Path]:
    """Return the log files of the settings."""
    return [Path(target) for target in settings.log.application_log if target.startswith("/")]


async def _waits(settings: Settings, broker: Broker, id: str) -> list[dict[str, Any]]:
    """Look for the message in the outbox, its delay queues and the queue of dead letters."""
    outbox, dead = settings.queues.rabbitmq_outbox, settings.queues.rabbitmq_dead
    found: list[dict[str, Any]] = []

    def look(waiting: Waiting) -> None:
        if id not in waiting.correlation_id and id.encode() not in waiting.body:
            return
        lying = Lying(waiting)
        if lying.id == id or lying.id.startswith(f"{id}."):
            found.append(_where(lying))

    await broker.sift(outbox, look, delayed=True)
    await broker.sift(outbox, look)
    await broker.sift(dead, look)
    return found


def _where(lying: Lying) -> dict[str, Any]:
    again = lying.properties.get("nextattempt")
    until = lying.headers.get(UNTIL_HEADER) or (again.get("time") if isinstance(again, dict) else None)
    return {
        "queue": lying.waiting.queue,
        "message-id": lying.id,
        "recipient": lying.recipient,
        "cause": lying.cause,
        "until": until,
        "attempts": len(lying.properties.get("results") or ()),
        "reason": lying.headers.get("reason"),
    }


def _recipients(lines: Sequence[Line], waits: Sequence[dict[str, Any]]) -> list[str]:
    named = [line.record.get("forward_path") for line in lines] + [each["recipient"] for each in waits]
    return sorted({name for name in named if isinstance(name, str) and name})


def _is_suppressed(settings: Settings, recipient: str) -> bool:
    """Is there an entry that holds it, whatever sender and tag that is about?"""
    try:
        address = plain_text(parse_mailbox(recipient, strict=False, smtputf8=True))
    except ValueError:
        return False
    return read_state(settings, lambda database: bool(ControlDatabase(database).suppressions_of(address, utc_now())))


def _print(
    id: str, lines: Sequence[Line], waits: Sequence[dict[str, Any]], suppressed: Sequence[str], paths: Sequence[Path]
) -> None:
    for line in lines:
        record = line.record
        told = [f"{name}={record[name]}" for name in _TOLD if record.get(name) not in (None, "")]
        print(f"{record.get('at', '?')}  {record.get('event', '?')}  {record.get('message_id', '')}  {' '.join(told)}")
    for each in waits:
        until = f" until {each['until']}" if each["until"] else ""
        print(f"now: {each['message-id']} for {each['recipient']} lies in {each['queue']}: {each['cause']}{until}")
    for name in suppressed:
        print(f"now: {name} is on the suppression list")
    if not lines and not waits:
        looked = ", ".join(map(str, paths)) or "no log file: application-log names none"
        print(f"mtaq: nothing is known of {id} (looked at {looked})", file=sys.stderr)
