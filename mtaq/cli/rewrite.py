"""``mtaq rewrite``: what is changed in messages before they are delivered?"""

from __future__ import annotations

import argparse
import json

from mtaq.cli import exits
from mtaq.cli.control import (
    Noun,
    about_of,
    add_about_arguments,
    add_change_arguments,
    add_nouns_verbs,
    add_position_argument,
    entries_of,
    put,
)
from mtaq.cli.parser import Subparsers
from mtaq.cli.state import Row, add_verb, argument, utc_now
from mtaq.model.control import RewriteRule
from mtaq.state import control_entries
from mtaq.state.control_values import parse_tag
from mtaq.state.entries import KINDS
from mtaq.state.rewriting import RewriteRules


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """Add ``rewrite`` and its verbs."""
    parser = subparsers.add_parser("rewrite", help="changes of messages before they are delivered")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    adding = add_verb(
        verbs, "add", _add, "change messages whose addresses match, in place of a rule with the same conditions"
    )
    adding.add_argument("--recipient", metavar="PATTERN", help="pattern of recipients: *@example.com")
    adding.add_argument("--envelope", metavar="PATTERN", help="pattern of reverse-paths; nothing is the null one")
    adding.add_argument("--kind", choices=KINDS, help="how both patterns are read; wildcard without it")
    adding.add_argument("--tag", metavar="TAG", type=argument(parse_tag), help="only messages with this tag")
    adding.add_argument(
        "--new-recipient", metavar="ADDRESS", help=r"\1, \2 … are what * and ?, or the groups, of the pattern matched"
    )
    adding.add_argument("--new-envelope", metavar="ADDRESS", help="likewise; nothing is the null reverse-path")
    add_change_arguments(adding)
    adding.add_argument(
        "--remove-tag", dest="remove_tags", metavar="TAG", action="append", default=[], type=argument(parse_tag),
        help="take a tag off; may be repeated",
    )  # fmt: skip
    adding.add_argument("--last", action="store_true", help="look at no further rule after this one")
    add_position_argument(adding)
    add_about_arguments(adding)
    add_nouns_verbs(verbs, _NOUN)
    testing = add_verb(verbs, "test", _test, "print what the rules make of a message; exit status 1 when none applies")
    testing.add_argument("recipient", metavar="RECIPIENT", help="its recipient")
    testing.add_argument("--envelope", metavar="ADDRESS", default="", help="its reverse-path; without it the null one")
    testing.add_argument(
        "--tag", dest="tags", metavar="TAG", action="append", default=[], help="a tag of it; may be repeated"
    )


def _add(args: argparse.Namespace) -> int:
    return put(
        args,
        _NOUN,
        lambda now: control_entries.rewrite_rule(
            position=args.position,
            kind=args.kind,
            recipient=args.recipient,
            envelope=args.envelope,
            tag=args.tag,
            new_recipient=args.new_recipient,
            new_envelope=args.new_envelope,
            properties=dict(args.properties),
            add_tags=args.add_tags,
            remove_tags=args.remove_tags,
            is_last=args.last,
            about=about_of(args, now),
        ),
    )


def _test(args: argparse.Namespace) -> int:
    rewritten = RewriteRules(entries_of(args, "rewrite_rules")).apply(
        args.envelope, args.recipient, args.tags, utc_now()
    )
    if rewritten is None:
        print("{}" if args.json else "no rule applies")
        return exits.FAILURE
    found = {
        "recipient": rewritten.recipient,
        "envelope": rewritten.envelope,
        "tags": list(rewritten.tags),
        "properties": rewritten.properties,
        "rules": list(rewritten.rules),
    }
    if args.json:
        print(json.dumps(found, indent=2))
    else:
        for name, value in found.items():
            print(f"{name}: {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}")
    return exits.OK


def _row(rule: RewriteRule) -> Row:
    return {
        "position": str(rule.position),
        "recipient": rule.recipient,
        "envelope": "<>" if rule.envelope == "" else rule.envelope,
        "tag": rule.tag,
        "changes": ", ".join(_changes(rule)),
    }


def _changes(rule: RewriteRule) -> list[str]:
    found = [f"recipient {rule.new_recipient}"] if rule.new_recipient is not None else []
    found += [f"envelope {rule.new_envelope or '<>'}"] if rule.new_envelope is not None else []
    found += [f"{name}={json.dumps(value)}" for name, value in rule.properties.items()]
    found += [f"+{tag}" for tag in rule.add_tags] + [f"-{tag}" for tag in rule.remove_tags]
    return [*found, "last"] if rule.is_last else found


_NOUN = Noun(
    kind="rewrite_rules", verb="rewrite", one="rewrite rule", nothing="nothing is rewritten", id="ID", row=_row
)
