"""``mtaq tls``: how are connections to a destination encrypted, whatever the configuration says?"""

from __future__ import annotations

import argparse
from typing import get_args

from mtaq.cli import exits
from mtaq.cli.control import (
    Noun,
    about_of,
    add_about_arguments,
    add_destination_arguments,
    add_nouns_verbs,
    entries_of,
    places,
    put,
)
from mtaq.cli.parser import Subparsers
from mtaq.cli.state import Row, add_verb, argument, print_rows
from mtaq.model.control import DemandedSecurity, Scope, TlsLevel
from mtaq.state import control_entries
from mtaq.state.control_values import parse_domain_only, parse_site
from mtaq.state.scopes import ScopeTable


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """Add ``tls`` and its verbs."""
    parser = subparsers.add_parser("tls", help="encryption of delivery, by domain or site")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    adding = add_verb(verbs, "add", _add, "say how mail that goes somewhere is encrypted, in place of what was said")
    adding.add_argument(
        "level", choices=get_args(DemandedSecurity), help="as delivery-security; dane-only: no host without DANE"
    )
    add_destination_arguments(adding)
    add_about_arguments(adding)
    add_nouns_verbs(verbs, _NOUN)
    testing = add_verb(verbs, "test", _test, "print the level that holds there; exit status 1 without one")
    testing.add_argument(
        "--domain", metavar="DOMAIN", required=True, type=argument(parse_domain_only), help="of a recipient"
    )
    testing.add_argument(
        "--site", metavar="SITE", type=argument(parse_site), help="its mail hosts, separated by commas"
    )


def _add(args: argparse.Namespace) -> int:
    scope = Scope(domain=args.domain, site=args.site)
    return put(args, _NOUN, lambda now: control_entries.tls_level(scope, args.level, about=about_of(args, now)))


def _test(args: argparse.Namespace) -> int:
    levels: ScopeTable[TlsLevel] = ScopeTable(entries_of(args, _NOUN.kind))
    found = levels.find(None, (), args.domain, args.site)[:1]
    rows: list[Row] = [{"id": entry.id, "level": entry.level} for entry in found]
    print_rows(rows, as_json=args.json, nothing="no level holds there; delivery-security does")
    return exits.OK if found else exits.FAILURE


def _row(entry: TlsLevel) -> Row:
    return {"to": places(entry.scope)["to"], "level": entry.level}


_NOUN = Noun(
    kind="tls_levels", verb="tls", one="TLS level", nothing="no destination has a level of its own", id="ID", row=_row
)
