"""May this client send for that domain? ``check_host()`` of RFC 7208 §4, for one identity.

A generator that yields questions; an answer that is there already is not asked for again. All bounds of RFC 7208
§4.6.4 but the one on time hold here: whoever runs it bounds that. Never raises for anything a stranger wrote: a
mistake is ``permerror``, a failure of DNS ``temperror``.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from mtaq.mailauth.asking import MAX_QUESTIONS, Steps
from mtaq.mailauth.spf_record import (
    Directive,
    MacroString,
    Record,
    RecordError,
    expand,
    is_record,
    parse_explanation,
    parse_record,
    uses,
)
from mtaq.mailauth.verdict import Word
from mtaq.model.dns import DnsAnswer, Found, Question, RecordType

#: Terms that ask DNS, names that do not exist, hosts of an ``mx``, names of a client (RFC 7208 §4.6.4, §5.5).
MAX_TERMS = 10
MAX_VOIDS = 2
MAX_MX = 10
MAX_NAMES = 10
#: Fits a line of a reply (RFC 5321 §4.5.3.1.5) with room for who says so.
MAX_EXPLANATION = 400
_NAME_MAX = 253

_is_printable = re.compile(r"[ -~]+").fullmatch
_NO_NAME = DnsAnswer(Found.NO_NAME)

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Client:
    """Who sends.

    Attributes:
        ip: An IPv4-mapped one as IPv4, none with a scope.
        helo: As it said, of bounded length.
        receiver: Our name.
        now: For the macro ``t``; ``None`` makes it 0.
    """

    ip: IpAddress
    helo: str
    receiver: str
    now: datetime | None


@dataclass(frozen=True, slots=True)
class Identity:
    """What was found of one identity.

    Attributes:
        word: RFC 7208 §2.6.
        domain: Whose record was asked for, A-labels in lower case; empty when the identity has none.
        mechanism: The directive of that record that matched, as published; ``None`` for none.
        explanation: What the domain has to say of a ``fail``: one line of printable ASCII.
        reason: Ours, for people, in printable ASCII.
    """

    word: Word
    domain: str
    mechanism: str | None = None
    explanation: str | None = None
    reason: str = ""


class _Permerror(Exception):
    """RFC 7208 §2.6.7."""


class _Temperror(Exception):
    """RFC 7208 §2.6.6."""


class _Match(NamedTuple):
    """What a record came to: the domain it stands at, and its ``exp=``."""

    word: Word
    domain: str
    text: str | None = None
    explanation: MacroString | None = None


class HostCheck:
    """One ``check_host()``.

    Args:
        local_part: Of the sender.
        domain: Of the sender; lower case, A-labels.
        known: What was answered before; grows.
    """

    def __init__(self, client: Client, local_part: str, domain: str, known: dict[Question, DnsAnswer]) -> None:
        self._client = client
        self._local_part = local_part
        self._domain = domain
        self._known = known
        self._kind: RecordType = "A" if client.ip.version == 4 else "AAAA"
        self._number = int(client.ip)
        self._terms = 0
        self._voids = 0
        self._names: list[str] | None = None

    def result(self) -> Steps[Identity]:
        """Return what the domain's record says of the client."""
        domain = self._domain
        try:
            match = yield from self._check(domain)
        except (_Permerror, RecordError) as error:
            return Identity("permerror", domain, reason=str(error))
        except _Temperror as error:
            return Identity("temperror", domain, reason=str(error))
        explanation = None
        if match.word == "fail" and match.explanation is not None:
            explanation = yield from self._explanation(match.explanation, match.domain)
        return Identity(match.word, domain, match.text, explanation, self._reason(match))

    def _reason(self, match: _Match) -> str:
        if match.word == "none":
            return f"{self._domain} has no record" if self._domain else "no domain name"
        what = "nothing" if match.text is None else match.text
        return f"{what} in the record of {match.domain} matches {self._client.ip}"

    def _check(self, domain: str) -> Steps[_Match]:
        record = yield from self._record(domain)
        if record is None:
            return _Match("none", domain)
        for directive in record.directives:
            matches = self._matches_at_once(directive)
            if matches is None:
                matches = yield from self._matches(directive, domain)
            if matches:
                return _Match(directive.word, domain, directive.text, record.explanation)
        if record.redirect is None:
            return _Match("neutral", domain)
        return (yield from self._redirected(record.redirect, domain))

    def _redirected(self, redirect: MacroString, domain: str) -> Steps[_Match]:
        self._count_term()
        target = yield from self._target(redirect, domain)
        match = yield from self._check(target)
        if match.word == "none":
            raise _Permerror(f"redirect= in the record of {domain} leads to no record")
        return match

    def _record(self, domain: str) -> Steps[Record | None]:
        """Return the record of *domain* (RFC 7208 §4.3 to §4.5)."""
        if "." not in domain:
            return None
        answer = yield from self._ask(domain, "TXT")
        texts = [text for strings in answer.records if is_record(text := b"".join(strings).decode("latin-1"))]
        if len(texts) > 1:
            raise _Permerror(f"{domain} has {len(texts)} records")
        return parse_record(texts[0]) if texts else None

    def _matches_at_once(self, directive: Directive) -> bool | None:
        """Return whether a mechanism that asks nothing matches; ``None`` for one that must ask."""
        match directive.mechanism:
            case "ip4":
                return self._kind == "A" and self._is_near(directive.network, directive)
            case "ip6":
                return self._kind == "AAAA" and self._is_near(directive.network, directive)
            case "all":
                return True
        return None

    def _is_near(self, number: int, directive: Directive) -> bool:
        shift = 32 - directive.bits4 if self._kind == "A" else 128 - directive.bits6
        return number >> shift == self._number >> shift

    def _matches(self, directive: Directive, domain: str) -> Steps[bool]:
        self._count_term()
        target = domain if directive.target is None else (yield from self._target(directive.target, domain))
        match directive.mechanism:
            case "include":
                return (yield from self._includes(target))
            case "a":
                return self._is_host((yield from self._ask(target, self._kind)), directive)
            case "mx":
                return (yield from self._is_mail_host(target, directive))
            case "ptr":
                names = yield from self._valid_names()
                return any(name == target or name.endswith("." + target) for name in names)
        answer = yield from self._ask(target, "A")  # exists, RFC 7208 §5.7: whatever the family of the client
        self._count_void(answer)
        return bool(answer.records)

    def _includes(self, target: str) -> Steps[bool]:
        match = yield from self._check(target)
        if match.word == "none":
            raise _Permerror(f"{_shown(target)} is included and has no record")
        return match.word == "pass"

    def _is_host(self, answer: DnsAnswer, directive: Directive) -> bool:
        self._count_void(answer)
        return any(self._is_near(int(ipaddress.ip_address(ip)), directive) for ip in answer.records)

    def _is_mail_host(self, target: str, directive: Directive) -> Steps[bool]:
        answer = yield from self._ask(target, "MX")
        self._count_void(answer)
        hosts = [host for _, host in sorted(answer.records)]
        if len(hosts) > MAX_MX:
            raise _Permerror(f"{_shown(target)} has more than {MAX_MX} mail hosts")
        answers = yield from self._ask_all([Question(host, self._kind) for host in hosts])
        for host, addresses in zip(hosts, answers, strict=True):
            if self._is_host(_settled(addresses, host), directive):
                return True
        return False

    def _valid_names(self) -> Steps[list[str]]:
        """Return the names of the client that lead back to it (RFC 7208 §5.5); errors only make it fewer."""
        if self._names is None:
            # The sender cannot help what the client's network publishes: none of it counts as void.
            (pointers,) = yield from self._ask_all([Question(self._client.ip.reverse_pointer, "PTR")])
            names = list(pointers.records[:MAX_NAMES])
            answers = yield from self._ask_all([Question(name, self._kind) for name in names])
            self._names = [
                name
                for name, answer in zip(names, answers, strict=True)
                if any(int(ipaddress.ip_address(ip)) == self._number for ip in answer.records)
            ]
        return self._names

    def _explanation(self, explanation: MacroString, domain: str) -> Steps[str | None]:
        """Return what *explanation* leads to; ``None`` when it leads to anything but one line (RFC 7208 §6.2)."""
        try:
            target = yield from self._target(explanation, domain)
            answer = yield from self._ask(target, "TXT")
            if len(answer.records) != 1:
                return None
            pieces = parse_explanation(b"".join(answer.records[0]).decode("latin-1"))
            text = yield from self._expanded(pieces, domain)
        except (_Permerror, _Temperror, RecordError):
            return None
        return text[:MAX_EXPLANATION] if _is_printable(text) else None

    def _target(self, pieces: MacroString, domain: str) -> Steps[str]:
        """Return the name that a ``domain-spec`` is (RFC 7208 §7.3); empty for what is none."""
        if len(pieces) == 1 and isinstance(pieces[0], str):
            name = pieces[0]
        elif uses(pieces, "sl") and not self._local_part.isascii():
            return ""  # RFC 8616 §4: such terms match nothing
        else:
            name = yield from self._expanded(pieces, domain)
        name = name.removesuffix(".").lower()
        while len(name) > _NAME_MAX:
            name = name.partition(".")[2]
        return name

    def _expanded(self, pieces: MacroString, domain: str) -> Steps[str]:
        if uses(pieces, "p"):
            yield from self._valid_names()
        return expand(pieces, lambda letter: self._value(letter, domain))

    def _value(self, letter: str, domain: str) -> str:
        """Return the value of a macro (RFC 7208 §7.2)."""
        client = self._client
        match letter:
            case "s":
                return f"{self._local_part}@{self._domain}"
            case "l":
                return self._local_part
            case "o":
                return self._domain
            case "d":
                return domain
            case "i":
                return ".".join(f"{self._number:032X}") if client.ip.version == 6 else str(client.ip)
            case "p":
                return self._name_for(domain)
            case "v":
                return "ip6" if client.ip.version == 6 else "in-addr"
            case "h":
                return client.helo
            case "c":
                return str(client.ip)
            case "r":
                return client.receiver or "unknown"
        return "0" if client.now is None else str(int(client.now.timestamp()))

    def _name_for(self, domain: str) -> str:
        names = self._names or ["unknown"]
        below = (name for name in names if name.endswith("." + domain))
        return domain if domain in names else next(below, names[0])

    def _count_term(self) -> None:
        self._terms += 1
        if self._terms > MAX_TERMS:
            raise _Permerror(f"more than {MAX_TERMS} terms that ask DNS")

    def _count_void(self, answer: DnsAnswer) -> None:
        if answer.found is not Found.RECORDS and answer is not _NO_NAME:
            self._voids += 1
            if self._voids > MAX_VOIDS:
                raise _Permerror(f"more than {MAX_VOIDS} names without records")

    def _ask(self, name: str, kind: RecordType) -> Steps[DnsAnswer]:
        """Return one answer that is no failure."""
        (answer,) = yield from self._ask_all([Question(name, kind)])
        return _settled(answer, name)

    def _ask_all(self, questions: Sequence[Question]) -> Steps[list[DnsAnswer]]:
        """Return the answers, failures included; nothing is asked for what cannot be a name (RFC 7208 §4.8)."""
        known = self._known
        missing = [question for question in questions if question not in known and is_name(question.name)]
        if missing:
            if len(known) + len(missing) > MAX_QUESTIONS:
                raise _Permerror("too many DNS questions")
            missing = list(dict.fromkeys(missing))
            known.update(zip(missing, (yield missing), strict=True))
        return [known.get(question, _NO_NAME) for question in questions]


def is_name(name: str) -> bool:
    """Can DNS be asked for *name*?"""
    return 0 < len(name) <= _NAME_MAX and name.isascii() and all(0 < len(label) < 64 for label in name.split("."))


def _settled(answer: DnsAnswer, name: str) -> DnsAnswer:
    if answer.found is Found.FAILED:
        raise _Temperror(f"no answer from DNS for {_shown(name)}")
    return answer


def _shown(name: str) -> str:
    return name if len(name) <= 80 and _is_printable(name) else "a name that is none"
