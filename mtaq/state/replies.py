"""Which flood or response pattern does a reply match?

Those whose scope holds are gathered by look-ups; the texts of each scope are tried all at once. A reply is the peer's:
only its beginning is looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar

from mtaq.model.control import ReplyPattern, Scope
from mtaq.state.patterns import PatternSet
from mtaq.state.scopes import Scoped, ScopeTable

#: Octets of a reply's text that patterns see; what receivers say stands at the beginning.
MOST_TEXT = 1000


class ReplyRule(Scoped, Protocol):
    """A flood or response pattern."""

    @property
    def position(self) -> int:
        """Lower goes first."""

    @property
    def reply(self) -> ReplyPattern:
        """Which replies are meant."""


R = TypeVar("R", bound=ReplyRule)


class _Group(NamedTuple, Generic[R]):
    """All rules of one scope, in the order of their positions."""

    id: str
    scope: Scope
    rules: Sequence[R]
    texts: PatternSet


class ReplyRules(Generic[R]):
    """All flood patterns, or all response patterns. Immutable."""

    def __init__(self, rules: Iterable[R] = ()) -> None:
        by_scope: dict[Scope, list[R]] = {}
        for rule in sorted(rules, key=lambda rule: (rule.position, rule.id)):
            by_scope.setdefault(rule.scope, []).append(rule)
        self._groups: ScopeTable[_Group[R]] = ScopeTable(
            _Group(
                str(scope), scope, found, PatternSet([(rule.reply.text or "", "regex") for rule in found], whole=False)
            )
            for scope, found in by_scope.items()
        )

    def find(
        self,
        *,
        code: int | None,
        status: str | None,
        text: str,
        source: str | None,
        pools: Sequence[str],
        domain: str,
        site: str | None,
    ) -> list[R]:
        """Return the rules that match, in the order of their positions."""
        if not self._groups:
            return []
        octets = text[:MOST_TEXT].encode("utf-8", "replace")[:MOST_TEXT]
        found = [
            rule
            for group in self._groups.find(source, pools, domain, site)
            for rule in (group.rules[index] for index in group.texts.matching(octets))
            if _begins(rule.reply.code, "" if code is None else str(code)) and _begins_status(rule.reply.status, status)
        ]
        return sorted(found, key=lambda rule: (rule.position, rule.id))


def _begins(wanted: str | None, there: str) -> bool:
    return wanted is None or there.startswith(wanted)


def _begins_status(wanted: str | None, there: str | None) -> bool:
    # Whole numbers only: 4.7 is not the beginning of 4.71.1.
    return wanted is None or (there is not None and f"{there}.".startswith(f"{wanted}."))
