"""What one check says of a message, in the words of RFC 8601, on its way into Authentication-Results.

Each check has a result of its own, with a ``to_json`` for ``checks[]`` and a ``verdict`` for the header field.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

Word = Literal["none", "pass", "fail", "softfail", "neutral", "policy", "temperror", "permerror"]
"""RFC 8601 §2.7."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One ``resinfo`` of Authentication-Results (RFC 8601 §2.2).

    Attributes:
        method: Such as ``spf``.
        result: A word of RFC 8601; for methods that are not registered one of their own.
        reason: For people; ``None`` for none.
        properties: ``ptype.property`` and value, in order, such as ``("smtp.mailfrom", "example.com")``.
    """

    method: str
    result: str
    reason: str | None = None
    properties: tuple[tuple[str, str], ...] = ()


class CheckResult(Protocol):
    """What every check returns."""

    def to_json(self) -> Sequence[dict[str, Any]]:
        """Return its items of ``checks[]``: one, or one for each signature."""

    def verdicts(self) -> Sequence[Verdict]:
        """Return its parts of Authentication-Results, in the same order."""
