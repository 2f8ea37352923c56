"""Imports point downwards, and what only one package may do no other does.

Read from the sources, so an import inside a function or for types counts as well.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "mtaq"

LAYERS = [
    {"version"},
    {"model"},
    {"mime"},
    {"smtp", "mailauth", "reports", "limits", "config", "telemetry"},
    {"receive", "deliver"},
    {"broker", "store", "hooks", "dns", "net", "smtpauth", "spam", "state"},
    {"client", "console"},
    {"assembly", "cli", "__main__"},
]
"""From the bottom to the top. Neighbours in a layer do not know each other, but for the topmost."""

RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
TOP = len(LAYERS) - 1

KEPT_TO = {
    "aio_pika": {"broker"},
    "aiormq": {"broker"},
    "pamqp": {"broker"},
    "sqlite3": {"broker"},
    "sqlalchemy": {"state"},
    "psycopg": {"state"},
    "re2": {"state"},
    "dns": {"dns"},
    "aiosmtpd": {"receive"},
    "aiosmtplib": {"cli"},
    "socket": {"net", "receive", "assembly", "dns"},  # the latter: what was accepted, our name, kinds of sockets
    "prometheus_client": {"telemetry"},
    "argparse": {"cli"},
    "nh3": {"mime"},
    "dkim": {"mailauth"},
    "spf": {"mailauth"},
    "authres": {"mailauth"},
    "flufl": {"reports"},
    "checkdmarc": {"cli"},
    "tnefparse": {"mime"},
}
"""What is used by some packages only."""

OPENS_SOCKETS = {"open_connection", "open_unix_connection", "start_server", "start_unix_server", "create_connection",
                 "create_server", "create_unix_connection", "create_unix_server", "create_datagram_endpoint",
                 "sock_connect", "sock_accept", "socket", "socketpair", "fromfd"}  # fmt: skip
MAY_OPEN_SOCKETS = {"net"}
SINK = "mtaq.cli.sink"
"""The test MX stands outside of the program that it tests."""

SOURCES = sorted(PACKAGE.rglob("*.py"))


def module_of(path: Path) -> str:
    """The dotted name of a source file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str:
    """The package under ``mtaq`` that a module belongs to; empty for ``mtaq`` itself."""
    return [*module.split("."), ""][1]


def imports_of(tree: ast.AST) -> Iterator[str]:
    """Every module imported, dotted; ``from mtaq import cli`` counts as ``mtaq.cli``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def misplaced(module: str, source: str) -> list[str]:
    """What one module's source does that its place does not allow."""
    room, tree = room_of(module), ast.parse(source)
    found = []
    for imported in imports_of(tree):
        first = imported.split(".")[0]
        if first == "mtaq" and not may_import(room, room_of(imported)):
            found.append(f"{module} imports {imported}")
        if room not in KEPT_TO.get(first, {room}) and not module.startswith(SINK):
            found.append(f"{module} imports {imported}")
    if room not in MAY_OPEN_SOCKETS and not module.startswith(SINK):
        found += [f"{module} calls {name}" for name in called(tree) & OPENS_SOCKETS]
    return found


def may_import(importer: str, imported: str) -> bool:
    """Does the layer of one package allow it to import another?"""
    if importer == imported or imported == "":
        return True
    rank, below = RANK.get(importer, 0), RANK[imported]
    return below < rank or rank == below == TOP


def called(tree: ast.AST) -> set[str]:
    """The names of all methods and functions called."""
    functions = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    return {function.attr for function in functions if isinstance(function, ast.Attribute)}


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_module_keeps_to_its_place(path):
    """Imports point downwards; queues, DNS and sockets each have one room."""
    assert misplaced(module_of(path), path.read_text(encoding="utf-8")) == []


def test_every_package_has_its_layer():
    """No package stands outside of the layers."""
    assert {room_of(module_of(path)) for path in SOURCES} - {""} <= RANK.keys()


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("mtaq.receive.x", "from mtaq.deliver import intake"),
        ("mtaq.receive.x", "import mtaq.broker.port"),
        ("mtaq.receive.x", "def f():\n    from mtaq.net import streams"),
        ("mtaq.model.x", "from mtaq.config import Settings"),
        ("mtaq.config.x", "from mtaq.telemetry.events import EventLog"),
        ("mtaq.broker.x", "from mtaq import dns"),
        ("mtaq.deliver.x", "import aio_pika"),
        ("mtaq.net.x", "import sqlite3"),
        ("mtaq.deliver.x", "from dns import resolver"),
        ("mtaq.deliver.x", "import socket"),
        ("mtaq.receive.x", "import socket\nsocket.socket()"),
        ("mtaq.deliver.x", "async def f():\n    await asyncio.open_connection('x', 1)"),
    ],
)
def test_the_rules_can_fail(module, source):
    """Each rule refuses what it is there to refuse."""
    assert misplaced(module, source)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("mtaq.receive.x", "from mtaq.smtp import grammar\nfrom mtaq.receive import ports\nimport mtaq.version"),
        ("mtaq.broker.x", "import aio_pika, sqlite3\nfrom mtaq.model import errors"),
        ("mtaq.assembly", "from mtaq.receive import x\nfrom mtaq.cli import y"),
        ("mtaq.net.x", "import socket"),
    ],
)
def test_the_rules_allow_what_is_right(module, source):
    """Downwards, within a package and at the top nothing is in the way."""
    assert misplaced(module, source) == []
