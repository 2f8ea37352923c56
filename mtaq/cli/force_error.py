"""``mtaq force-error``: what is answered in the place of a mail host?"""

from __future__ import annotations

import argparse

from mtaq.cli.control import (
    Noun,
    about_of,
    add_about_arguments,
    add_message_arguments,
    add_nouns_verbs,
    put,
)
from mtaq.cli.parser import Subparsers
from mtaq.cli.state import Row, add_verb, argument
from mtaq.model.control import ForcedError
from mtaq.state import control_entries
from mtaq.state.control_values import parse_count, parse_recipients


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """Add ``force-error`` and its verbs."""
    parser = subparsers.add_parser("force-error", help="errors in the place of a mail host's answer")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    adding = add_verb(verbs, "add", _add, "answer for the mail hosts of these recipients; nothing is sent to them")
    adding.add_argument(
        "pattern", metavar="RECIPIENTS", type=argument(parse_recipients),
        help="an address, a domain, or a wildcard: *.example.com, info*@example.com",
    )  # fmt: skip
    adding.add_argument(
        "--code", required=True, metavar="CODE", type=argument(parse_count), help="400-599; 4yz is tried again"
    )
    adding.add_argument("--status", metavar="STATUS", help="enhanced status code; without it that of the class, x.0.0")
    adding.add_argument("--text", metavar="TEXT", default="refused by the operator", help="the text of the reply")
    add_message_arguments(adding)
    add_about_arguments(adding)
    add_nouns_verbs(verbs, _NOUN)


def _add(args: argparse.Namespace) -> int:
    return put(
        args,
        _NOUN,
        lambda now: control_entries.forced_error(
            args.pattern,
            code=args.code,
            status=args.status,
            text=args.text,
            sender_domain=args.sender_domain,
            tag=args.tag,
            about=about_of(args, now),
        ),
    )


def _row(error: ForcedError) -> Row:
    return {
        "recipients": error.pattern,
        "sender": "<>" if error.sender_domain == "" else error.sender_domain,
        "tag": error.tag,
        "reply": f"{error.code} {error.status} {error.text}",
    }


_NOUN = Noun(
    kind="forced_errors", verb="force-error", one="forced error", nothing="no error is forced", id="ID", row=_row
)
