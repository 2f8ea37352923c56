"""How the sink misbehaves: which stage of a session fails, how, and how often.

Nothing here is left to chance: with 25 per cent, every fourth occasion of a stage misbehaves, so that a test that
counts gets the same figures each time.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mtaq.model.reply import Reply

#: Where a session can fail. ``ehlo`` is EHLO and HELO; ``message`` is the end of the content.
STAGES = ("connect", "ehlo", "mail", "rcpt", "data", "message")

_match_reply = re.compile(r"([2-5][0-9]{2})(?: +([245]\.[0-9]{1,3}\.[0-9]{1,3}))?(?: +(.*))?").fullmatch
#: Stages whose positive answer the session gives itself: only a refusal can be put in its place.
_REFUSED_ONLY = ("connect", "ehlo", "data")


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens instead of the right answer.

    Attributes:
        reply: Given in its place; ``None`` for the right one.
        drop: Close the connection without any.
        delay_s: Wait so long before.
    """

    reply: Reply | None = None
    drop: bool = False
    delay_s: float = 0.0


class Faults:
    """The faults of a sink, by stage.

    Args:
        percent: Of how many occasions, each stage counted for itself.
    """

    def __init__(self, faults: dict[str, Fault], percent: float = 100.0) -> None:
        self._faults = faults
        self._percent = percent
        self._credit = dict.fromkeys(faults, 0.0)

    def next(self, stage: str) -> Fault | None:
        """Return what goes wrong on this occasion of *stage*."""
        fault = self._faults.get(stage)
        if fault is None:
            return None
        self._credit[stage] += self._percent
        if self._credit[stage] < 100.0:
            return None
        self._credit[stage] -= 100.0
        return fault

    @property
    def in_commands(self) -> bool:
        """Must the commands be looked at before the session gets them?"""
        return "ehlo" in self._faults or "data" in self._faults


def parse_faults(replies: Sequence[str], drops: Sequence[str], delays: Sequence[str]) -> dict[str, Fault]:
    """
    Read ``STAGE=CODE[ TEXT]``, ``STAGE`` and ``STAGE=SECONDS``.

    Raises:
        ValueError: One has another form; says which.
    """
    faults: dict[str, Fault] = {}
    for text in replies:
        stage, value = _stage_and_value(text, "CODE[ TEXT]")
        faults[stage] = replace(faults.get(stage, Fault()), reply=_reply(stage, value))
    for stage in drops:
        _check_stage(stage)
        faults[stage] = replace(faults.get(stage, Fault()), drop=True)
    for text in delays:
        stage, value = _stage_and_value(text, "SECONDS")
        faults[stage] = replace(faults.get(stage, Fault()), delay_s=_seconds(value))
    return faults


def _stage_and_value(text: str, form: str) -> tuple[str, str]:
    stage, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"{text!r}: STAGE={form} is expected")
    _check_stage(stage)
    return stage, value


def _check_stage(stage: str) -> None:
    if stage not in STAGES:
        raise ValueError(f"{stage!r} is not one of {', '.join(STAGES)}")


def _reply(stage: str, text: str) -> Reply:
    match = _match_reply(text)
    if match is None:
        raise ValueError(f"{text!r}: a reply code of three digits is expected, and then its text")
    reply = Reply(int(match[1]), match[2], (match[3] or "as asked",))
    if reply.is_positive and stage in _REFUSED_ONLY:
        raise ValueError(f"{text!r}: at {stage} a 4yz or 5yz code is expected")
    return reply


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0.0 <= seconds <= 86_400.0:
        raise ValueError(f"{text!r}: seconds are expected")
    return seconds
