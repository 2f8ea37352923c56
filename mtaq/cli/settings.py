"""How verbs get their settings: ``--config PATH`` and ``--key=value`` for every option.

A configuration with mistakes never gets further than here: all of them go to standard error, exit status 78.
"""

from __future__ import annotations

import argparse
import os
import sys

from mtaq.cli import exits
from mtaq.config import DEFAULT_PATH, ConfigErrors, Settings, load


def add_settings_arguments(parser: argparse.ArgumentParser) -> None:
    """Let a verb take ``--config`` and ``--key=value``; ``main`` collects the latter in ``args.overrides``."""
    parser.add_argument(
        "--config", metavar="PATH", help=f"configuration file; without it {DEFAULT_PATH}, which need not exist"
    )
    parser.set_defaults(takes_overrides=True, overrides=())
    parser.epilog = "Every configuration key is an option as well: --key=value, or --key alone for true."


def load_settings(args: argparse.Namespace) -> Settings:
    """Load what the operator gave.

    Raises:
        ConfigErrors: Every mistake in it.
    """
    return load(path=args.config, environ=os.environ, overrides=args.overrides)


def load_or_exit(args: argparse.Namespace) -> Settings:
    """Load what the operator gave and print its warnings; mistakes are printed, and the program ends with 78."""
    try:
        settings = load_settings(args)
    except ConfigErrors as errors:
        print(errors, file=sys.stderr)
        sys.exit(exits.CONFIG)
    for warning in settings.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return settings
