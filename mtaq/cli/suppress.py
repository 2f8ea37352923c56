"""``mtaq suppress``: who gets nothing?

There may be millions of entries, so they are read, printed and imported piece by piece. A file has one entry a line, in
CSV: pattern, reason, end, sender's domain, tag, of which only the first must be there; a list of addresses is such a
file.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from datetime import datetime
from itertools import islice
from typing import TextIO

from mtaq.cli import exits
from mtaq.cli.control import about_of, add_about_arguments, add_message_arguments, end_of, parse_end
from mtaq.cli.parser import Subparsers
from mtaq.cli.state import Row, add_verb, argument, ask, change, print_done, print_rows, utc_now
from mtaq.model.address import Address
from mtaq.model.control import Suppression
from mtaq.model.times import format_time
from mtaq.smtp.grammar import parse_forward_path
from mtaq.state import Database, control_entries
from mtaq.state.control_database import ControlDatabase
from mtaq.state.control_entries import About
from mtaq.state.control_values import parse_recipients, parse_sender_domain, parse_tag
from mtaq.state.entries import parse_note
from mtaq.state.local_addresses import plain_text

_COLUMNS = ("pattern", "reason", "expires", "sender-domain", "tag")
_TIMEOUT_S = 3600.0
_MOST_MISTAKES_TOLD = 20
_LONGEST_LINE = 5000


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """Add ``suppress`` and its verbs."""
    parser = subparsers.add_parser("suppress", help="the suppression list: who gets nothing")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    adding = add_verb(verbs, "add", _add, "send nothing to these recipients; an entry that is there is replaced")
    removing = add_verb(verbs, "remove", _remove, "send to them again; exit status 1 when an entry was not there")
    for each in (adding, removing):
        each.add_argument(
            "patterns", nargs="+", metavar="RECIPIENTS", type=argument(parse_recipients),
            help="an address, a domain, or a wildcard: *.example.com, info*@example.com",
        )  # fmt: skip
        add_message_arguments(each)
    add_about_arguments(adding)
    listing = add_verb(verbs, "list", _list, "print entries that have not ended, by their patterns")
    listing.add_argument("--limit", metavar="N", type=int, default=1000, help="at most so many; 1000 without it")
    showing = add_verb(verbs, "show", _show, "print the entries that hold an address; exit status 1 without any")
    showing.add_argument("address", metavar="ADDRESS", type=argument(_address), help="as in RCPT")
    importing = add_verb(
        verbs, "import", _import,
        "add what stands in a file; lines that are wrong are told and passed over, and make the exit status 65",
    )  # fmt: skip
    importing.add_argument("file", metavar="FILE", help=f"lines of CSV: {','.join(_COLUMNS)}; - is standard input")
    add_about_arguments(importing)
    add_verb(verbs, "export", _export, "print all entries as import reads them")


def _address(text: str) -> Address:
    return parse_forward_path(text.encode(errors="surrogateescape"), strict=False, smtputf8=True)


def _entries(args: argparse.Namespace, about: About) -> list[Suppression]:
    return [
        control_entries.suppression(pattern, sender_domain=args.sender_domain, tag=args.tag, about=about)
        for pattern in dict.fromkeys(args.patterns)
    ]


def _add(args: argparse.Namespace) -> int:
    now = utc_now()
    entries = _entries(args, about_of(args, now))

    def add(database: Database) -> int:
        return ControlDatabase(database).put_suppressions(entries, now=now)

    change(args, add)
    if args.json:
        print_rows([_row(entry) for entry in entries], as_json=True, nothing="")
    else:
        for entry in entries:
            print(f"suppressed {entry.pattern}")
    return exits.OK


def _remove(args: argparse.Namespace) -> int:
    now = utc_now()
    keys = _entries(args, About(reason="", expires_at=None, automatic=False, created_at=now))

    def remove(database: Database) -> list[Suppression]:
        return ControlDatabase(database).remove_suppressions(keys, now=now)

    removed = [entry.pattern for entry in change(args, remove)]
    missing = [entry.pattern for entry in keys if entry.pattern not in removed]
    return print_done(removed, missing, verb="removed", as_json=args.json)


def _list(args: argparse.Namespace) -> int:
    def read(database: Database) -> list[Suppression]:
        return list(islice(ControlDatabase(database).all_suppressions(utc_now()), max(0, args.limit)))

    print_rows([_row(entry) for entry in ask(args, read)], as_json=args.json, nothing="nobody is suppressed")
    return exits.OK


def _show(args: argparse.Namespace) -> int:
    def read(database: Database) -> list[Suppression]:
        return ControlDatabase(database).suppressions_of(plain_text(args.address), utc_now())

    found = ask(args, read)
    print_rows([_row(entry) for entry in found], as_json=args.json, nothing=f"{args.address} is not suppressed")
    return exits.OK if found else exits.FAILURE


def _import(args: argparse.Namespace) -> int:
    now = utc_now()
    lines = _Lines(args, now)
    with ExitStack() as stack:
        try:
            file = sys.stdin if args.file == "-" else stack.enter_context(_opened(args.file))
        except OSError as error:
            print(f"mtaq suppress: {exits.explain(error)}", file=sys.stderr)
            return exits.of_os_error(error)

        def add(database: Database) -> int:
            return ControlDatabase(database).put_suppressions(lines.entries(file), now=now)

        imported = change(args, add, timeout_s=_TIMEOUT_S)
    if args.json:
        print(json.dumps({"imported": imported, "wrong": lines.wrong}, indent=2))
    else:
        print(f"imported {imported}" + (f", {lines.wrong} lines were wrong" if lines.wrong else ""))
    return exits.DATA if lines.wrong else exits.OK


def _opened(name: str) -> TextIO:
    return open(name, encoding="utf-8-sig", errors="surrogateescape", newline="")


class _Lines:
    """What stands in a file.

    Attributes:
        wrong: Lines that were passed over.
    """

    def __init__(self, args: argparse.Namespace, now: datetime) -> None:
        self.wrong = 0
        self._name = args.file
        self._about = about_of(args, now)
        self._now = now

    def entries(self, file: TextIO) -> Iterator[Suppression]:
        for number, line in enumerate(_bounded(file), 1):
            text = line.strip()
            if not text or text.startswith("#") or (number == 1 and text.partition(",")[0] == _COLUMNS[0]):
                continue
            try:
                yield self._entry(text)
            except ValueError as error:
                self.wrong += 1
                if self.wrong <= _MOST_MISTAKES_TOLD:
                    print(f"{self._name}:{number}: {error}", file=sys.stderr)

    def _entry(self, text: str) -> Suppression:
        if len(text) >= _LONGEST_LINE:
            raise ValueError(f"longer than {_LONGEST_LINE} characters")
        cells = _cells(text)
        if len(cells) > len(_COLUMNS):
            raise ValueError(f"{len(cells)} columns; expected at most {len(_COLUMNS)}: {','.join(_COLUMNS)}")
        pattern, reason, expires, sender_domain, tag = (*cells, *[""] * (len(_COLUMNS) - len(cells)))
        about = self._about
        if reason:
            about = {**about, "reason": parse_note(reason, "the reason")}
        if expires:
            about = {**about, "expires_at": end_of(parse_end(expires), self._now)}
        return control_entries.suppression(
            parse_recipients(pattern),
            sender_domain=parse_sender_domain(sender_domain) if sender_domain else None,
            tag=parse_tag(tag) if tag else None,
            about=about,
        )


def _cells(line: str) -> list[str]:
    if '"' not in line and "," not in line:
        return [line]
    try:
        return next(csv.reader([line], strict=True))
    except csv.Error as error:
        raise ValueError(f"no CSV: {error}") from None


def _bounded(file: TextIO) -> Iterator[str]:
    """Give out lines; one that is too long comes in pieces, each of which is wrong."""
    while line := file.readline(_LONGEST_LINE + 1):
        yield line


def _export(args: argparse.Namespace) -> int:
    def read(database: Database) -> None:
        _print_all(ControlDatabase(database).all_suppressions(utc_now()), as_json=args.json)

    ask(args, read, timeout_s=_TIMEOUT_S)
    return exits.OK


def _print_all(entries: Iterable[Suppression], *, as_json: bool) -> None:
    """Print entries as CSV, or as a JSON object each line."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    if not as_json:
        writer.writerow(_COLUMNS)
    for entry in entries:
        if as_json:
            print(json.dumps({name: value for name, value in _export_row(entry).items() if value != ""}))
        else:
            writer.writerow(_export_row(entry).values())


def _export_row(entry: Suppression) -> dict[str, str]:
    expires = "" if entry.expires_at is None else format_time(entry.expires_at)
    cells = (_spelled(entry.pattern), entry.reason, expires, _sender(entry) or "", entry.tag or "")
    return dict(zip(_COLUMNS, cells, strict=True))


def _spelled(pattern: str) -> str:
    """Return *pattern* so that it can be read again: entries have local-parts without their quotes."""
    try:
        if parse_recipients(pattern) == pattern:
            return pattern
    except ValueError:
        pass
    local_part, _, domain = pattern.rpartition("@")
    escaped = re.sub(r'(["\\])', r"\\\1", local_part)
    return f'"{escaped}"@{domain}'


def _sender(entry: Suppression) -> str | None:
    return "<>" if entry.sender_domain == "" else entry.sender_domain


def _row(entry: Suppression) -> Row:
    return {
        "pattern": entry.pattern,
        "sender-domain": _sender(entry),
        "tag": entry.tag,
        "expires": entry.expires_at,
        "reason": entry.reason,
        "added": entry.created_at,
    }
