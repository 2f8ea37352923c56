"""The argument parser that every verb uses.

Differs from the library's in two things: bad usage exits with 64 (``EX_USAGE``), and long options are never
abbreviated, because ``--smtp-t=5`` must not become whatever happens to start like that.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any, NoReturn

from mtaq.cli import exits

Subparsers = argparse._SubParsersAction  # the library has no public name for what add_subparsers returns
"""What a group's ``add_parser`` gets."""


class Parser(argparse.ArgumentParser):
    """An ``ArgumentParser`` with sysexits and without abbreviations; its verbs' parsers are of this class too."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the command line and exit with 64."""
        self.print_usage(sys.stderr)
        self.exit(exits.USAGE, f"{self.prog}: {message}\n")
