"""``docs/reference/cli.md``, from the parsers of all verbs.

Reads the parsers' declarations, not their help texts, which differ between versions of Python.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from mtaq.cli.main import build_full_parser

_HEAD = """\
# Command line

Exit statuses are those of sysexits.h: 0 done, 64 wrong usage, 69 a service is not there, 75 try again later,
78 the configuration is wrong.
"""


def render_cli() -> str:
    """Return the reference of all verbs."""
    return _HEAD + "".join(_section(name, parser, words) for name, parser, words in _verbs("mtaq", build_full_parser()))


def _verbs(prefix: str, parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser, str]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            words = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for verb in sorted(action.choices):
                below = list(_verbs(f"{prefix} {verb}", action.choices[verb]))
                yield from below or [(f"{prefix} {verb}", action.choices[verb], words.get(verb, ""))]


def _section(name: str, parser: argparse.ArgumentParser, words: str) -> str:
    actions = [action for action in parser._actions if not isinstance(action, argparse._HelpAction)]
    rows = "".join(_row(action) for action in actions if action.help is not argparse.SUPPRESS)
    table = f"\n| argument | meaning |\n|---|---|\n{rows}" if rows else ""
    text = parser.description or words
    epilog = f"\n{parser.epilog}\n" if parser.epilog else ""
    return f"\n## `{name}`\n\n{text[:1].upper()}{text[1:].rstrip('.')}.\n{table}{epilog}"


def _row(action: argparse.Action) -> str:
    names = ", ".join(f"`{name}`" for name in action.option_strings)
    value = action.metavar or ("|".join(map(str, action.choices)) if action.choices else action.dest.upper())
    shown = "" if action.nargs == 0 else f"`{value}`"
    cells = (" ".join(part for part in (names, shown) if part), action.help or "")
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"
