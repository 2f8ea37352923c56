"""docs/reference/standards.md and the table of departures behind it."""

from __future__ import annotations

import pytest

from tests.conformance.standards import main
from tests.conformance.vectors import SUITES, case_ids, cases, departures, is_here


def test_the_page_is_fresh() -> None:
    """The committed page is what ``scripts/standards`` writes."""
    assert main(["--check"]) == 0, "run scripts/standards"


def test_departures_name_cases_that_exist() -> None:
    """Every departure is of a known case, listed once, with what we do and why."""
    seen: set[tuple[str, str]] = set()
    for row in departures():
        assert row.suite in SUITES
        known = set(case_ids(row.suite))
        for case_id in row.ids:
            assert case_id in known, case_id
            assert (row.suite, case_id) not in seen, case_id
            seen.add((row.suite, case_id))
        assert row.we
        assert row.reason


@pytest.mark.parametrize("suite", SUITES)
def test_every_case_has_a_name_of_its_own(suite: str) -> None:
    """No two cases of a suite share an id, and a suite kept elsewhere has the cases that are listed here."""
    ids = case_ids(suite)
    assert "None" not in ids
    assert len(set(ids)) == len(ids)
    if is_here(suite):
        assert [str(case["id"]) for case in cases(suite)] == ids
