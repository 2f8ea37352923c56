"""What do the rewrite rules make of a message?

Rules are applied in order; each sees what those before it have made, and each is applied at most once, so they always
come to an end. After a change only later rules are looked for again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from mtaq.model.control import RewriteRule, Rewritten
from mtaq.state.patterns import AddressPatterns, Match, compiled

#: Most rules applied to one message; whoever needs more has written a loop by hand.
MOST_APPLIED = 50
#: Longest path that is rewritten, before and after; SMTP knows none that is longer (RFC 5321 §4.5.3.1.3).
LONGEST_PATH = 320

_find_references = re.compile(r"\\(?:([0-9])|(\\))").sub


class RewriteRules:
    """All rewrite rules. Immutable."""

    def __init__(self, rules: Iterable[RewriteRule] = ()) -> None:
        self._rules = sorted(rules, key=lambda rule: (rule.position, rule.id))
        self._of_recipient = _Side([rule.recipient for rule in self._rules], self._rules)
        by_envelope = [rule.envelope if rule.recipient is None else None for rule in self._rules]
        self._of_envelope = _Side(by_envelope, self._rules)

    def apply(self, envelope: str, recipient: str, tags: Sequence[str], now: datetime) -> Rewritten | None:
        """Return what becomes of a message; ``None`` when no rule applies."""
        if not self._rules:
            return None
        draft = _Draft(envelope, recipient, tags)
        place = -1
        while len(draft.rules) < MOST_APPLIED:
            index = next((each for each in self._candidates(draft, place) if draft.take(self._rules[each], now)), None)
            if index is None or self._rules[index].is_last:
                break
            place = index
        return draft.result() if draft.rules else None

    def _candidates(self, draft: _Draft, after: int) -> list[int]:
        """Return the numbers of the rules behind *after* whose first pattern holds."""
        found = {*self._of_recipient.matching(draft.recipient), *self._of_envelope.matching(draft.envelope)}
        return sorted(index for index in found if index > after)


class _Side:
    """The patterns of one path."""

    def __init__(self, patterns: Sequence[str | None], rules: Sequence[RewriteRule]) -> None:
        self._indexes = [index for index, pattern in enumerate(patterns) if pattern is not None]
        self._patterns = AddressPatterns([(patterns[index] or "", rules[index].kind) for index in self._indexes])

    def matching(self, path: str) -> list[int]:
        if not self._indexes or len(path) > LONGEST_PATH:
            return []
        return [self._indexes[found] for found in self._patterns.matching(path.lower())]


class _Draft:
    """A message while rules are applied to it."""

    def __init__(self, envelope: str, recipient: str, tags: Sequence[str]) -> None:
        self.envelope = envelope
        self.recipient = recipient
        self.rules: list[str] = []
        self._tags = dict.fromkeys(tags)
        self._properties: dict[str, Any] = {}

    def take(self, rule: RewriteRule, now: datetime) -> bool:
        """Apply *rule* if all of its conditions hold; did they?"""
        if rule.is_over(now) or (rule.tag is not None and rule.tag not in self._tags):
            return False
        to_recipient = _match(rule, rule.recipient, self.recipient)
        to_envelope = _match(rule, rule.envelope, self.envelope)
        if (rule.recipient is not None and to_recipient is None) or (rule.envelope is not None and to_envelope is None):
            return False
        recipient = _filled(rule.new_recipient, to_recipient, self.recipient)
        envelope = _filled(rule.new_envelope, to_envelope or to_recipient, self.envelope)
        if len(recipient) > LONGEST_PATH or len(envelope) > LONGEST_PATH:
            return False
        self.recipient, self.envelope = recipient, envelope
        self._properties |= rule.properties
        self._tags |= dict.fromkeys(rule.add_tags)
        for tag in rule.remove_tags:
            self._tags.pop(tag, None)
        self.rules.append(rule.id)
        return True

    def result(self) -> Rewritten:
        return Rewritten(
            envelope=self.envelope,
            recipient=self.recipient,
            tags=tuple(self._tags),
            properties=self._properties,
            rules=tuple(self.rules),
        )


def _match(rule: RewriteRule, pattern: str | None, path: str) -> Match | None:
    if pattern is None:
        return None
    return compiled(pattern, rule.kind, captures=True).fullmatch(path.encode("utf-8", "replace"))


def _filled(template: str | None, match: Match | None, unchanged: str) -> str:
    """Return *template* with what the groups of *match* hold in place of ``\\1`` …, and ``\\\\`` for a backslash."""
    if template is None:
        return unchanged

    def fill(reference: re.Match[str]) -> str:
        if reference[2]:
            return "\\"
        held: bytes | None = match.group(int(reference[1])) if match is not None else None
        return (held or b"").decode("utf-8", "replace")

    return _find_references(fill, template)


def check_template(template: str, groups: int) -> None:
    """Refuse a template that names groups beyond *groups*.

    Raises:
        ValueError: It does.
    """
    highest = max((int(found[0]) for found in re.findall(r"\\(?:([0-9])|(\\))", template) if found[0]), default=0)
    if highest > groups:
        raise ValueError(f"{template!r} asks for \\{highest}, but the pattern has {groups} parts to take from")
