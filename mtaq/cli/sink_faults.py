"""How the sink misbehaves: at which stage of a session, towards whom, how, and how often.

Decides only; carrying a fault out is ``sink_scripted``'s. Nothing is left to chance unless that is asked for: with 25
per cent every fourth occasion misbehaves, so that a test that counts gets the same figures each time.
"""

from __future__ import annotations

import fnmatch
import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from mtaq.cli.sink_addresses import Place
from mtaq.model.reply import Reply

#: Where a session can fail, in its order. ``ehlo`` is EHLO and HELO, ``handshake`` that of TLS, ``content`` the
#: middle of it, ``message`` its end, ``idle`` the time behind a transaction.
STAGES = (
    "connect", "ehlo", "starttls", "handshake", "auth", "mail", "rcpt", "data", "content", "message", "idle",
    "rset", "noop", "quit",
)  # fmt: skip
#: What is no SMTP: its name in scripts, and what it is.
GARBAGE = {
    "noise": "octets of every value",
    "nul": "a line of NULs",
    "lines": "a reply of 10,000 lines",
    "endless": "a reply whose lines never end",
    "line": "a reply whose one line never ends",
    "plaintext": "a reply in clear, also where TLS is expected",
}

_match_reply = re.compile(r"([2-5][0-9]{2})(?: +([245]\.[0-9]{1,3}\.[0-9]{1,3}))?(?: +(.*))?").fullmatch


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What happens instead of the right answer.

    Attributes:
        reply: Given in its place; ``None`` for the right one. ``{ip}`` and ``{to}`` in it stand for the client's
            address and the last recipient.
        act: ``drop``, ``reset``, ``stall``, one of ``GARBAGE``, or empty.
        delay_s: Wait so long before.
        pace_s: Between two octets of the answer.
        close: Close the connection behind the answer.
        unasked: Say two more replies behind it.
        keep: Keep the message, whatever is answered.
        after_bytes: Of content, before it happens.
        bytes_per_s: Read content no faster; 0 for as fast as it comes.
    """

    reply: Reply | None = None
    act: str = ""
    delay_s: float = 0.0
    pace_s: float = 0.0
    close: bool = False
    unasked: bool = False
    keep: bool = False
    after_bytes: int = 0
    bytes_per_s: int = 0


class Span(NamedTuple):
    """From the how manieth to the how manieth; ``None`` for no end."""

    first: int
    last: int | None

    def __contains__(self, number: object) -> bool:
        return isinstance(number, int) and self.first <= number and (self.last is None or number <= self.last)


@dataclass(slots=True)
class Scene:
    """Where a session is: what conditions are about.

    Attributes:
        place: Our address.
        client_ip: The peer's.
        connection: Which connection to ``place`` this is, from 1.
        message: Which transaction on it, from 1; 0 before the first MAIL.
        helo: The client's name.
        secure: TLS is on.
        sender: The reverse-path of the open transaction, or of the MAIL that is being judged.
        recipients: Forward-paths so far, the one that is being judged included.
    """

    place: Place
    client_ip: str
    connection: int = 1
    message: int = 0
    helo: str = ""
    secure: bool = False
    sender: str = ""
    recipients: list[str] = field(default_factory=list)


Condition = Callable[[Scene], bool]


@dataclass(frozen=True, slots=True)
class Rule:
    """A fault, and when it happens.

    Attributes:
        conditions: All of them must hold.
        percent: Of the occasions on which they do; ``None`` for the sink's own figure.
    """

    stage: str
    fault: Fault
    conditions: tuple[Condition, ...] = ()
    percent: float | None = None


class Faults:
    """The faults of a sink. The first rule that applies, and whose turn it is, counts.

    Args:
        percent: Of how many occasions, for rules that do not say; each rule counts for itself.
        seed: Of a generator of random numbers; ``None`` leaves nothing to chance.
    """

    def __init__(self, rules: Iterable[Rule] = (), percent: float = 100.0, seed: int | None = None) -> None:
        self._rules: defaultdict[str, list[_Counted]] = defaultdict(list)
        for rule in rules:
            self._rules[rule.stage].append(_Counted(rule, percent if rule.percent is None else rule.percent))
        self._rng = None if seed is None else random.Random(seed)  # noqa: S311 - nobody must not guess it

    def __bool__(self) -> bool:
        return bool(self._rules)

    def has(self, *stages: str) -> bool:
        """Is there a rule for one of *stages*?"""
        return any(stage in self._rules for stage in stages)

    def next(self, stage: str, scene: Scene) -> Fault | None:
        """Return what goes wrong on this occasion of *stage*."""
        for counted in self._rules.get(stage, ()):
            if all(condition(scene) for condition in counted.rule.conditions) and counted.is_due(self._rng):
                return counted.rule.fault
        return None


@dataclass(slots=True)
class _Counted:
    rule: Rule
    percent: float
    credit: float = 0.0

    def is_due(self, rng: random.Random | None) -> bool:
        if rng is not None:
            return rng.random() * 100.0 < self.percent
        self.credit += self.percent
        if self.credit < 100.0:
            return False
        self.credit -= 100.0
        return True


# Conditions


def matches(pattern: str) -> Callable[[str], bool]:
    """Return a test for addresses: shell patterns, in any case; without an @ they are about the domain."""
    match = re.compile(fnmatch.translate(pattern.lower())).match
    if "@" in pattern or pattern == "<>":
        return lambda address: match(address.lower() or "<>") is not None
    return lambda address: match(address.lower().rpartition("@")[2]) is not None


# On the command line


def parse_faults(replies: Sequence[str], drops: Sequence[str], delays: Sequence[str]) -> list[Rule]:
    """
    Read ``STAGE=CODE[ TEXT]``, ``STAGE`` and ``STAGE=SECONDS``; what is said of a stage makes one rule.

    Raises:
        ValueError: One has another form; says which.
    """
    found: defaultdict[str, dict[str, object]] = defaultdict(dict)
    for text in replies:
        stage, value = _stage_and_value(text, "CODE[ TEXT]")
        found[stage]["reply"] = parse_reply(value)
    for stage in drops:
        check_stage(stage)
        found[stage]["act"] = "drop"
    for text in delays:
        stage, value = _stage_and_value(text, "SECONDS")
        found[stage]["delay_s"] = parse_seconds(value)
    return [Rule(stage, Fault(**fields)) for stage, fields in found.items()]  # type: ignore[arg-type]  # as above


def _stage_and_value(text: str, form: str) -> tuple[str, str]:
    stage, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"{text!r}: STAGE={form} is expected")
    check_stage(stage)
    return stage, value


def check_stage(stage: str) -> None:
    """
    Check the name of a stage.

    Raises:
        ValueError: There is none of that name.
    """
    if stage not in STAGES:
        raise ValueError(f"{stage!r} is not one of {', '.join(STAGES)}")


def parse_reply(text: str) -> Reply:
    """
    Read a reply: its code, perhaps an enhanced status code, and its text, lines separated by ``|``.

    Raises:
        ValueError: It does not begin with a code.
    """
    match = _match_reply(text)
    if match is None:
        raise ValueError(f"{text!r}: a reply code of three digits is expected, and then its text")
    lines = tuple(line.strip() for line in (match[3] or "as asked").split("|"))
    return Reply(int(match[1]), match[2], lines)


def parse_seconds(text: str) -> float:
    """
    Read a time.

    Raises:
        ValueError: It is no number, negative, or longer than a day.
    """
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0.0 <= seconds <= 86_400.0:
        raise ValueError(f"{text!r}: seconds are expected")
    return seconds
