"""What did the hosts before us find, and can they be believed to have said it (RFC 8617 §5.2)?

``arc_chain.find_chain`` reads and hashes; ``check_arc`` asks for keys and verifies, the newest set first, because a
chain that ends there needs no other key. ``pass`` means that every host sealed what it got, not that any of them is
honest: whose seals are believed is for whoever reads the result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mtaq.mailauth.arc_chain import ArcSet, Chain, MessageSignature, Seal
from mtaq.mailauth.asking import Steps
from mtaq.mailauth.dkim_key import verified
from mtaq.mailauth.dkim_signature import Signature, Unusable
from mtaq.mailauth.verdict import Verdict, Word
from mtaq.model.dns import DnsAnswer, Question

_Answers = dict[str, DnsAnswer]


@dataclass(frozen=True, slots=True)
class ArcResult:
    """What a chain came to.

    Attributes:
        word: ``none``, ``pass``, ``fail``; ``temperror`` when keys that matter could not be looked up.
        instances: How many sets there are.
        oldest_pass: Lowest instance from which on every ARC-Message-Signature verifies: what was changed on the way
            was changed before it. 0 unless the chain passes.
        sealers: ``d=`` of the seals, from instance 1; empty for a chain that is broken in its form.
        reason: Why it is not ``pass``; ``None`` if it is, or there is none.
    """

    word: Word
    instances: int = 0
    oldest_pass: int = 0
    sealers: tuple[str, ...] = ()
    reason: str | None = None

    def to_json(self) -> Sequence[dict[str, Any]]:
        """Return its item of ``checks[]``."""
        item: dict[str, Any] = {"arc": self.word}
        if self.word == "none":
            return [item]
        item |= {"instances": self.instances, "sealers": list(self.sealers)}
        if self.oldest_pass:
            item["oldest-pass"] = self.oldest_pass
        return [item if self.reason is None else item | {"reason": self.reason}]

    def verdicts(self) -> Sequence[Verdict]:
        """Return the same for Authentication-Results, where 0 says that all signatures verify (RFC 8617 §5.2)."""
        properties: tuple[tuple[str, str], ...] = ()
        if self.oldest_pass:
            oldest = self.oldest_pass if self.oldest_pass > 1 else 0
            properties = (("header.oldest-pass", str(oldest)),)
        return [Verdict("arc", self.word, self.reason, properties)]


def check_arc(chain: Chain, *, now: datetime) -> Steps[ArcResult]:
    """Judge *chain*, in two steps of questions at most."""
    if not chain.sets:
        return ArcResult("none") if chain.problem is None else ArcResult("fail", chain.instances, reason=chain.problem)
    sealers = tuple(arc_set.seal.named.domain for arc_set in chain.sets)
    try:
        oldest_pass = yield from _validate(chain, now)
    except Unusable as problem:
        word: Word = "temperror" if problem.word == "temperror" else "fail"
        return ArcResult(word, chain.instances, sealers=sealers, reason=problem.reason)
    return ArcResult("pass", chain.instances, oldest_pass, sealers)


def _validate(chain: Chain, now: datetime) -> Steps[int]:
    """Return the oldest instance that passes.

    Raises:
        Unusable: The chain does not pass.
    """
    if any(arc_set.seal.verdict == "fail" for arc_set in chain.sets):
        raise Unusable("fail", "a host before found it broken (cv=fail)")
    *older, newest = chain.sets
    _readable(newest.message_signature, chain.instances)
    answers: _Answers = {}
    yield from _look_up([newest], answers)
    _verify_signature(newest.message_signature, answers, now, chain.instances)
    _verify_seal(newest.seal, answers, chain.instances)
    yield from _look_up(older, answers)
    for instance in range(len(older), 0, -1):
        _verify_seal(older[instance - 1].seal, answers, instance)
    return _oldest_pass([arc_set.message_signature for arc_set in older], answers, now)


def _look_up(sets: Sequence[ArcSet], answers: _Answers) -> Steps[None]:
    named = [arc_set.seal.named for arc_set in sets]
    signatures = [arc_set.message_signature.signature for arc_set in sets]
    named += [signature.named for signature in signatures if signature is not None]
    names = [name for name in dict.fromkeys(one.key_name for one in named) if name not in answers]
    if names:
        answers.update(zip(names, (yield [Question(name, "TXT") for name in names]), strict=True))


def _verify_seal(seal: Seal, answers: Mapping[str, DnsAnswer], instance: int) -> None:
    try:
        verified(seal.named, answers[seal.named.key_name], seal.value, seal.digest)
    except Unusable as problem:
        raise Unusable(problem.word, f"seal {instance}: {problem.reason}") from problem


def _verify_signature(
    message_signature: MessageSignature, answers: Mapping[str, DnsAnswer], now: datetime, instance: int
) -> None:
    signature = _readable(message_signature, instance)
    untimely = signature.untimely(now)
    if untimely:
        raise Unusable("fail", f"signature {instance}: {untimely}")
    try:
        verified(signature.named, answers[signature.named.key_name], signature.value, message_signature.digest)
    except Unusable as problem:
        raise Unusable(problem.word, f"signature {instance}: {problem.reason}") from problem


def _readable(message_signature: MessageSignature, instance: int) -> Signature:
    if message_signature.signature is None:
        raise Unusable("fail", f"signature {instance}: {message_signature.problem}")
    return message_signature.signature


def _oldest_pass(older: Sequence[MessageSignature], answers: Mapping[str, DnsAnswer], now: datetime) -> int:
    """Return the lowest instance that verifies together with all above it; of these, the newest did."""
    for instance in range(len(older), 0, -1):
        try:
            _verify_signature(older[instance - 1], answers, now, instance)
        except Unusable:
            return instance + 1
    return 1
