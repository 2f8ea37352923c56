"""What the verbs about delivery share: scopes, ends and reasons as arguments, and listing, showing and removing.

A kind of entries is a ``Noun``; ``add_nouns_verbs`` gives it ``list``, ``show`` and ``remove``, its own file the rest.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime
from typing import Any, NoReturn

from mtaq.cli import exits
from mtaq.cli.parser import Subparsers
from mtaq.cli.state import Row, add_verb, argument, ask, change, print_done, print_rows, utc_now
from mtaq.config.values import byte_count, exact_seconds
from mtaq.model.control import Entry, Limits, LimitsInForce, Scope
from mtaq.model.times import parse_time
from mtaq.state import Database
from mtaq.state.control_database import ControlDatabase
from mtaq.state.control_entries import About
from mtaq.state.control_values import (
    parse_code,
    parse_count,
    parse_property,
    parse_rate,
    parse_scope_domain,
    parse_sender_domain,
    parse_site,
    parse_status,
    parse_tag,
    parse_text,
    parse_word,
)
from mtaq.state.entries import end_after, parse_ip, parse_note
from mtaq.state.rows import to_json

#: What is never printed with an entry.
_SECRETS = frozenset({"pem"})
_NAMES = {"expires_at": "expires", "created_at": "added", "starts_at": "starts", "starts_on": "starts"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Noun:
    """A kind of entries, as its verbs need it.

    Attributes:
        kind: As the database calls it.
        verb: As the command line calls it.
        one: What one entry is called.
        nothing: What is said when there are none.
        id: What names an entry, in the usage.
        row: The columns of an entry in a table, between its id and its end.
    """

    kind: str
    verb: str
    one: str
    nothing: str
    id: str
    row: Callable[[Any], Row]


def add_nouns_verbs(verbs: Subparsers[argparse.ArgumentParser], noun: Noun) -> None:
    """Add ``list``, ``show`` and ``remove``."""
    add_verb(verbs, "list", lambda args: _list(args, noun), "print all entries that have not ended")
    showing = add_verb(
        verbs, "show", lambda args: _show(args, noun), "print all of one entry; exit status 1 without it"
    )
    showing.add_argument("id", metavar=noun.id, help="as the list has it")
    removing = add_verb(
        verbs, "remove", lambda args: _remove(args, noun), "remove entries; exit status 1 when one was not there"
    )
    removing.add_argument("ids", nargs="+", metavar=noun.id, help="as the list has it")


def add_about_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--reason`` and ``--expires``."""
    parser.add_argument(
        "--reason", metavar="TEXT", default="", type=argument(lambda text: parse_note(text, "the reason")),
        help="why, for whoever lists it",
    )  # fmt: skip
    parser.add_argument(
        "--expires", metavar="WHEN", type=argument(parse_end),
        help="when it ends by itself: after so many seconds, 10m, 2h, 1d; or a time in UTC; without it never",
    )  # fmt: skip


def about_of(args: argparse.Namespace, now: datetime) -> About:
    """Return what the arguments of ``add_about_arguments`` say."""
    return About(reason=args.reason, expires_at=end_of(args.expires, now), automatic=False, created_at=now)


def parse_end(text: str) -> float | datetime:
    """Read a duration in seconds, or a time of day.

    Raises:
        ValueError: It is neither, or has passed.
    """
    try:
        return exact_seconds(text)
    except ValueError:
        pass
    try:
        moment = parse_time(text)
    except ValueError:
        raise ValueError(f"{text!r} is no end; expected seconds, 10m, 2h, 1d, or 2026-12-31 18:00:00") from None
    if moment <= utc_now():
        raise ValueError(f"{text} has passed")
    return moment.replace(microsecond=0)


def end_of(expires: float | datetime | None, now: datetime) -> datetime | None:
    """Return the time that ``parse_end`` means, *now* being now."""
    return end_after(now, expires) if isinstance(expires, float) else expires


def add_scope_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--source``, ``--pool``, ``--domain`` and ``--site``."""
    sources = parser.add_mutually_exclusive_group()
    sources.add_argument("--source", metavar="IP", type=argument(parse_ip), help="from this source address only")
    sources.add_argument(
        "--pool", metavar="NAME", type=argument(parse_word), help="from the addresses of this pool only"
    )
    add_destination_arguments(parser)


def add_destination_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--domain`` and ``--site``."""
    destinations = parser.add_mutually_exclusive_group()
    destinations.add_argument(
        "--domain", metavar="DOMAIN", type=argument(parse_scope_domain),
        help="to recipients of this domain only; *.example.com is all below example.com",
    )  # fmt: skip
    destinations.add_argument(
        "--site", metavar="SITE", type=argument(parse_site),
        help="to this site only: one of its mail hosts, or *.example.com for mail hosts below example.com",
    )  # fmt: skip


def scope_of(args: argparse.Namespace) -> Scope:
    """Return what the arguments of ``add_scope_arguments`` say."""
    return Scope(args.source, args.pool, args.domain, args.site)


def add_message_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--sender-domain`` and ``--tag``."""
    parser.add_argument(
        "--sender-domain", metavar="DOMAIN", type=argument(parse_sender_domain),
        help="only messages whose reverse-path has this domain; <> for the null reverse-path",
    )  # fmt: skip
    parser.add_argument("--tag", metavar="TAG", type=argument(parse_tag), help="only messages with this tag")


def add_limit_arguments(parser: argparse.ArgumentParser) -> None:
    """Add an argument for each limit; 0 is no limit."""
    limits: list[tuple[str, str, str, Callable[[str], float], str]] = [
        ("--messages", "messages_per_minute", "RATE", parse_rate, "messages a minute; or a number with /s, /h, /d"),
        ("--burst", "messages_burst", "N", parse_count, "how many of them may go at once after a silence"),
        ("--bytes", "bytes_per_minute", "SIZE", _bytes, "bytes of content a minute; KB, MB, GB"),
        ("--new-connections", "connections_per_minute", "RATE", parse_rate, "connections opened a minute"),
        ("--connections", "connections", "N", parse_count, "connections at once"),
        ("--messages-per-connection", "messages_per_connection", "N", parse_count, "then a connection is closed"),
        ("--ready", "ready_messages", "N", parse_count, "messages held ready in memory, for each process"),
    ]
    for option, name, metavar, parse, words in limits:
        parser.add_argument(option, dest=name, metavar=metavar, type=argument(parse), help=words)


def limits_of(args: argparse.Namespace) -> Limits:
    """Return what the arguments of ``add_limit_arguments`` say."""
    return Limits(**{each.name: getattr(args, each.name) for each in fields(Limits)})


def _bytes(text: str) -> int:
    return 0 if text == "0" else byte_count(text)


def add_reply_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--code``, ``--status`` and ``--text`` of patterns."""
    parser.add_argument("--code", metavar="CODE", type=argument(parse_code), help="reply code, or its beginning: 4, 42")
    parser.add_argument(
        "--status", metavar="STATUS", type=argument(parse_status), help="enhanced status code, or its beginning: 4.7"
    )
    parser.add_argument(
        "--text", metavar="PATTERN", type=argument(parse_text),
        help="regular expression of RE2 that matches somewhere in the text, in either case",
    )  # fmt: skip


def add_change_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--set`` and ``--add-tag``."""
    parser.add_argument(
        "--set", dest="properties", metavar="NAME=VALUE", action="append", default=[], type=argument(parse_property),
        help="set a property of the message, JSON or text; nothing behind = takes it out; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--add-tag", dest="add_tags", metavar="TAG", action="append", default=[], type=argument(parse_tag),
        help="put a tag on the message; may be repeated",
    )  # fmt: skip


def add_position_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--position``."""
    parser.add_argument(
        "--position", metavar="N", default=100, type=argument(parse_count), help="lower ones go first; 100 without it"
    )


def put(args: argparse.Namespace, noun: Noun, make: Callable[[datetime], Entry]) -> int:
    """Add the entry that *make* makes now; a mistake in it ends the program."""
    now = utc_now()
    entry = made(noun.verb, lambda: make(now))
    is_new = write(args, entry, now)
    if args.json:
        print(json.dumps(shown(entry), indent=2))
    else:
        print(f"{'added' if is_new else 'replaced'} {noun.one} {entry.id}")
    return exits.OK


def write(args: argparse.Namespace, entry: Entry, now: datetime) -> bool:
    """Add *entry*; was there none with its id?"""

    def add(database: Database) -> list[Entry]:
        return ControlDatabase(database).put([entry], now=now)

    return bool(change(args, add))


def made(verb: str, make: Callable[[], Any]) -> Any:
    """Return what *make* makes; what makes no sense together ends the program as wrong usage."""
    try:
        return make()
    except ValueError as error:
        refuse(verb, error)


def refuse(verb: str, mistake: object) -> NoReturn:
    """End the program, telling that its arguments are wrong."""
    print(f"mtaq {verb}: {mistake}", file=sys.stderr)
    sys.exit(exits.USAGE)


def entries_of(args: argparse.Namespace, kind: str) -> list[Any]:
    """Return the entries of a kind that have not ended, in the order of positions and destinations."""
    now = utc_now()
    entries = ask(args, lambda database: ControlDatabase(database).read(kind))
    return sorted((entry for entry in entries if not entry.is_over(now)), key=_order)


def _order(entry: Any) -> tuple[int, tuple[str, ...], str]:
    scope = getattr(entry, "scope", Scope())
    place = tuple(part or "" for part in (scope.domain, scope.site, scope.source, scope.pool))
    return getattr(entry, "position", 0), place, entry.id


def _list(args: argparse.Namespace, noun: Noun) -> int:
    print_entries(entries_of(args, noun.kind), noun, as_json=args.json)
    return exits.OK


def print_entries(entries: Sequence[Entry], noun: Noun, *, as_json: bool) -> None:
    """Print entries as JSON, or as a table."""
    if as_json:
        print(json.dumps([shown(entry) for entry in entries], indent=2))
    else:
        print_rows([_columns(entry, noun) for entry in entries], as_json=False, nothing=noun.nothing)


def _columns(entry: Entry, noun: Noun) -> Row:
    return {"id": entry.id, **noun.row(entry), "expires": entry.expires_at, "reason": entry.reason}


def _show(args: argparse.Namespace, noun: Noun) -> int:
    entry = next((entry for entry in entries_of(args, noun.kind) if entry.id == args.id), None)
    if entry is None:
        print(f"mtaq: there is no {noun.one} {args.id}", file=sys.stderr)
        return exits.FAILURE
    if args.json:
        print(json.dumps(shown(entry), indent=2))
    else:
        for name, value in shown(entry).items():
            print(f"{name}: {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}")
    return exits.OK


def _remove(args: argparse.Namespace, noun: Noun) -> int:
    ids = list(dict.fromkeys(args.ids))
    return remove(args, noun, lambda database: ids)


def remove(
    args: argparse.Namespace, noun: Noun, find: Callable[[ControlDatabase], Sequence[str]], *, nothing: str = ""
) -> int:
    """Remove the entries that *find* names, and say which were there; *nothing* is said when it names none."""

    def take_out(database: Database) -> tuple[Sequence[str], list[str]]:
        control = ControlDatabase(database)
        ids = find(control)
        return ids, control.remove(noun.kind, ids, now=utc_now()) if ids else []

    ids, removed = change(args, take_out)
    missing = [f"{noun.one} {id}" for id in ids if id not in removed]
    status = print_done(removed, missing, verb="removed", as_json=args.json)
    if not ids:
        print(f"mtaq: {nothing}", file=sys.stderr)
    return status if ids else exits.FAILURE


def shown(entry: Entry) -> dict[str, Any]:
    """Return an entry as it is printed in JSON: all of it but secrets, in the order id, what it says, what it is."""
    found = {name: value for name, value in to_json(entry, complete=True).items() if name not in _SECRETS}
    common = {each.name: found.pop(each.name) for each in fields(Entry)}
    ordered = {"id": common.pop("id")} | found | common
    ours = {
        name: value for name, value in ordered.items() if name != "properties"
    }  # the names in it are the operator's
    return _dashed(ours) | {name: value for name, value in ordered.items() if name not in ours}


def _dashed(found: dict[str, Any]) -> dict[str, Any]:
    """Return *found* with the names of its properties as JSON has them everywhere."""
    return {
        _NAMES.get(name, name.replace("_", "-")): _dashed(value) if isinstance(value, dict) else value
        for name, value in found.items()
    }


def places(scope: Scope) -> Row:
    """Return the columns of a scope."""
    source = scope.source or (f"pool {scope.pool}" if scope.pool is not None else "*")
    return {"from": source, "to": scope.domain or (f"site {scope.site}" if scope.site is not None else "*")}


def words_of(limits: Limits | LimitsInForce) -> str:
    """Return limits in a few words."""
    said = {each.name: getattr(limits, each.name) for each in fields(limits)}
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in said.items() if value is not None)


def parse_date(text: str) -> date:
    """Read a day.

    Raises:
        ValueError: It is none.
    """
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is no day; expected one like 2026-03-01") from None
