"""``mtaq pause`` and ``mtaq resume``: what is not delivered for now?"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mtaq.cli.control import (
    Noun,
    about_of,
    add_about_arguments,
    add_message_arguments,
    add_nouns_verbs,
    add_scope_arguments,
    places,
    put,
    refuse,
    remove,
    scope_of,
)
from mtaq.cli.parser import Subparsers
from mtaq.cli.state import Row, add_verb, utc_now
from mtaq.model.control import Pause, Scope
from mtaq.state import control_entries
from mtaq.state.control_database import ControlDatabase


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """Add ``pause`` with its verbs, and ``resume``."""
    parser = subparsers.add_parser("pause", help="what is not delivered for now")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    adding = add_verb(verbs, "add", _add, "deliver nothing that goes this way, until it ends or is resumed")
    _add_conditions(adding, "pause all delivery")
    add_about_arguments(adding)
    add_nouns_verbs(verbs, _NOUN)
    resuming = add_verb(
        subparsers,
        "resume",
        _resume,
        "end pauses: by their ids, or those that were made with the same conditions; exit status 1 without any",
    )
    resuming.add_argument("ids", nargs="*", metavar="ID", help="as mtaq pause list has it")
    _add_conditions(resuming, "end all pauses")


def _add_conditions(parser: argparse.ArgumentParser, everything: str) -> None:
    add_scope_arguments(parser)
    add_message_arguments(parser)
    parser.add_argument("--all", action="store_true", help=everything)


def _conditions(args: argparse.Namespace) -> tuple[Scope, str | None, str | None]:
    return scope_of(args), args.tag, args.sender_domain


def _says_something(args: argparse.Namespace) -> bool:
    return _conditions(args) != (Scope(), None, None)


def _add(args: argparse.Namespace) -> int:
    if args.all == _says_something(args):
        refuse("pause", "expected what to pause, or --all")
    return put(
        args,
        _NOUN,
        lambda now: control_entries.pause(
            scope_of(args), tag=args.tag, sender_domain=args.sender_domain, about=about_of(args, now)
        ),
    )


def _resume(args: argparse.Namespace) -> int:
    if [args.all, bool(args.ids), _says_something(args)].count(True) != 1:
        refuse("resume", "expected ids of pauses, or what was paused, or --all")
    return remove(
        args, _NOUN, lambda control: _found(args, control), nothing="nothing was paused with these conditions"
    )


def _found(args: argparse.Namespace, control: ControlDatabase) -> Sequence[str]:
    if args.ids:
        return list(dict.fromkeys(args.ids))
    now = utc_now()
    return [
        pause.id
        for pause in control.read("pauses")
        if isinstance(pause, Pause)
        and not pause.is_over(now)
        and (args.all or (pause.scope, pause.tag, pause.sender_domain) == _conditions(args))
    ]


def _row(pause: Pause) -> Row:
    return {
        **places(pause.scope),
        "tag": pause.tag,
        "sender": "<>" if pause.sender_domain == "" else pause.sender_domain,
        "automatic": pause.automatic,
    }


_NOUN = Noun(kind="pauses", verb="pause", one="pause", nothing="nothing is paused", id="ID", row=_row)
