"""Which ARC sets does a message carry, and are they a chain (RFC 8617 §4, §5.2 steps 1 to 3)?

Reads and hashes; no key is known yet. A chain is whole or broken: one field too many, too few or malformed and no
part of it is believed.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from mtaq.mailauth.dkim_canonical import CRLF, RawField, canonical_field, without_signature
from mtaq.mailauth.dkim_message import SignedMessage
from mtaq.mailauth.dkim_signature import Named, Signature, Unusable, name_signature, read_algorithm, read_signature
from mtaq.mailauth.dkim_tags import TagError, base64_tag, name_tag, number_tag, parse_tags, required

#: RFC 8617 §4.2.1.
MAX_INSTANCES = 50

_RESULTS, _MESSAGE_SIGNATURE, _SEAL = b"arc-authentication-results", b"arc-message-signature", b"arc-seal"
#: In the order in which a seal covers them (RFC 8617 §5.1.1).
_NAMES = (_RESULTS, _MESSAGE_SIGNATURE, _SEAL)
_RESULTS_INSTANCE = re.compile(rb"[ \t\r\n]*i[ \t\r\n]*=[ \t\r\n]*([0-9]{1,2})[ \t\r\n]*;")
_TIME_DIGITS = 12


class BrokenChain(Exception):
    """There are ARC fields, and they are no chain; the text is for people."""


@dataclass(frozen=True, slots=True)
class MessageSignature:
    """An ARC-Message-Signature before its key is known.

    Attributes:
        signature: ``None`` when it cannot be valid.
        digest: SHA-256 of what it signs.
        problem: Why it cannot be valid.
    """

    signature: Signature | None = None
    digest: bytes = b""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Seal:
    """An ARC-Seal before its key is known.

    Attributes:
        value: The signature itself.
        digest: SHA-256 of what it signs.
        verdict: ``cv=``: what its maker found of the chain until then.
    """

    named: Named
    value: bytes
    digest: bytes
    verdict: str


@dataclass(frozen=True, slots=True)
class ArcSet:
    """What one host added."""

    message_signature: MessageSignature
    seal: Seal


@dataclass(frozen=True, slots=True)
class Chain:
    """The ARC sets of a message.

    Attributes:
        sets: By instance, from 1; empty when there are none or they are no chain.
        instances: The highest instance seen, within the limit.
        problem: Why they are no chain; ``None`` if they are, or there are none.
    """

    sets: tuple[ArcSet, ...] = ()
    instances: int = 0
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class _Place:
    field: RawField
    place: int
    tags: dict[str, str]


def find_chain(message: SignedMessage) -> Chain:
    """Return the ARC sets of *message*, hashed. Never raises."""
    if not has_sets(message):
        return Chain()
    try:
        if message.problem is not None:
            raise BrokenChain(message.problem)
        by_name = _complete_sets(message)
        instances = len(by_name[0])
        rows = [[places[instance] for places in by_name] for instance in range(1, instances + 1)]
        seals = _seals(rows)
        return Chain(_sets(message, [row[1] for row in rows], seals), instances)
    except (BrokenChain, TagError, Unusable) as error:
        return Chain(instances=min(highest_instance(message), MAX_INSTANCES), problem=str(error))


def has_sets(message: SignedMessage) -> bool:
    """Does *message* have any ARC field?"""
    return any(message.count(name) for name in _NAMES)


def fields_under_seal(message: SignedMessage) -> list[RawField]:
    """
    Return the fields of a chain in the order in which the next seal covers them (RFC 8617 §5.1.1).

    Raises:
        BrokenChain: They are no chain.
    """
    try:
        by_name = _complete_sets(message)
    except TagError as error:
        raise BrokenChain(str(error)) from error
    return [places[instance].field for instance in sorted(by_name[0]) for places in by_name]


def highest_instance(message: SignedMessage) -> int:
    """Return the highest instance that any ARC field of *message* names, be they a chain or not; 0 without one."""
    found = [0]
    for name in _NAMES:
        for field in message.named(name):
            with contextlib.suppress(TagError):
                found.append(_instance(field)[0])
    return max(found)


def is_given_up(message: SignedMessage) -> bool:
    """Has a host before sealed that the chain is broken, so that nobody adds to it (RFC 8617 §5.1 step 2)?"""
    newest = highest_instance(message)
    for field in message.named(_SEAL):
        with contextlib.suppress(TagError):
            instance, tags = _instance(field)
            if instance == newest and tags.get("cv") == "fail":
                return True
    return False


def _complete_sets(message: SignedMessage) -> list[dict[int, _Place]]:
    """Return the fields of each name by their instance, each from 1 to the same one."""
    by_name = [_by_instance(message, name) for name in _NAMES]
    instances = max(max(places) for places in by_name)
    if any(set(places) != set(range(1, instances + 1)) for places in by_name):
        raise BrokenChain("a set is missing or not complete")
    return by_name


def _by_instance(message: SignedMessage, name: bytes) -> dict[int, _Place]:
    """Return the fields of that name by their instance."""
    places = message.index.get(name, ())
    if not places:
        raise BrokenChain("a set is missing or not complete")
    if len(places) > MAX_INSTANCES:
        raise BrokenChain(f"more than {MAX_INSTANCES} sets")
    found: dict[int, _Place] = {}
    for place in places:
        field = message.fields[place]
        instance, tags = _instance(field)
        if not 1 <= instance <= MAX_INSTANCES:
            raise BrokenChain("i= is not an instance")
        if instance in found:
            raise BrokenChain("an instance stands twice")
        found[instance] = _Place(field, place, tags)
    return found


def _instance(field: RawField) -> tuple[int, dict[str, str]]:
    if field.name == _RESULTS:  # no list of tags but for its beginning (RFC 8617 §4.1.1)
        match = _RESULTS_INSTANCE.match(field.value)
        return int(match[1]) if match is not None else 0, {}
    tags = parse_tags(field.value)
    return number_tag(tags, "i", 2) or 0, tags


def _seals(rows: Sequence[Sequence[_Place]]) -> list[Seal]:
    """Return the seals; each covers the sets before it, its own and itself without ``b=`` (RFC 8617 §5.1.1)."""
    seals: list[Seal] = []
    hasher = hashlib.sha256()
    for row in rows:
        seal = row[-1]
        for covered in row[:-1]:
            hasher.update(canonical_field(covered.field, relaxed=True) + CRLF)
        own = hasher.copy()
        own.update(canonical_field(without_signature(seal.field), relaxed=True))
        hasher.update(canonical_field(seal.field, relaxed=True) + CRLF)
        seals.append(_seal(seal.tags, own.digest(), is_first=not seals))
    return seals


def _seal(tags: dict[str, str], digest: bytes, *, is_first: bool) -> Seal:
    read_algorithm(tags)
    name_tag(tags, "d", 2)
    name_tag(tags, "s", 1)
    number_tag(tags, "t", _TIME_DIGITS)
    verdict = required(tags, "cv")
    # A host that found the chain broken may say so, and nobody builds on that (RFC 8617 §5.2 step 2).
    if verdict not in (("none", "fail") if is_first else ("pass", "fail")):
        raise BrokenChain("cv= is not what belongs there")
    if "h" in tags:  # RFC 8617 §4.1.3
        raise BrokenChain("a seal with h=")
    return Seal(name_signature(tags), base64_tag(tags, "b"), digest, verdict)


def _sets(message: SignedMessage, places: Sequence[_Place], seals: Sequence[Seal]) -> tuple[ArcSet, ...]:
    read = [_read_signature(place) for place in places]
    message.hash_bodies(
        (signature.canonicalization.relaxed_body, signature.length)
        for signature in read
        if isinstance(signature, Signature)
    )
    return tuple(
        ArcSet(_message_signature(message, place, signature), seal)
        for place, signature, seal in zip(places, read, seals, strict=True)
    )


def _read_signature(place: _Place) -> Signature | str:
    try:
        signature = read_signature(place.tags, name_signature(place.tags))
    except (TagError, Unusable) as error:
        return str(error)
    if _SEAL in signature.names:  # RFC 8617 §4.1.2
        return "it covers a seal"
    return signature


def _message_signature(message: SignedMessage, place: _Place, signature: Signature | str) -> MessageSignature:
    if isinstance(signature, str):
        return MessageSignature(problem=signature)
    relaxed_header, relaxed_body = signature.canonicalization
    if message.body_hash(relaxed=relaxed_body, length=signature.length) != signature.body_hash:
        return MessageSignature(problem="the body is not the one that was signed")
    if signature.length is not None and signature.length < message.body_size(relaxed=relaxed_body):
        return MessageSignature(problem="a part of the body is not signed (l=)")
    if message.count(b"from") > signature.names.count(b"from"):
        return MessageSignature(problem="there is a From that is not signed")
    return MessageSignature(signature, message.signed_hash(place.place, signature.names, relaxed=relaxed_header))
