"""``mtaq source``: which name goes with which of our addresses?"""

from __future__ import annotations

import argparse

from mtaq.cli import exits
from mtaq.cli.parser import Subparsers
from mtaq.cli.state import Row, add_verb, argument, ask, change, print_done, print_rows, utc_now
from mtaq.config.ranges import plain_address
from mtaq.state import Database, Source
from mtaq.state.entries import parse_ip, parse_name


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """Add ``source`` and its verbs."""
    parser = subparsers.add_parser("source", help="our addresses and the names that go with them")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    setting = add_verb(verbs, "set", _set, "name an address of ours, in place of the name it had")
    setting.add_argument("ip", metavar="IP", type=argument(parse_ip), help="an address of this host")
    setting.add_argument("name", metavar="NAME", type=argument(parse_name), help="the name in greeting and EHLO")
    removing = add_verb(verbs, "remove", _remove, "forget names; exit status 1 when an address had none")
    removing.add_argument("ips", nargs="+", metavar="IP", type=argument(parse_ip), help="an address")
    add_verb(verbs, "list", _list, "print all addresses with their names")


def _set(args: argparse.Namespace) -> int:
    source = Source(ip=args.ip, ehlo_name=args.name, created_at=utc_now())

    def name(database: Database) -> None:
        database.set_source(source)

    change(args, name)
    if args.json:
        print_rows([_row(source)], as_json=True, nothing="")
    else:
        print(f"{source.ip} is {source.ehlo_name}")
    return exits.OK


def _remove(args: argparse.Namespace) -> int:
    ips = list(dict.fromkeys(args.ips))

    def remove(database: Database) -> list[str]:
        return database.remove_sources(ips)

    removed = change(args, remove)
    missing = [ip for ip in ips if ip not in removed]
    return print_done(removed, missing, verb="removed", as_json=args.json)


def _list(args: argparse.Namespace) -> int:
    sources = list(ask(args, lambda database: database.read().sources or ()))
    sources.sort(key=lambda source: (plain_address(source.ip).version, int(plain_address(source.ip))))
    print_rows([_row(source) for source in sources], as_json=args.json, nothing="no address has a name of its own")
    return exits.OK


def _row(source: Source) -> Row:
    return {"ip": source.ip, "name": source.ehlo_name, "set": source.created_at}
