"""``mtaq warm-up``: how many messages a day from addresses that nobody knows yet?"""

from __future__ import annotations

import argparse
from datetime import datetime

from mtaq.cli.control import (
    Noun,
    about_of,
    add_about_arguments,
    add_nouns_verbs,
    add_scope_arguments,
    parse_date,
    places,
    put,
    scope_of,
)
from mtaq.cli.parser import Subparsers
from mtaq.cli.state import Row, add_verb, argument, utc_now
from mtaq.config.values import split
from mtaq.model.control import WarmUp
from mtaq.state import control_entries
from mtaq.state.control_values import parse_count

_GROWTH = {"double": 2.0, "steady": 1.5, "gentle": 1.2}


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """Add ``warm-up`` and its verbs."""
    parser = subparsers.add_parser("warm-up", help="daily numbers of messages from new source addresses")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    adding = add_verb(verbs, "add", _add, "let a new source address, or each of a pool, send more from day to day")
    add_scope_arguments(adding)
    adding.add_argument(
        "--steps",
        metavar="N,N,…",
        type=argument(_steps),
        help="messages on the first day, the second, …; the last repeats",
    )
    adding.add_argument("--first", metavar="N", type=argument(parse_count), help="instead: messages on the first day,")
    adding.add_argument(
        "--growth",
        metavar="FACTOR",
        type=argument(_factor),
        help="how many times more each day: a number, double, steady (1.5), gentle (1.2),",
    )
    adding.add_argument("--to", metavar="N", type=argument(parse_count), help="until as many are reached")
    adding.add_argument("--then-unlimited", action="store_true", help="after the last step there is no cap")
    adding.add_argument(
        "--starts", metavar="DAY", type=argument(parse_date), help="the first day, in UTC; today without it"
    )
    add_about_arguments(adding)
    add_nouns_verbs(verbs, _NOUN)


def _steps(text: str) -> tuple[int, ...]:
    return tuple(parse_count(step) for step in split(text, ","))


def _factor(text: str) -> float:
    try:
        return _GROWTH[text] if text in _GROWTH else float(text)
    except ValueError:
        raise ValueError(f"{text!r} is no growth; expected a number, double, steady or gentle") from None


def _add(args: argparse.Namespace) -> int:
    return put(args, _NOUN, lambda now: _made(args, now))


def _made(args: argparse.Namespace, now: datetime) -> WarmUp:
    grown = (args.first, args.growth, args.to)
    if (args.steps is None) == (None in grown):
        raise ValueError("expected --steps, or all of --first, --growth and --to")
    if args.steps is not None and grown != (None, None, None):
        raise ValueError("--steps and growth; expected one of them")
    steps = control_entries.growth(*grown) if args.steps is None else args.steps
    return control_entries.warm_up(
        scope_of(args),
        starts_on=args.starts or now.date(),
        steps=(*steps, 0) if args.then_unlimited else steps,
        about=about_of(args, now),
    )


def _row(warm_up: WarmUp) -> Row:
    day = (utc_now().date() - warm_up.starts_on).days
    today = warm_up.steps[min(day, len(warm_up.steps) - 1)] if day >= 0 else None
    return {
        **places(warm_up.scope),
        "starts": str(warm_up.starts_on),
        "steps": ",".join(map(str, warm_up.steps[:6])) + (",…" if len(warm_up.steps) > 6 else ""),
        "today": "no cap" if not today else str(today),
    }


_NOUN = Noun(kind="warm_ups", verb="warm-up", one="warm-up", nothing="nothing is warmed up", id="ID", row=_row)
