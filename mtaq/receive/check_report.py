"""What the checks of a message came to: for ``checks[]``, Authentication-Results, the log and the metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypedDict, cast

from mtaq.config.message_checks import Check
from mtaq.mailauth.verdict import CheckResult, Verdict


@dataclass(frozen=True, slots=True)
class Undecided:
    """A check that came to no result: it was not finished in time, or something in it is broken.

    Attributes:
        check: Which.
        reason: Why, without anybody else's words.
    """

    check: Check
    reason: str

    def to_json(self) -> list[dict[str, Any]]:
        """Return its item of ``checks[]``."""
        return [{self.check: "temperror", "reason": self.reason}]

    def verdicts(self) -> list[Verdict]:
        """Return its part of Authentication-Results."""
        return [Verdict("x-spam" if self.check == "spam" else self.check, "temperror", self.reason)]


@dataclass(frozen=True)
class Report:
    """What the checks came to.

    Attributes:
        results: Those that were wanted and ran, in the order of ``checks[]``.
    """

    results: Mapping[Check, CheckResult]

    @cached_property
    def items(self) -> Mapping[Check, list[dict[str, Any]]]:
        """The items of ``checks[]``, by check."""
        return {check: list(result.to_json()) for check, result in self.results.items()}

    def to_json(self) -> list[dict[str, Any]]:
        """Return ``checks[]``."""
        return [item for items in self.items.values() for item in items]

    def verdicts(self) -> list[Verdict]:
        """Return the parts of Authentication-Results, in the same order."""
        return [verdict for result in self.results.values() for verdict in result.verdicts()]

    def words(self, check: Check) -> list[str]:
        """Return what *check* said: a word, or one for each signature; none when it did not run."""
        return [str(item[check]) for item in self.items.get(check, ())]


class Words(TypedDict, total=False):
    """What the log says of each check; ``None`` is not written."""

    spf: str | None
    dkim: str | None
    dmarc: str | None
    arc: str | None
    iprev: str | None
    spam: str | None


def words_of(report: Report | None) -> Words:
    """Return the words of each check for the log, each once."""
    if report is None:
        return {}
    return cast(Words, {check: ",".join(dict.fromkeys(report.words(check))) for check in report.items})
