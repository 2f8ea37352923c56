"""Vector files of other projects, and the table of our departures from them."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
#: The vector files, by suite name as ``departures.json`` has it.
SUITES = {
    f"{folder}/{path.stem}": path
    for folder in ("address", "crypt", "proxy", "smtp")
    for path in sorted((HERE / folder).glob("*.json"))
}


class Departure(NamedTuple):
    """Cases of a suite that we do not meet: what we do instead, and why."""

    suite: str
    ids: tuple[str, ...]
    we: str
    reason: str


@cache
def departures() -> tuple[Departure, ...]:
    """Return every departure, in the file's order."""
    rows = json.loads((HERE / "departures.json").read_text("utf-8"))
    return tuple(Departure(row["suite"], tuple(row["ids"]), row["we"], row["reason"]) for row in rows)


def departs(suite: str, case_id: object) -> bool:
    """Is this case listed as one that we do not meet?"""
    return any(row.suite == suite and str(case_id) in row.ids for row in departures())


def load(suite: str) -> dict[str, Any]:
    """Return a vector file."""
    loaded: dict[str, Any] = json.loads(SUITES[suite].read_text("utf-8"))
    return loaded


def cases(suite: str) -> list[dict[str, Any]]:
    """Return the cases of a vector file."""
    found: list[dict[str, Any]] = load(suite)["cases"]
    return found
