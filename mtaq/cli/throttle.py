"""``mtaq throttle``: how much may go where, and how fast?"""

from __future__ import annotations

import argparse
from dataclasses import fields

from mtaq.cli import exits
from mtaq.cli.control import (
    Noun,
    about_of,
    add_about_arguments,
    add_limit_arguments,
    add_nouns_verbs,
    add_scope_arguments,
    entries_of,
    limits_of,
    places,
    put,
    scope_of,
    words_of,
)
from mtaq.cli.parser import Subparsers
from mtaq.cli.state import Row, add_verb, argument, print_rows, utc_now
from mtaq.model.control import Throttle
from mtaq.state import control_entries
from mtaq.state.control_values import parse_domain_only, parse_site, parse_word
from mtaq.state.entries import parse_ip
from mtaq.state.throttles import Throttles


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """Add ``throttle`` and its verbs."""
    parser = subparsers.add_parser("throttle", help="limits of delivery")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    adding = add_verb(verbs, "add", _add, "limit what goes somewhere, in place of what was said about the same way")
    add_scope_arguments(adding)
    add_limit_arguments(adding)
    adding.add_argument(
        "--together", choices=("sources", "destinations", "both"),
        help="count all source addresses, or all destinations, of this throttle as one",
    )  # fmt: skip
    add_about_arguments(adding)
    add_nouns_verbs(verbs, _NOUN)
    testing = add_verb(verbs, "test", _test, "print the limits that hold from here to there")
    testing.add_argument("--source", metavar="IP", type=argument(parse_ip), help="the source address")
    testing.add_argument(
        "--pool", dest="pools", metavar="NAME", action="append", default=[], type=argument(parse_word),
        help="a pool that it is in; may be repeated",
    )  # fmt: skip
    testing.add_argument(
        "--domain", metavar="DOMAIN", required=True, type=argument(parse_domain_only), help="of a recipient"
    )
    testing.add_argument(
        "--site", metavar="SITE", type=argument(parse_site), help="its mail hosts, separated by commas"
    )


def _add(args: argparse.Namespace) -> int:
    return put(
        args,
        _NOUN,
        lambda now: control_entries.throttle(
            scope_of(args),
            limits_of(args),
            one_for_sources=args.together in ("sources", "both"),
            one_for_sites=args.together in ("destinations", "both"),
            about=about_of(args, now),
        ),
    )


def _test(args: argparse.Namespace) -> int:
    throttles = Throttles(entries_of(args, "throttles"))
    limits = throttles.limits(args.source, args.pools, args.domain, args.site, utc_now)
    found = {each.name: getattr(limits, each.name) for each in fields(limits)}
    rows: list[Row] = [
        {
            "limit": name.replace("_", " "),
            "amount": f"{limit.amount:g}",
            "throttle": limit.counter.split(b":")[1].decode(),
        }
        for name, limit in found.items()
        if limit is not None
    ]
    print_rows(rows, as_json=args.json, nothing="no throttle holds there")
    return exits.OK


def _row(throttle: Throttle) -> Row:
    together = {(True, False): "sources", (False, True): "destinations", (True, True): "both"}
    return {
        **places(throttle.scope),
        "limits": words_of(throttle.limits),
        "together": together.get((throttle.one_for_sources, throttle.one_for_sites)),
        "automatic": throttle.automatic,
    }


_NOUN = Noun(kind="throttles", verb="throttle", one="throttle", nothing="nothing is throttled", id="ID", row=_row)
