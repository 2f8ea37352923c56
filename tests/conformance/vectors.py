"""Vector files of other projects, and the table of our departures from them.

To add a suite:

1. Put its JSON file, as published, into a folder here, its messages into a folder of the same name beside it, and name
   the folder in ``FOLDERS``. Its licence goes into ``LICENSES/`` and into the table of ``LICENSES/README.md``.
   A suite whose licence is not permissive stays in ``../shared/vectors``. What is put here is a file with its
   ``suite``, ``source``, ``licence``, ``elsewhere`` (its path there) and ``ids`` (of its cases, see ``identified``).
2. Write ``test_<folder>.py``: ``@pytest.mark.parametrize("case", params("<folder>/<name>"))``. A case that cannot be
   met is a row of ``departures.json``; the test asserts ``is_met is not departs(suite, case["id"])``, so that a
   departure that is met after all fails too.
3. Run ``scripts/standards``, which counts.

A file has ``cases``, or ``scenarios`` that each have a zone and ``tests`` by name; a test then counts as a case, knows
its scenario under ``scenario``, and is called ``<the scenario's description>/<name>``. A case without ``id`` is called
by its ``file`` or ``about``. Cases of several kinds in one file (``KINDS``) are called ``<kind>/<id or number>`` and
know their ``kind``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

HERE = Path(__file__).parent
#: Where suites are that may not be copied.
ELSEWHERE = HERE.parent.parent.parent / "shared" / "vectors"

FOLDERS = (
    "address", "arc", "authres", "crypt", "dane", "dkim", "dmarc", "mime", "mta-sts", "proxy", "reports", "smtp", "spf",
)  # fmt: skip
#: The vector files, by suite name as ``departures.json`` has it.
SUITES = {f"{folder}/{path.stem}": path for folder in FOLDERS for path in sorted((HERE / folder).glob("*.json"))}


#: Keys of ``mta-sts/mta-sts.json``.
KINDS = ("policies", "txt", "mx_match")


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


@cache
def about(suite: str) -> dict[str, Any]:
    """Return the file that stands here for a suite."""
    loaded: dict[str, Any] = json.loads(SUITES[suite].read_text("utf-8"))
    return loaded


def home(suite: str) -> Path:
    """Return the folder that the paths of a suite's message files start from."""
    return (ELSEWHERE / about(suite)["elsewhere"]).parent if "elsewhere" in about(suite) else SUITES[suite].parent


def is_here(suite: str) -> bool:
    """Can the suite be run? One that may not be copied is not everywhere."""
    return "elsewhere" not in about(suite) or (ELSEWHERE / about(suite)["elsewhere"]).exists()


@cache
def cases(suite: str) -> list[dict[str, Any]]:
    """Return the cases of a suite, each with its ``id``; none when it is not here."""
    if not is_here(suite):
        return []
    loaded = about(suite)
    if "elsewhere" in loaded:
        loaded = json.loads((ELSEWHERE / loaded["elsewhere"]).read_text("utf-8"))
    return list(identified(loaded))


def identified(loaded: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the cases of a vector file, whichever its form is, each with its ``id``."""
    for case in loaded.get("cases", ()):
        yield {"id": case.get("file") or case.get("about"), **case}
    for scenario in loaded.get("scenarios", ()):
        for name, case in scenario["tests"].items():
            yield {**case, "id": f"{scenario['description']}/{name}", "scenario": scenario}
    for kind in KINDS:
        for number, case in enumerate(loaded.get(kind, ()), 1):
            yield {**case, "id": f"{kind}/{case.get('id', number)}", "kind": kind}


def case_ids(suite: str) -> list[str]:
    """Return the ids of a suite's cases, whether it is here or not."""
    ids = about(suite).get("ids") or [case["id"] for case in cases(suite)]
    return [str(case_id) for case_id in ids]


def params(suite: str) -> list[Any]:
    """Return the cases of a suite for ``pytest.mark.parametrize``; skipped, with the reason, when it is not here."""
    if is_here(suite):
        return [pytest.param(case, id=str(case["id"])) for case in cases(suite)]
    absent = pytest.mark.skip(reason="../shared/vectors is not here, and the licence forbids a copy")
    return [pytest.param({"id": case_id}, id=case_id, marks=absent) for case_id in case_ids(suite)]
