"""``mtaq pool``: sets of source addresses that messages name (``pool``)."""

from __future__ import annotations

import argparse

from mtaq.cli.control import Noun, about_of, add_about_arguments, add_nouns_verbs, put
from mtaq.cli.parser import Subparsers
from mtaq.cli.state import Row, add_verb, argument
from mtaq.model.control import Pool
from mtaq.state import control_entries
from mtaq.state.control_values import parse_member, parse_word


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """Add ``pool`` and its verbs."""
    parser = subparsers.add_parser("pool", help="weighted sets of source addresses")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    adding = add_verb(verbs, "add", _add, "make a pool, in place of the one with its name")
    adding.add_argument("name", metavar="NAME", type=argument(parse_word), help="as messages name it")
    adding.add_argument(
        "members", nargs="+", metavar="IP[=WEIGHT]", type=argument(parse_member),
        help="a source address; one with weight 3 gets three times the mail of one with 1, which is what it is without",
    )  # fmt: skip
    add_about_arguments(adding)
    add_nouns_verbs(verbs, _NOUN)


def _add(args: argparse.Namespace) -> int:
    return put(args, _NOUN, lambda now: control_entries.pool(args.name, args.members, about=about_of(args, now)))


def _row(pool: Pool) -> Row:
    return {"members": ", ".join(f"{member.ip}={member.weight}" for member in pool.members)}


_NOUN = Noun(kind="pools", verb="pool", one="pool", nothing="there is no pool", id="NAME", row=_row)
