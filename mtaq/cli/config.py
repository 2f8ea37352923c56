"""``mtaq config``: is the configuration right, what is in effect, what could stand in it?"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from mtaq.cli import exits
from mtaq.cli.parser import Subparsers
from mtaq.cli.settings import add_settings_arguments, load_or_exit
from mtaq.config.render import render_effective, render_example, render_reference


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """Add ``config`` and its verbs."""
    parser = subparsers.add_parser("config", help="check, show and document the configuration")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    _add_reading(verbs, "check", _check, "report every mistake at once; exit status 78 when there is one")
    _add_reading(verbs, "show", _show, "print the effective values and where each came from; passwords are masked")
    _add_printing(verbs, "example", _example, "print a configuration file with every key")
    _add_printing(verbs, "docs", _docs, "print the reference of all keys")


Verb = Callable[[argparse.Namespace], int]


def _add_reading(verbs: Subparsers[argparse.ArgumentParser], name: str, func: Verb, words: str) -> None:
    parser = verbs.add_parser(name, help=words, description=words)
    add_settings_arguments(parser)
    parser.set_defaults(func=func)


def _add_printing(verbs: Subparsers[argparse.ArgumentParser], name: str, func: Verb, words: str) -> None:
    verbs.add_parser(name, help=words, description=words).set_defaults(func=func)


def _check(args: argparse.Namespace) -> int:
    load_or_exit(args)
    print("the configuration is right")
    return exits.OK


def _show(args: argparse.Namespace) -> int:
    sys.stdout.write(render_effective(load_or_exit(args)))
    return exits.OK


def _example(_args: argparse.Namespace) -> int:
    sys.stdout.write(render_example())
    return exits.OK


def _docs(_args: argparse.Namespace) -> int:
    sys.stdout.write(render_reference())
    return exits.OK
