"""Writes docs/reference/standards.md from what the code cites and what the vector tables say.

Sources: ``RFC nnnn §x`` in ``mtaq/``, ``rfcs.json`` (titles, extent, choices), ``departures.json`` and the vector
files beside this module. ``python -m tests.conformance.standards`` writes the page; with ``--check`` it only compares,
and exits 1 when the page is stale.
"""

from __future__ import annotations

import json
import re
import sys
from collections import defaultdict
from typing import NamedTuple

from tests.conformance.vectors import HERE, SUITES, about, case_ids, departures

ROOT = HERE.parent.parent
PAGE = ROOT / "docs" / "reference" / "standards.md"

_find_citations = re.compile(r"RFC (\d{3,5})((?:,? §\d[\d.]*\d|,? §\d)*)").findall


class Standard(NamedTuple):
    """A row of ``rfcs.json``. *extent* is ``followed``, ``partly`` or ``cited`` (in part of its matter only)."""

    number: int
    title: str
    extent: str
    choices: list[str]


def citations() -> dict[int, dict[str, set[str]]]:
    """Return RFC number → module → sections cited there."""
    found: dict[int, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for path in sorted((ROOT / "mtaq").rglob("*.py")):
        # A citation may be broken over lines of a docstring or comment.
        text = re.sub(r"\s*\n\s*(?:# ?)?", " ", path.read_text("utf-8"))
        for number, sections in _find_citations(text):
            module = path.relative_to(ROOT).with_suffix("").as_posix()
            found[int(number)][module].update(re.findall(r"§[\d.]+", sections))
    return found


def standards() -> dict[int, Standard]:
    """Return ``rfcs.json`` by number."""
    rows = json.loads((HERE / "rfcs.json").read_text("utf-8"))
    return {row["number"]: Standard(**row) for row in rows}


def render() -> str:
    """Return the page."""
    return "\n".join([*_intro(), *_rfcs(), *_choices(), *_suites()]) + "\n"


def _intro() -> list[str]:
    return [
        "<!-- Written by scripts/standards; do not edit. -->",
        "# Standards",
        "",
        "Which standards mtaq cites, what it chose where they leave a choice, and how it fares on others' tests.",
        "`cited` means in the matter named only.",
        "",
    ]


def _rfcs() -> list[str]:
    known = standards()
    lines = ["## RFCs", "", "| RFC | title | extent | cited in |", "| --- | --- | --- | --- |"]
    for number, modules in sorted(citations().items()):
        row = known.get(number, Standard(number, "", "cited", []))
        places = "; ".join(_place(module, sections) for module, sections in modules.items())
        lines.append(f"| {number} | {row.title} | {row.extent} | {places} |")
    return [*lines, ""]


def _place(module: str, sections: set[str]) -> str:
    ordered = sorted(sections, key=lambda section: [int(part) for part in section[1:].split(".") if part])
    return " ".join([f"`{module}`", *ordered])


def _choices() -> list[str]:
    lines = ["## Choices and deviations", ""]
    for row in sorted(standards().values()):
        if row.choices:
            lines += [f"### RFC {row.number}: {row.title}", "", *(f"- {choice}" for choice in row.choices), ""]
    return lines


def _suites() -> list[str]:
    lines = [
        "## Test suites of others",
        "",
        "Every case is met but for the departures listed; the tests fail when a listed departure is met after all.",
        "Dialogs of other servers are played with `smtp-validate-address: loose`, and classes of replies are compared.",
        "",
    ]
    lines += ["| suite | cases | met | departures |", "| --- | --- | --- | --- |", *map(_counts, SUITES), ""]
    for suite in SUITES:
        lines += _suite(suite)
    return lines[:-1]


def _counts(suite: str) -> str:
    total, missed = len(case_ids(suite)), _missed(suite)
    return f"| {suite} | {total} | {total - missed} | {missed} |"


def _missed(suite: str) -> int:
    return sum(len(row.ids) for row in departures() if row.suite == suite)


def _suite(suite: str) -> list[str]:
    vectors = about(suite)
    rows = [row for row in departures() if row.suite == suite]
    total = len(case_ids(suite))
    missed = _missed(suite)
    lines = [
        f"### {suite}: {vectors['suite']}",
        "",
        f"Source: {vectors['source']}.",
        f"{total - missed} of {total} cases met.",
        "",
    ]
    if rows:
        lines += ["| case | mtaq | reason |", "| --- | --- | --- |"]
        lines += [f"| {'<br>'.join(f'`{case}`' for case in row.ids)} | {row.we} | {row.reason} |" for row in rows]
        lines.append("")
    return lines


def main(arguments: list[str]) -> int:
    """Write or, with ``--check``, compare the page; return the exit status."""
    page = render()
    if "--check" in arguments:
        return 0 if PAGE.exists() and PAGE.read_text("utf-8") == page else 1
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(page, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
