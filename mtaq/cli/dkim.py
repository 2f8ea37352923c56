"""``mtaq dkim``: keys to sign with, and the records to publish for them."""

from __future__ import annotations

import argparse
import json
import sys
from datetime import datetime
from pathlib import Path

from mtaq.cli import exits
from mtaq.cli.control import (
    Noun,
    about_of,
    add_about_arguments,
    add_nouns_verbs,
    end_of,
    entries_of,
    made,
    parse_end,
    put,
    refuse,
    write,
)
from mtaq.cli.parser import Subparsers
from mtaq.cli.state import Row, add_verb, argument, utc_now
from mtaq.model.control import DkimKey
from mtaq.state.control_values import parse_domain_only, parse_scope_domain, parse_word
from mtaq.state.dkim_keys import Algorithm, dkim_key, generate, parse_field_name, record_of, zone_line

_ALGORITHMS: dict[str, Algorithm] = {"rsa": "rsa-sha256", "ed25519": "ed25519-sha256"}
_LONGEST_FILE = 20_000


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """Add ``dkim`` and its verbs."""
    parser = subparsers.add_parser("dkim", help="keys to sign with")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    adding = add_verb(
        verbs, "add", _add, "sign with a key that is there, in place of one with the same domain and selector"
    )
    making = add_verb(verbs, "generate", _generate, "make a key, sign with it, and print the record to publish")
    for each in (adding, making):
        each.add_argument("domain", metavar="DOMAIN", type=argument(parse_domain_only), help="d= of the signature")
        each.add_argument("selector", metavar="SELECTOR", type=argument(parse_word), help="s= of the signature")
    adding.add_argument(
        "--key", metavar="FILE", required=True, help="the private key in PEM, RSA or Ed25519; - is standard input"
    )
    making.add_argument("--algorithm", choices=_ALGORITHMS, default="rsa", help="RSA with 2048 bits, or Ed25519")
    for each in (adding, making):
        each.add_argument(
            "--signs", metavar="DOMAIN", action="append", default=[], type=argument(parse_scope_domain),
            help="sign for this domain in From:, perhaps *.example.com; without it for its own; may be repeated",
        )  # fmt: skip
        each.add_argument(
            "--header", dest="headers", metavar="NAME", action="append", default=[], type=argument(parse_field_name),
            help="sign this field as well; may be repeated",
        )  # fmt: skip
        each.add_argument("--starts", metavar="WHEN", type=argument(parse_end), help="not before: as --expires")
        add_about_arguments(each)
    add_nouns_verbs(verbs, _NOUN)
    recording = add_verb(verbs, "record", _record, "print the record to publish for a key; exit status 1 without it")
    recording.add_argument("id", metavar="ID", help="as the list has it")
    revealing = add_verb(verbs, "reveal", _reveal, "print a private key; exit status 1 without it")
    revealing.add_argument("id", metavar="ID", help="as the list has it")


def _add(args: argparse.Namespace) -> int:
    try:
        if args.key == "-":
            pem = sys.stdin.read(_LONGEST_FILE)
        else:
            with Path(args.key).open(encoding="ascii", errors="replace") as file:
                pem = file.read(_LONGEST_FILE)
    except OSError as error:
        print(f"mtaq dkim: {exits.explain(error)}", file=sys.stderr)
        return exits.of_os_error(error)
    return put(args, _NOUN, lambda now: _made(args, pem, now))


def _generate(args: argparse.Namespace) -> int:
    now = utc_now()
    pem = generate(_ALGORITHMS[args.algorithm])
    key: DkimKey = made("dkim", lambda: _made(args, pem, now))
    if any(there.id == key.id for there in entries_of(args, _NOUN.kind)):
        refuse("dkim", f"there is a key {key.id}; expected another selector, or that it is removed first")
    write(args, key, now)
    _print_record(key, as_json=args.json)
    return exits.OK


def _made(args: argparse.Namespace, pem: str, now: datetime) -> DkimKey:
    return dkim_key(
        args.domain,
        args.selector,
        pem,
        signs=args.signs,
        headers=args.headers,
        starts_at=end_of(args.starts, now),
        about=about_of(args, now),
    )


def _record(args: argparse.Namespace) -> int:
    key = _found(args)
    if key is None:
        return exits.FAILURE
    _print_record(key, as_json=args.json)
    return exits.OK


def _reveal(args: argparse.Namespace) -> int:
    key = _found(args)
    if key is None:
        return exits.FAILURE
    print(json.dumps({"id": key.id, "pem": key.pem}, indent=2) if args.json else key.pem.rstrip())
    return exits.OK


def _found(args: argparse.Namespace) -> DkimKey | None:
    key = next((key for key in entries_of(args, _NOUN.kind) if key.id == args.id), None)
    if key is None:
        print(f"mtaq: there is no DKIM key {args.id}", file=sys.stderr)
    return key


def _print_record(key: DkimKey, *, as_json: bool) -> None:
    content = record_of(key.pem)
    print(
        json.dumps({"name": key.id, "type": "TXT", "content": content}, indent=2)
        if as_json
        else zone_line(key.id, content)
    )


def _row(key: DkimKey) -> Row:
    return {
        "domain": key.domain,
        "selector": key.selector,
        "algorithm": key.algorithm,
        "signs": ", ".join(key.signs),
        "starts": key.starts_at,
    }


_NOUN = Noun(kind="dkim_keys", verb="dkim", one="DKIM key", nothing="there is no key", id="ID", row=_row)
