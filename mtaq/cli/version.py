"""``mtaq version``: what is installed, for reports of what went wrong."""

from __future__ import annotations

import argparse
import platform
from importlib.metadata import PackageNotFoundError, version

from mtaq.cli import exits
from mtaq.cli.parser import Subparsers
from mtaq.version import __version__


def add_parser(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """Add ``version``."""
    words = "print the version of mtaq, Python and the event loop"
    subparsers.add_parser("version", help=words, description=words).set_defaults(func=_version)


def _version(_args: argparse.Namespace) -> int:
    print(f"mtaq {__version__} ({platform.python_implementation()} {platform.python_version()}, {_event_loop()})")
    return exits.OK


def _event_loop() -> str:
    try:
        return f"uvloop {version('uvloop')}"
    except PackageNotFoundError:
        return "asyncio"
