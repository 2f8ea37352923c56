"""``mtaq show``: what the running instance is doing now."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mtaq.broker.port import Broker
from mtaq.cli import exits
from mtaq.cli.parser import Subparsers
from mtaq.cli.queue import depths
from mtaq.cli.queues import on_queues
from mtaq.cli.run import ROLES
from mtaq.cli.settings import load_or_exit
from mtaq.cli.state import add_verb, print_rows
from mtaq.config import Settings
from mtaq.deliver.forward import Lying
from mtaq.model.parcel import Waiting
from mtaq.net.control_socket import ask

#: Sums over the processes; of the rest any process's word is as good.
_SUMS = ("ready", "connections", "opening", "idle", "messages-per-minute")


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """Add the verb with its objects."""
    parser = subparsers.add_parser("show", help="what the running instance is doing now")
    verbs = parser.add_subparsers(metavar="WHAT", required=True)
    add_verb(verbs, "queues", _queues, "how much lies in each queue, and in which rung of the delay queues")
    sites = add_verb(verbs, "sites", _sites, "what goes where: ready messages, connections, rates and limits")
    sites.add_argument(
        "--parked",
        action="store_true",
        help="look through the delay queues as well, and count what waits by its reason",
    )
    add_verb(verbs, "connections", _connections, "open connections, from clients and to mail hosts")


def _queues(args: argparse.Namespace) -> int:
    rows = on_queues(args, depths)
    if args.json:
        print(json.dumps(rows, indent=2))
    else:
        _table([{name: _words(value) for name, value in row.items()} for row in rows], "no queues")
    return exits.OK


def _connections(args: argparse.Namespace) -> int:
    rows, status = _ask_instance(args, "connections")
    rows = sorted(rows, key=lambda row: (row["direction"], str(row["site"]), -row["seconds"]))
    if args.json:
        print(json.dumps(rows, indent=2))
    else:
        _table([{name: _words(value) for name, value in row.items()} for row in rows], "no connections")
    return status


def _sites(args: argparse.Namespace) -> int:
    rows, status = _ask_instance(args, "sites")
    parked = on_queues(args, _parked) if args.parked else {}
    merged = _merged(rows, parked)
    if args.json:
        print(json.dumps(merged, indent=2))
    else:
        _table([{name: _words(value) for name, value in row.items()} for row in merged], "no sites")
    return status


def _ask_instance(args: argparse.Namespace, what: str) -> tuple[list[dict[str, Any]], int]:
    """Ask every supervisor of the instance; without any the program ends."""
    folder = Path(load_or_exit(args).process.run_directory)
    rows: list[dict[str, Any]] = []
    heard, problems = False, []
    for verb in ROLES:
        path = folder / f"{verb}.sock"
        if not path.exists():
            continue
        try:
            answer = asyncio.run(ask(path, show=what))
        except PermissionError as error:
            print(f"mtaq: {exits.explain(error)}", file=sys.stderr)
            sys.exit(exits.NO_PERMISSION)
        except OSError as error:
            problems.append(str(error))
            continue
        heard = True
        rows += answer.get("rows", ())
        problems += [f"{process} gives no answer" for process in answer.get("silent", ())]
    for problem in problems:
        print(f"mtaq: {problem}", file=sys.stderr)
    if not heard:
        print(f"mtaq: nothing runs in {folder}", file=sys.stderr)
        sys.exit(exits.UNAVAILABLE)
    return rows, exits.TEMPORARY if problems else exits.OK


async def _parked(settings: Settings, broker: Broker) -> Mapping[str, Counter[str]]:
    """Count what waits, by site (or domain, while that is not known) and cause."""
    found: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def look(waiting: Waiting) -> None:
        lying = Lying(waiting)
        found[lying.site or f"@{lying.domain}"][lying.cause] += 1

    await broker.sift(settings.queues.rabbitmq_outbox, look, delayed=True)
    return found


def _merged(rows: Sequence[dict[str, Any]], parked: Mapping[str, Counter[str]]) -> list[dict[str, Any]]:
    """Return one row for each site and source; what waits stands with the first row of its site."""
    merged: dict[tuple[str, str], dict[str, Any]] = {}
    offline = [row for row in rows if "offline" in row]
    for row in rows:
        if "offline" in row:
            continue
        found = merged.setdefault(
            (row["site"], row["source"] or ""),
            {"site": row["site"], "source": row["source"], **dict.fromkeys(_SUMS, 0), "limits": row["limits"]},
        )
        for name in _SUMS:
            found[name] = round(found[name] + row[name], 1)
        found["paused"] = bool(found.get("paused")) or row["paused"]
    for site in parked.keys() - {site for site, _ in merged}:
        merged[site, ""] = {"site": site, "source": None, **dict.fromkeys(_SUMS, 0), "limits": {}, "paused": False}
    seen: set[str] = set()
    for (site, _), row in sorted(merged.items()):
        row["parked"] = {} if site in seen else dict(sorted(parked.get(site, Counter()).items()))
        seen.add(site)
    listed = [row for _, row in sorted(merged.items())]
    addresses = {(row["source"] or "", row["offline"]): row["seconds"] for row in offline}
    return listed + [
        {"offline": ip, "source": source or None, "seconds": seconds}
        for (source, ip), seconds in sorted(addresses.items())
    ]


def _table(rows: Sequence[Mapping[str, str]], nothing: str) -> None:
    """Print rows of one kind after those of another: a table each."""
    kinds: dict[tuple[str, ...], list[Mapping[str, str]]] = {}
    for row in rows:
        kinds.setdefault(tuple(row), []).append(row)
    if not kinds:
        print(nothing)
    for number, kind in enumerate(kinds.values()):
        if number:
            print()
        print_rows(kind, as_json=False, nothing=nothing)


def _words(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{name} {number:g}" for name, number in value.items())
    return "" if value is None else str(value)
