"""The script of a sink: one rule or setting to a line, in words.

    STAGE [CONDITION ...] [N%]: [MODIFIER, ...] ANSWER
    SETTING [at=ADDRESS]: VALUE

Pure. All mistakes of a script are told at once, each with its line and what is expected (``ScriptError``).
docs/guide/sink.md explains the words.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mtaq.cli.sink_addresses import Places
from mtaq.cli.sink_faults import (
    GARBAGE,
    STAGES,
    Condition,
    Fault,
    Rule,
    Span,
    matches,
    parse_reply,
    parse_seconds,
)
from mtaq.cli.sink_profile import SETTINGS, Setting, parse_setting
from mtaq.cli.sink_texts import TEXTS
from mtaq.config.values import integer

_TRANSACTION = STAGES[STAGES.index("mail") :]
_WITH_RECIPIENTS = ("rcpt", "data", "content", "message", "idle")
_ACTS = ("drop", "reset", "stall", *GARBAGE)
_split_modifier = re.compile(r"(\w+)(?: +([^,]+?))? *(?:,|$) *").match
_count = integer(1, 1_000_000_000)


class ScriptError(ValueError):
    """What is wrong with a script: a line for each mistake."""


@dataclass(frozen=True, slots=True)
class Script:
    """A script that has been read.

    Attributes:
        rules: In their order.
        settings: In theirs.
    """

    rules: tuple[Rule, ...] = ()
    settings: tuple[Setting, ...] = ()

    def __add__(self, other: Script) -> Script:
        return Script(self.rules + other.rules, self.settings + other.settings)


def parse_script(text: str, name: str) -> Script:
    """
    Read a script.

    Args:
        name: Of the file, for what is said about mistakes.

    Raises:
        ScriptError: With every mistake.
    """
    script, mistakes = Script(), []
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        try:
            script += parse_line(stripped)
        except ValueError as error:
            mistakes.append(f"{name}:{number}: {error}")
    if mistakes:
        raise ScriptError("\n".join(mistakes))
    return script


def parse_line(line: str) -> Script:
    """
    Read one line.

    Raises:
        ValueError: Says what is wrong, and what is expected.
    """
    head, value = _split(line)
    name, *conditions = head.split()
    if name in SETTINGS:
        return Script(settings=(Setting(parse_setting(name, value), tuple(_settings_places(conditions))),))
    if name not in STAGES:
        raise ValueError(f"{name!r} is neither a stage ({', '.join(STAGES)}) nor a setting ({', '.join(SETTINGS)})")
    percent, tests = _conditions(name, conditions)
    return Script(rules=(Rule(name, _fault(name, value), tuple(tests), percent),))


def text_rule(name: str) -> Rule:
    """
    Return the rule that a receiver's text stands for, at the stage where it is usual.

    Raises:
        ValueError: There is none of that name.
    """
    if name not in TEXTS:
        raise ValueError(f"{name!r} is not one of {', '.join(TEXTS)}")
    text = TEXTS[name]
    return Rule(text.stage, Fault(reply=text.reply))


def _split(line: str) -> tuple[str, str]:
    """The colon that counts is the first one at the end of a word; those inside are of addresses."""
    match = re.match(r"(\S.*?):(?:\s+|$)", line)
    if match is None:
        raise ValueError("STAGE: ANSWER or SETTING: VALUE is expected")
    return match[1], line[match.end() :].strip()


def _settings_places(words: Iterable[str]) -> Iterable[Places]:
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or key != "at":
            raise ValueError(f"{word!r}: a setting knows at=IP[:PORT] only")
        yield Places.parse(value)


# Conditions


def _conditions(stage: str, words: Iterable[str]) -> tuple[float | None, list[Condition]]:
    percent, tests = None, []
    for word in words:
        if word.endswith("%"):
            percent = _percent(word)
            continue
        key, equals, value = word.partition("=")
        if not equals or key not in CONDITIONS:
            raise ValueError(f"{word!r}: N% or one of {', '.join(f'{name}=' for name in CONDITIONS)} is expected")
        stages, parse = CONDITIONS[key]
        if stage not in stages:
            raise ValueError(f"{word!r}: nothing is known of that at {stage}, but at {', '.join(stages)}")
        tests.append(_rcpt_to(value) if (stage, key) == ("rcpt", "to") else parse(value))
    return percent, tests


def _percent(word: str) -> float:
    try:
        percent = float(word[:-1])
    except ValueError:
        percent = -1.0
    if not 0.0 <= percent <= 100.0:
        raise ValueError(f"{word!r}: 0% to 100% is expected")
    return percent


def _at(text: str) -> Condition:
    places = Places.parse(text)
    return lambda scene: scene.place in places


def _client(text: str) -> Condition:
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(f"{text!r}: an IP address or CIDR range is expected") from error
    return lambda scene: ipaddress.ip_address(scene.client_ip) in network


def _helo(text: str) -> Condition:
    match = matches(f"@{text}")
    return lambda scene: match(f"@{scene.helo}")


def _from(text: str) -> Condition:
    match = matches(text)
    return lambda scene: match(scene.sender)


def _to(text: str) -> Condition:
    """Any of them."""
    match = matches(text)
    return lambda scene: any(match(recipient) for recipient in scene.recipients)


def _rcpt_to(text: str) -> Condition:
    """The one in question alone."""
    match = matches(text)
    return lambda scene: match(scene.recipients[-1])


def _tls(text: str) -> Condition:
    if text not in ("yes", "no"):
        raise ValueError(f"{text!r}: yes or no is expected")
    wanted = text == "yes"
    return lambda scene: scene.secure is wanted


def _span(text: str) -> Span:
    first, dash, last = text.partition("-")
    try:
        return Span(_count(first), (_count(last) if last else None) if dash else _count(first))
    except ValueError as error:
        raise ValueError(f"{text!r}: a number such as 2, 2-5 or 2- is expected") from error


def _message(text: str) -> Condition:
    span = _span(text)
    return lambda scene: scene.message in span


def _connection(text: str) -> Condition:
    span = _span(text)
    return lambda scene: scene.connection in span


#: By their names: the stages at which they mean something, and what reads them.
CONDITIONS: Mapping[str, tuple[tuple[str, ...], Callable[[str], Condition]]] = {
    "at": (STAGES, _at),
    "client": (STAGES, _client),
    "connection": (STAGES, _connection),
    "tls": (STAGES, _tls),
    "helo": (STAGES[STAGES.index("starttls") :], _helo),
    "message": (_TRANSACTION, _message),
    "from": (_TRANSACTION[: _TRANSACTION.index("rset")], _from),
    "to": (_WITH_RECIPIENTS, _to),
}


# Answers


def _fault(stage: str, text: str) -> Fault:
    fields: dict[str, Any] = {}
    while (match := _split_modifier(text)) is not None and match[1] in MODIFIERS:
        stages, value = MODIFIERS[match[1]]
        if stages and stage not in stages:
            raise ValueError(f"{match[1]!r} means something at {', '.join(stages)} only")
        fields |= value(match[2] or "")
        text = text[match.end() :]
    fields |= _answer(stage, text, bool(fields))
    if stage == "content" and fields.get("reply") and fields["reply"].is_positive:
        raise ValueError("in the middle of content a 4yz or 5yz reply is expected")
    return Fault(**fields)


def _answer(stage: str, text: str, has_modifier: bool) -> dict[str, Any]:
    if text in _ACTS:
        return {"act": text}
    if text in TEXTS:
        return {"reply": TEXTS[text].reply}
    if text == "ok" or (not text and has_modifier):
        if stage == "idle":
            raise ValueError("at idle a reply, drop or reset is expected")
        return {}
    if not text[:1].isdigit():
        names = ", ".join(_ACTS)
        expected = f"a reply such as 450 4.2.0 later, ok, {names}, or the name of a text such as gmail:rate"
        raise ValueError(f"{text!r}: {expected} is expected; before it {', '.join(MODIFIERS)}")
    return {"reply": parse_reply(text)}


def _flag(name: str) -> Callable[[str], dict[str, Any]]:
    def parse(text: str) -> dict[str, Any]:
        if text:
            raise ValueError(f"{text!r}: no value is expected")
        return {name: True}

    return parse


def _number(name: str) -> Callable[[str], dict[str, Any]]:
    def parse(text: str) -> dict[str, Any]:
        try:
            return {name: _count(text)}
        except ValueError as error:
            raise ValueError(f"{text!r}: a number of octets is expected") from error

    return parse


#: What stands before an answer, and at which stages alone (empty: at all).
MODIFIERS: Mapping[str, tuple[tuple[str, ...], Callable[[str], dict[str, Any]]]] = {
    "wait": ((), lambda text: {"delay_s": parse_seconds(text)}),
    "pace": ((), lambda text: {"pace_s": parse_seconds(text)}),
    "close": ((), _flag("close")),
    "unasked": ((), _flag("unasked")),
    "keep": (("message",), _flag("keep")),
    "after": (("content",), _number("after_bytes")),
    "read": (("content",), _number("bytes_per_s")),
}
