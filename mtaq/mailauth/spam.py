"""What a spam filter says of a message, on its way into ``checks[]`` and Authentication-Results.

Whoever asks the filter stands in ``mtaq.spam``. Filters are the operator's own, yet what they say is bounded: names of
rules may come from files that others write.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, Self

from mtaq.mailauth.verdict import Verdict

SpamWord = Literal["spam", "ham", "none", "temperror"]
"""Beyond what the operator of the filter takes; within it; not looked at; the filter was silent."""

MOST_RULES = 100
_RULE = re.compile(r"[!#-+\--:<-~]{1,100}")  # printable, without blanks, quotes, commas and semicolons


@dataclass(frozen=True, slots=True)
class SpamResult:
    """A spam filter's judgement.

    Attributes:
        word: What it comes to.
        engine: Which filter.
        score: Points; ``None`` when it gave none.
        threshold: From how many points it is spam.
        rules: Names of the rules that gave points, the filter's order.
        action: What Rspamd would have done, in its words; empty for others.
        reason: Why there is no score; empty when there is.
    """

    word: SpamWord
    engine: str
    score: float | None = None
    threshold: float | None = None
    rules: tuple[str, ...] = ()
    action: str = ""
    reason: str = ""

    @classmethod
    def scored(
        cls, word: SpamWord, engine: str, *, score: float, threshold: float, rules: Iterable[str], action: str = ""
    ) -> Self:
        """Return a judgement; rules beyond ``MOST_RULES`` and with odd names are left out.

        Raises:
            ValueError: The numbers are none.
        """
        if not math.isfinite(score) or not math.isfinite(threshold):
            raise ValueError("a score that is no number")
        kept = [rule for rule in rules if _RULE.fullmatch(rule)][:MOST_RULES]
        points, limit = round(score, 3) + 0.0, round(threshold, 3) + 0.0  # no -0.0
        return cls(word, engine, points, limit, tuple(kept), action)

    def to_json(self) -> list[dict[str, Any]]:
        """Return its item of ``checks[]``."""
        item: dict[str, Any] = {"spam": self.word}
        if self.score is not None:
            item |= {"score": self.score, "threshold": self.threshold, "rules": list(self.rules)}
        item["engine"] = self.engine
        item |= {name: text for name, text in (("action", self.action), ("reason", self.reason)) if text}
        return [item]

    def verdicts(self) -> list[Verdict]:
        """Return its part of Authentication-Results, under a method that is not registered (RFC 8601 §2.7.6)."""
        properties = []
        if self.score is not None:
            properties = [("policy.score", f"{self.score:g}"), ("policy.threshold", f"{self.threshold:g}")]
        return [Verdict("x-spam", self.word, self.reason or None, tuple(properties))]
