"""MTA-STS (RFC 8461): what a domain's TXT record and its policy say, and which mail hosts a policy means.

Pure. Getting and keeping policies is ``mta_sts_policies``'s work. What is not exactly of its form is none: half a
policy protects nobody.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from mtaq.model.dns import DnsAnswer, Found

Mode = Literal["enforce", "testing", "none"]
_MODES = get_args(Mode)

#: RFC 8461 §3.2: one year. More is taken for that.
MAX_AGE_S = 31_557_600
#: RFC 8461 §3.3 advises a limit on what is read.
MAX_POLICY_BYTES = 65_536
#: Patterns of one policy; a domain has not as many hosts.
MAX_PATTERNS = 100

_RECORD = re.compile(rb"v=STSv1[ \t]*;", re.ASCII)
_TAG = re.compile(rb"[ \t]*([A-Za-z0-9][A-Za-z0-9_.-]{0,31})=([!-:<>-~]+)[ \t]*", re.ASCII)
_ID = re.compile(rb"[A-Za-z0-9]{1,32}", re.ASCII)
_FIELD = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]{0,31}):[ \t]*(.*?)[ \t]*", re.ASCII)
_AGE = re.compile(r"[0-9]{1,10}", re.ASCII)
_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_PATTERN = re.compile(rf"(?=.{{1,253}}$)(\*\.)?{_LABEL}(\.{_LABEL})*", re.ASCII)


@dataclass(frozen=True, slots=True)
class StsPolicy:
    """A policy.

    Attributes:
        mode: ``none`` is as good as no policy.
        mx: Patterns of the hosts that may take mail, lower case; empty with ``none`` alone.
        max_age_s: How long it holds from the moment it was fetched.
    """

    mode: Mode
    mx: tuple[str, ...]
    max_age_s: int

    @property
    def lines(self) -> tuple[str, ...]:
        """The policy as reports show it (RFC 8460 §4.4)."""
        patterns = (f"mx: {pattern}" for pattern in self.mx)
        return ("version: STSv1", f"mode: {self.mode}", *patterns, f"max_age: {self.max_age_s}")

    def names(self, host: str) -> bool:
        """May *host* take mail (RFC 8461 §4.1)? A wildcard stands for exactly one label, the first."""
        host = host.lower()
        return host in self.mx or f"*.{host.partition('.')[2]}" in self.mx


def policy_id(answer: DnsAnswer) -> str | None:
    """Return the id in the answer to ``TXT _mta-sts.<domain>``; ``None`` without exactly one record (RFC 8461 §3.1)."""
    if answer.found is not Found.RECORDS:
        return None
    records = [record for strings in answer.records if _RECORD.match(record := b"".join(strings))]
    return _id_of(records[0]) if len(records) == 1 else None


def _id_of(record: bytes) -> str | None:
    fields = record.split(b";")[1:]
    if fields and not fields[-1].strip(b" \t"):
        fields.pop()
    tags = [_TAG.fullmatch(each) for each in fields]
    if not tags or None in tags:
        return None
    values = [each[2] for each in tags if each is not None and each[1] == b"id"]
    return values[0].decode() if values and _ID.fullmatch(values[0]) else None


def parse_policy(text: bytes) -> StsPolicy:
    """
    Read a policy (RFC 8461 §3.2). Of a field that is there twice the first counts; unknown ones mean nothing.

    Raises:
        ValueError: It is none, with what is wrong.
    """
    if len(text) > MAX_POLICY_BYTES:
        raise ValueError(f"more than {MAX_POLICY_BYTES} bytes")
    first: dict[str, str] = {}
    patterns: list[str] = []
    for line in text.decode("utf-8").removesuffix("\n").split("\n"):
        field = _FIELD.fullmatch(line.removesuffix("\r"))
        if field is None:
            raise ValueError("a line that is no field")
        if field[1] == "mx":
            patterns.append(field[2].lower())
        else:
            first.setdefault(field[1], field[2])
    return _policy(first, patterns)


def _policy(fields: dict[str, str], patterns: Sequence[str]) -> StsPolicy:
    if fields.get("version") != "STSv1":
        raise ValueError("version is not STSv1")
    mode, age = fields.get("mode"), fields.get("max_age", "")
    if mode not in _MODES:
        raise ValueError("mode is none of enforce, testing and none")
    if not _AGE.fullmatch(age):
        raise ValueError("max_age is not a number of seconds")
    if len(patterns) > MAX_PATTERNS or not all(map(_PATTERN.fullmatch, patterns)):
        raise ValueError("mx is not the name of a host or a pattern, or there are too many")
    if not patterns and mode != "none":
        raise ValueError("there is no mx")
    return StsPolicy(cast(Mode, mode), tuple(dict.fromkeys(patterns)), min(int(age), MAX_AGE_S))


def to_json(policy: StsPolicy) -> dict[str, Any]:
    """Return *policy* for keeping."""
    return {"mode": policy.mode, "mx": list(policy.mx), "max-age": policy.max_age_s}


def from_json(kept: Any) -> StsPolicy:
    """
    Return what ``to_json`` was given.

    Raises:
        ValueError: It is something else.
    """
    try:
        fields = {"version": "STSv1", "mode": kept["mode"], "max_age": str(kept["max-age"])}
        return _policy(fields, [str(pattern) for pattern in kept["mx"]])
    except (KeyError, TypeError) as error:
        raise ValueError("not a policy that was kept") from error
