"""``mtaq block``: which clients may not connect (``smtp-protection``)?"""

from __future__ import annotations

import argparse

from mtaq.cli import exits
from mtaq.cli.parser import Subparsers
from mtaq.cli.state import Row, add_verb, argument, ask, change, print_done, print_rows, utc_now
from mtaq.config.values import exact_seconds
from mtaq.state import Block, Database
from mtaq.state.entries import end_after, parse_network, parse_note


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """Add ``block`` and its verbs."""
    parser = subparsers.add_parser("block", help="the blocked list: which clients may not connect")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    adding = add_verb(verbs, "add", _add, "refuse clients from these networks; an entry that is there is replaced")
    removing = add_verb(verbs, "remove", _remove, "let them connect again; exit status 1 when one was not blocked")
    for each in (adding, removing):
        each.add_argument(
            "networks", nargs="+", metavar="NETWORK", type=argument(parse_network),
            help="an address, or CIDR like 192.0.2.0/24",
        )  # fmt: skip
    adding.add_argument(
        "--reason", metavar="TEXT", default="", type=argument(lambda text: parse_note(text, "the reason")),
        help="why, for the log and whoever lists them; clients are not told",
    )  # fmt: skip
    adding.add_argument(
        "--for", dest="duration_s", metavar="DURATION", type=argument(exact_seconds),
        help="how long: seconds, or 10m, 2h, 1d; without it for ever",
    )  # fmt: skip
    add_verb(verbs, "list", _list, "print all entries that have not ended, automatic ones included")


def _add(args: argparse.Namespace) -> int:
    now = utc_now()
    blocks = [
        Block(
            network=str(network),
            reason=args.reason,
            expires_at=None if args.duration_s is None else end_after(now, args.duration_s),
            automatic=False,
            created_at=now,
        )
        for network in dict.fromkeys(args.networks)
    ]

    def add(database: Database) -> None:
        database.set_blocks(blocks, now=now)

    change(args, add)
    if args.json:
        print_rows([_row(block) for block in blocks], as_json=True, nothing="")
    else:
        for block in blocks:
            print(f"blocked {block.network}")
    return exits.OK


def _remove(args: argparse.Namespace) -> int:
    networks = [str(network) for network in dict.fromkeys(args.networks)]

    def remove(database: Database) -> list[str]:
        return database.remove_blocks(networks, now=utc_now())

    removed = change(args, remove)
    missing = [network for network in networks if network not in removed]
    return print_done(removed, missing, verb="removed", as_json=args.json)


def _list(args: argparse.Namespace) -> int:
    now = utc_now()
    blocks = [block for block in ask(args, lambda database: database.read().blocks or ()) if not block.is_over(now)]
    blocks.sort(key=lambda block: _place(block.network))
    print_rows([_row(block) for block in blocks], as_json=args.json, nothing="nobody is blocked")
    return exits.OK


def _place(text: str) -> tuple[int, int, int]:
    network = parse_network(text)
    return network.version, int(network.network_address), network.prefixlen


def _row(block: Block) -> Row:
    return {
        "network": block.network,
        "expires": block.expires_at,
        "automatic": block.automatic,
        "reason": block.reason,
        "added": block.created_at,
    }
