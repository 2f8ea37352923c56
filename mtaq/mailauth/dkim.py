"""Who takes responsibility for this message, and is it as they sent it (RFC 6376)?

``find_signatures`` reads and hashes, and is the costly part; ``check_dkim`` asks for all keys at once and verifies.
Every signature gets a word of its own, and never more than it deserves: what cannot be judged is no ``pass``.
Whether a signature says anything about the author is for DMARC.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mtaq.mailauth.asking import Steps
from mtaq.mailauth.dkim_key import verified
from mtaq.mailauth.dkim_message import SignedMessage
from mtaq.mailauth.dkim_signature import Named, Signature, Unusable, name_signature, read_dkim_signature
from mtaq.mailauth.dkim_tags import TagError, parse_tags
from mtaq.mailauth.verdict import Verdict, Word
from mtaq.model.dns import DnsAnswer, Question

#: Signatures looked at, from the top. Honest mail has two or three; each may cost a look-up.
MAX_SIGNATURES = 8
#: RFC 6008 §4: octets of ``b=`` that tell signatures apart.
_B_OCTETS = 8


@dataclass(frozen=True, slots=True)
class Candidate:
    """One signature before its key is known.

    Attributes:
        signature: ``None`` when it was found out already.
        digest: SHA-256 of what it signs.
        caveat: Why it would be no ``pass`` although it verifies.
        unusable: Why it needs no key.
    """

    named: Named
    signature: Signature | None = None
    digest: bytes = b""
    caveat: str | None = None
    unusable: Unusable | None = None


@dataclass(frozen=True, slots=True)
class Signatures:
    """The signatures of a message.

    Attributes:
        candidates: From the top.
        ignored: How many more there are.
    """

    candidates: tuple[Candidate, ...] = ()
    ignored: int = 0


@dataclass(frozen=True, slots=True)
class SignatureResult:
    """What one signature came to.

    Attributes:
        b: The beginning of ``b=``, which tells it from the others (RFC 6008).
        reason: Why it is no ``pass``; ``None`` if it is.
    """

    word: Word
    named: Named
    b: str = ""
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class DkimResult:
    """What the signatures came to, from the top; those beyond ``MAX_SIGNATURES`` together as the last one."""

    signatures: tuple[SignatureResult, ...] = ()

    def domains(self) -> list[tuple[str, Word]]:
        """Return domain and word of each signature, for DMARC; the domain in A-labels, or empty if it has none."""
        return [(signature.named.domain, signature.word) for signature in self.signatures]

    def to_json(self) -> Sequence[dict[str, Any]]:
        """Return one item of ``checks[]`` for each signature, or one that says ``none``."""
        return [_to_json(signature) for signature in self.signatures] or [{"dkim": "none"}]

    def verdicts(self) -> Sequence[Verdict]:
        """Return the same for Authentication-Results (RFC 8601 §2.7.1)."""
        return [_verdict(signature) for signature in self.signatures] or [Verdict("dkim", "none")]


def find_signatures(message: SignedMessage) -> Signatures:
    """Return the signatures of *message*, hashed. Never raises."""
    places = message.index.get(b"dkim-signature", ())
    read = [_read(message, place) for place in places[:MAX_SIGNATURES]]
    message.hash_bodies(
        (signature.canonicalization.relaxed_body, signature.length)
        for _, signature in read
        if isinstance(signature, Signature)
    )
    candidates = [
        _candidate(message, place, named, signature) for place, (named, signature) in zip(places, read, strict=False)
    ]
    return Signatures(tuple(candidates), max(len(places) - MAX_SIGNATURES, 0))


def _read(message: SignedMessage, place: int) -> tuple[Named, Signature | Unusable]:
    named = Named()
    try:
        tags = parse_tags(message.fields[place].value)
        named = name_signature(tags)
        if message.problem is not None:
            return named, Unusable("neutral", message.problem)
        return named, read_dkim_signature(tags, named)
    except TagError as error:
        return named, Unusable("neutral", f"the signature is malformed: {error}")
    except Unusable as error:
        return named, error


def _candidate(message: SignedMessage, place: int, named: Named, signature: Signature | Unusable) -> Candidate:
    if isinstance(signature, Unusable):
        return Candidate(named, unusable=signature)
    relaxed_header, relaxed_body = signature.canonicalization
    body_hash = message.body_hash(relaxed=relaxed_body, length=signature.length)
    if body_hash is None:
        return Candidate(named, unusable=Unusable("fail", "the body is shorter than l= says"))
    if body_hash != signature.body_hash:
        return Candidate(named, unusable=Unusable("fail", "the body is not the one that was signed"))
    digest = message.signed_hash(place, signature.names, relaxed=relaxed_header)
    return Candidate(named, signature, digest, _caveat(message, signature))


def _caveat(message: SignedMessage, signature: Signature) -> str | None:
    """What may have been added by anybody since it was signed."""
    if message.count(b"from") > signature.names.count(b"from"):  # RFC 6376 §8.15
        return "there is a From that is not signed"
    size_bytes = message.body_size(relaxed=signature.canonicalization.relaxed_body)
    if signature.length is not None and signature.length < size_bytes:  # RFC 6376 §8.2
        return f"{size_bytes - signature.length} octets of the body are not signed (l=)"
    return None


def check_dkim(signatures: Signatures, *, now: datetime) -> Steps[DkimResult]:
    """Judge *signatures*; all keys are asked for in one step."""
    names = dict.fromkeys(
        candidate.named.key_name for candidate in signatures.candidates if candidate.signature is not None
    )
    answers = dict(zip(names, (yield [Question(name, "TXT") for name in names]), strict=True)) if names else {}
    results = [_result(candidate, answers, now) for candidate in signatures.candidates]
    beginnings = _beginnings([candidate.named.b for candidate in signatures.candidates])
    told = [
        SignatureResult(word, candidate.named, b, reason)
        for candidate, (word, reason), b in zip(signatures.candidates, results, beginnings, strict=True)
    ]
    if signatures.ignored:
        told.append(
            SignatureResult("policy", Named(), reason=f"{signatures.ignored} more signatures were not looked at")
        )
    return DkimResult(tuple(told))


def _result(candidate: Candidate, answers: Mapping[str, DnsAnswer], now: datetime) -> tuple[Word, str | None]:
    signature = candidate.signature
    if signature is None:
        assert candidate.unusable is not None
        return candidate.unusable.word, candidate.unusable.reason
    answer = answers[candidate.named.key_name]
    try:
        verified(candidate.named, answer, signature.value, candidate.digest, exact_domain=signature.exact_domain)
    except Unusable as unusable:
        return unusable.word, unusable.reason
    caveat = candidate.caveat or signature.untimely(now)
    return ("policy", caveat) if caveat else ("pass", None)


def _beginnings(values: Sequence[str]) -> list[str]:
    """Return the beginning of each that tells it from the others, all equally long (RFC 6008 §4)."""
    different = len({*values})
    size = _B_OCTETS
    while len({value[:size] for value in values}) < different:
        size *= 2
    return [value[:size] for value in values]


def _properties(signature: SignatureResult) -> Iterator[tuple[str, str, str]]:
    """Yield what is known: our name, that of RFC 8601, and the value."""
    named = signature.named
    yield "domain", "header.d", named.domain
    yield "selector", "header.s", named.selector
    # RFC 6376 §3.5: without i= it is the domain's.
    yield "header.i", "header.i", named.identity or (named.domain and "@" + named.domain)
    yield "header.b", "header.b", signature.b
    yield "algorithm", "header.a", named.algorithm


def _to_json(signature: SignatureResult) -> dict[str, Any]:
    item = {"dkim": signature.word} | {ours: value for ours, _, value in _properties(signature) if value}
    return item if signature.reason is None else item | {"reason": signature.reason}


def _verdict(signature: SignatureResult) -> Verdict:
    properties = tuple((theirs, value) for _, theirs, value in _properties(signature) if value)
    return Verdict("dkim", signature.word, signature.reason, properties)
