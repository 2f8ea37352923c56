"""``mtaq local``: whose mail is for us?"""

from __future__ import annotations

import argparse
import sys

from mtaq.cli import exits
from mtaq.cli.parser import Subparsers
from mtaq.cli.state import Row, add_verb, argument, ask, change, print_done, print_rows, utc_now
from mtaq.model.address import Address
from mtaq.smtp.grammar import parse_forward_path
from mtaq.state import Database, LocalAddress
from mtaq.state.entries import KINDS, Kind, parse_note, parse_pattern
from mtaq.state.local_addresses import LocalAddresses
from mtaq.state.patterns import compiled

_PATTERN = "ann@example.com, *@example.com, postmaster, or with --kind regex a regular expression of RE2"


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """Add ``local`` and its verbs."""
    parser = subparsers.add_parser("local", help="local addresses: whose mail is for us")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    adding = add_verb(verbs, "add", _add, "take mail for these addresses as our own")
    removing = add_verb(verbs, "remove", _remove, "take it no longer; exit status 1 when a pattern was not there")
    for each in (adding, removing):
        each.add_argument("patterns", nargs="+", metavar="PATTERN", help=_PATTERN)
        each.add_argument("--kind", choices=KINDS, help="without it, * and ? make a wildcard")
    adding.add_argument(
        "--comment", metavar="TEXT", default="", type=argument(lambda text: parse_note(text, "the comment")),
        help="a note for whoever lists them",
    )  # fmt: skip
    add_verb(verbs, "list", _list, "print all patterns")
    testing = add_verb(verbs, "test", _test, "say which addresses are local, and why; exit status 1 when one is not")
    testing.add_argument("addresses", nargs="+", metavar="ADDRESS", type=argument(_address), help="as in RCPT")


def _address(text: str) -> Address:
    return parse_forward_path(text.encode(errors="surrogateescape"), strict=False, smtputf8=True)


def _add(args: argparse.Namespace) -> int:
    now = utc_now()
    entries = [
        LocalAddress(pattern=pattern, kind=kind, comment=args.comment, created_at=now)
        for pattern, kind in _patterns(args)
    ]

    def add(database: Database) -> list[LocalAddress]:
        return database.add_local_addresses(entries)

    new = change(args, add)
    if args.json:
        print_rows([_row(entry) for entry in entries], as_json=True, nothing="")
    else:
        for entry in entries:
            print(f"{'added' if entry in new else 'there already:'} {entry.pattern} ({entry.kind})")
    return exits.OK


def _remove(args: argparse.Namespace) -> int:
    keys = [(kind, pattern) for pattern, kind in _patterns(args)]

    def remove(database: Database) -> list[tuple[Kind, str]]:
        return database.remove_local_addresses(keys)

    removed = change(args, remove)
    missing = [pattern for kind, pattern in keys if (kind, pattern) not in removed]
    return print_done([pattern for _, pattern in removed], missing, verb="removed", as_json=args.json)


def _list(args: argparse.Namespace) -> int:
    entries = sorted(_entries(args), key=lambda entry: (entry.kind, entry.pattern.rpartition("@")[::-1]))
    print_rows([_row(entry) for entry in entries], as_json=args.json, nothing="no address is local")
    return exits.OK


def _test(args: argparse.Namespace) -> int:
    local_addresses = LocalAddresses(_entries(args))
    found = [local_addresses.find(address) for address in args.addresses]
    rows = [_answer(address, entry) for address, entry in zip(args.addresses, found, strict=True)]
    print_rows(rows, as_json=args.json, nothing="")
    return exits.OK if all(found) else exits.FAILURE


def _answer(address: Address, entry: LocalAddress | None) -> Row:
    return {
        "address": str(address),
        "local": entry is not None,
        "pattern": None if entry is None else entry.pattern,
        "kind": None if entry is None else entry.kind,
    }


def _entries(args: argparse.Namespace) -> list[LocalAddress]:
    return ask(args, lambda database: list(database.read().local_addresses or ()))


def _patterns(args: argparse.Namespace) -> list[tuple[str, Kind]]:
    """Return the patterns given, each once; a mistake in one of them ends the program."""
    try:
        found = list(dict.fromkeys(parse_pattern(text, args.kind) for text in args.patterns))
        for pattern, kind in found:
            if kind != "exact":
                compiled(pattern, kind)
    except ValueError as error:
        print(f"mtaq local: {error}", file=sys.stderr)
        sys.exit(exits.USAGE)
    return found


def _row(entry: LocalAddress) -> Row:
    return {"pattern": entry.pattern, "kind": entry.kind, "comment": entry.comment, "added": entry.created_at}
