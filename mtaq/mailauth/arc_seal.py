"""Hands a message on under a seal: what we found of it, and that it was so when we had it (RFC 8617 §5.1).

Pure. What was found of the chain is an argument: it was found before the message was changed, by reception or by
``mtaq.mailauth.arc.check_arc``. Everything else is done to a message before, DKIM signatures included. Tags stand in
the order of the alphabet and signatures on one line, so that a seal is the same whoever makes it: it covers the blanks
of the signatures before it.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from datetime import datetime
from typing import Literal

from mtaq.mailauth.arc_chain import (
    MAX_INSTANCES,
    BrokenChain,
    fields_under_seal,
    has_sets,
    highest_instance,
    is_given_up,
)
from mtaq.mailauth.dkim_canonical import CRLF, RawField, canonical_field, without_signature
from mtaq.mailauth.dkim_message import SignedMessage
from mtaq.mailauth.dkim_sign import (
    SIGNED_NAMES,
    Signer,
    check_signable,
    signed_field,
    signed_names,
    times,
)

ChainVerdict = Literal["none", "pass", "fail"]
"""What was found of the chain that a message came with (``cv=``)."""

_NAMES = (*SIGNED_NAMES, b"dkim-signature")


class NotSealed(Exception):
    """The rules want no seal on that message, and it goes without one; the text is for people."""


def seal(
    content: bytes,
    signer: Signer,
    *,
    verdict: ChainVerdict,
    results: bytes,
    now: datetime,
    names: Iterable[bytes] | None = None,
) -> bytes:
    """
    Return the ARC set that goes to the top of *content*, folded, with the CRLF at its end.

    Args:
        signer: Its canonicalization and times are not used: ARC has its own.
        verdict: What was found of the chain as the message came in.
        results: What Authentication-Results say, from the authserv-id on (``arc_seal_results``).
        names: Fields to sign; ``None`` for the usual ones and those of *signer*.

    Raises:
        CannotSign: No signature of the message can be valid.
        NotSealed: A seal would be against RFC 8617.
    """
    message = SignedMessage(content)
    check_signable(message)
    instance = highest_instance(message) + 1
    if is_given_up(message):
        raise NotSealed("a host before sealed that the chain is broken (cv=fail)")
    if instance > MAX_INSTANCES:
        raise NotSealed(f"there are {MAX_INSTANCES} sets already")
    verdict = _fitting(verdict, message)
    own_results = b"ARC-Authentication-Results: i=%d; %b" % (instance, results.removesuffix(CRLF)) + CRLF
    covered = _message_signature_names(message, signer) if names is None else tuple(names)
    signature = _message_signature(message, signer, instance, covered, now)
    before = _before(message, verdict)
    covered_fields = [*before, _raw(own_results), _raw(signature)]
    return _seal(covered_fields, signer, instance, verdict, now) + signature + own_results


def _fitting(verdict: ChainVerdict, message: SignedMessage) -> ChainVerdict:
    """A chain of which nothing is left is none; one of which nothing was found is not believed."""
    if not has_sets(message):
        return "none"
    return "fail" if verdict == "none" else verdict


def _before(message: SignedMessage, verdict: ChainVerdict) -> list[RawField]:
    """Return what the seal covers beside its own set: nothing of a broken chain (RFC 8617 §5.1.2)."""
    if verdict != "pass":
        return []
    try:
        return fields_under_seal(message)
    except BrokenChain as error:
        raise NotSealed(f"the chain was changed on the way through: {error}") from error


def _message_signature_names(message: SignedMessage, signer: Signer) -> tuple[bytes, ...]:
    return signed_names(message, (*_NAMES, *signer.names), signer.oversigned)


def _message_signature(
    message: SignedMessage, signer: Signer, instance: int, names: tuple[bytes, ...], now: datetime
) -> bytes:
    message.hash_bodies([(True, None)])
    body_hash = message.body_hash(relaxed=True, length=None)
    assert body_hash is not None, "without l= no body is too short"
    tags = [
        ("a", signer.key.algorithm),
        ("b", ""),
        ("bh", base64.b64encode(body_hash).decode("ascii")),
        ("c", "relaxed/relaxed"),
        ("d", signer.domain),
        ("h", b":".join(names).decode("ascii")),
        ("i", str(instance)),
        ("s", signer.selector),
        *times(signer, now),
    ]
    return signed_field(
        "ARC-Message-Signature",
        tags,
        lambda unsigned: signer.key.sign(message.hash_under(unsigned, names, relaxed=True)),
        folded=False,
    )


def _seal(covered: list[RawField], signer: Signer, instance: int, verdict: ChainVerdict, now: datetime) -> bytes:
    hasher = hashlib.sha256()
    for field in covered:
        hasher.update(canonical_field(field, relaxed=True) + CRLF)
    tags = [
        ("a", signer.key.algorithm),
        ("b", ""),
        ("cv", verdict),
        ("d", signer.domain),
        ("i", str(instance)),
        ("s", signer.selector),
        ("t", str(int(now.timestamp()))),
    ]

    def sign(unsigned: RawField) -> bytes:
        hasher.update(canonical_field(without_signature(unsigned), relaxed=True))
        return signer.key.sign(hasher.digest())

    return signed_field("ARC-Seal", tags, sign, folded=False)


def _raw(field: bytes) -> RawField:
    name, _, _ = field.partition(b":")
    return RawField(name.lower(), field.removesuffix(CRLF))
