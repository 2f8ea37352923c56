"""Takes responsibility for a message: makes its DKIM-Signature fields (RFC 6376 §5, RFC 8463, RFC 8616 §5).

Pure; which keys sign for whom is decided by ``mtaq.deliver.signing``, and what is signed is what is sent: nothing may
change a message behind this. Fields that hosts on the way change or take out are not signed (RFC 6376 §5.4.1); of each
name that is, every field there is. ``From`` is signed once more than it stands there, so nobody can add one that a
reader shows instead of ours (RFC 6376 §8.15). Domains are written in A-labels, which every verifier understands.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from mtaq.mailauth.dkim_canonical import CRLF, Canonicalization, RawField
from mtaq.mailauth.dkim_message import SignedMessage
from mtaq.mailauth.dkim_sign_key import SigningKey
from mtaq.mailauth.dkim_tags import TagError, domain_name

#: RFC 6376 §5.4.1; List-Unsubscribe-Post by RFC 8058 §4. Of these, the ones that a message has are signed.
SIGNED_NAMES = (
    b"from", b"sender", b"reply-to", b"subject", b"date", b"message-id", b"to", b"cc",
    b"mime-version", b"content-type", b"content-transfer-encoding", b"content-id", b"content-description",
    b"resent-date", b"resent-from", b"resent-sender", b"resent-to", b"resent-cc", b"resent-message-id",
    b"in-reply-to", b"references",
    b"list-id", b"list-help", b"list-unsubscribe", b"list-unsubscribe-post", b"list-subscribe", b"list-post",
    b"list-owner", b"list-archive",
)  # fmt: skip
#: Signed once more than they stand there, whatever else is.
OVERSIGNED = frozenset({b"from"})
RELAXED = Canonicalization(relaxed_header=True, relaxed_body=True)

#: Of one name, so many fields are signed, from the bottom: honest mail has one of each.
MAX_FIELDS = 20
#: RFC 5322 §2.1.1.
_LINE = 78
#: Octets of base64 in a line.
_CHUNK = 72

Tags = Sequence[tuple[str, str]]


class CannotSign(Exception):
    """No signature of that message would be worth anything; the text may be shown to anybody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """In whose name, with which key and how a message is signed.

    Attributes:
        domain: ``d=``, A-labels in lower case.
        selector: ``s=``, the same.
        names: Fields to sign beside ``SIGNED_NAMES``, in lower case.
        oversigned: Fields that nobody may add, in lower case; ``None`` for all that are signed.
        expires_at: ``x=``; ``None`` for what *lifetime* says.
        lifetime: From the signature to ``x=``; ``None`` for no ``x=``.
    """

    domain: str
    selector: str
    key: SigningKey
    canonicalization: Canonicalization = RELAXED
    names: tuple[bytes, ...] = ()
    oversigned: Collection[bytes] | None = OVERSIGNED
    expires_at: datetime | None = None
    lifetime: timedelta | None = None


def signing_name(text: str, what: str, min_labels: int) -> str:
    """
    Return a domain or selector as a signature has it: A-labels in lower case (RFC 8616 §5).

    Raises:
        CannotSign: It is none; *what* says where it stood.
    """
    try:
        return domain_name(text, what, min_labels)
    except TagError as error:
        raise CannotSign(str(error)) from None


def signature_fields(message: SignedMessage, signers: Sequence[Signer], *, now: datetime) -> list[bytes]:
    """
    Return a DKIM-Signature for each of *signers*, folded, each with the CRLF at its end; they go to the top.

    None covers another. What is hashed is hashed once for all of them.

    Raises:
        CannotSign: The message cannot be signed, or a signature would be over already.
    """
    check_signable(message)
    message.hash_bodies((signer.canonicalization.relaxed_body, None) for signer in signers)
    return [_signature_field(message, signer, now) for signer in signers]


def check_signable(message: SignedMessage) -> None:
    """
    Return when a signature of *message* can be valid.

    Raises:
        CannotSign: It cannot.
    """
    if message.problem is not None:
        raise CannotSign(message.problem)
    if not 1 <= message.count(b"from") <= MAX_FIELDS:  # RFC 6376 §5.4: it must be signed, and so all of them
        raise CannotSign("there is no From field" if not message.count(b"from") else "there are too many From fields")


def _signature_field(message: SignedMessage, signer: Signer, now: datetime) -> bytes:
    names = signed_names(message, (*SIGNED_NAMES, *signer.names), signer.oversigned)
    relaxed_header, relaxed_body = signer.canonicalization
    body_hash = message.body_hash(relaxed=relaxed_body, length=None)
    assert body_hash is not None, "without l= no body is too short"
    tags = [
        ("v", "1"),
        ("a", signer.key.algorithm),
        ("c", str(signer.canonicalization)),
        ("d", signer.domain),
        ("s", signer.selector),
        *times(signer, now),
        ("i", f"@{signer.domain}"),
        ("h", b":".join(names).decode("ascii")),
        ("bh", base64.b64encode(body_hash).decode("ascii")),
        ("b", ""),
    ]
    return signed_field(
        "DKIM-Signature",
        tags,
        lambda unsigned: signer.key.sign(message.hash_under(unsigned, names, relaxed=relaxed_header)),
    )


def signed_names(
    message: SignedMessage, names: Iterable[bytes], oversigned: Collection[bytes] | None
) -> tuple[bytes, ...]:
    """Return ``h=`` for the fields of *names* that *message* has; those of *oversigned* (``None``: all) once more."""
    found: list[bytes] = []
    for name in dict.fromkeys(names):
        count = min(message.count(name), MAX_FIELDS)
        more = name in oversigned if oversigned is not None else count > 0
        found += [name] * (count + more)
    return tuple(found)


def times(signer: Signer, now: datetime) -> Iterator[tuple[str, str]]:
    """
    Yield ``t=``, and ``x=`` where *signer* wants it.

    Raises:
        CannotSign: The signature would be over already.
    """
    expires_at = signer.expires_at
    if expires_at is None and signer.lifetime is not None:
        expires_at = now + signer.lifetime
    yield "t", str(int(now.timestamp()))
    if expires_at is None:
        return
    if int(expires_at.timestamp()) <= int(now.timestamp()):
        raise CannotSign("the signature would have expired already")
    yield "x", str(int(expires_at.timestamp()))


def signed_field(name: str, tags: Tags, sign: Callable[[RawField], bytes], *, folded: bool = True) -> bytes:
    """
    Return a field with *tags*, one of them an empty ``b``, folded, with the CRLF at its end.

    Args:
        sign: Makes the signature of the field as it is with ``b=`` empty (RFC 6376 §3.7).
        folded: Is the signature folded as well?
    """
    place = next(place for place, (tag, _) in enumerate(tags) if tag == "b")
    head = _folded(f"{name}:", tags[:place]) + "\r\n\tb="
    tail = ";" + _folded("\r\n\t", tags[place + 1 :]).removesuffix(";") if tags[place + 1 :] else ""
    value = base64.b64encode(sign(RawField(name.lower().encode(), (head + tail).encode("ascii")))).decode("ascii")
    size = _CHUNK if folded else len(value)
    chunks = [value[start : start + size] for start in range(0, len(value), size)]
    return (head + "\r\n\t".join(chunks) + tail).encode("ascii") + CRLF


def _folded(start: str, tags: Tags) -> str:
    """Return *tags* behind *start*, a semicolon behind each; folded between tags, and between the names of ``h=``."""
    lines = [start]
    for tag, value in tags:
        first, *others = value.split(":") if tag == "h" else [value]
        _append(lines, f"{tag}={first}" + (":" if others else ";"), "" if lines[-1].endswith("\t") else " ")
        for number, other in enumerate(others, 1):
            _append(lines, other + (":" if number < len(others) else ";"), "")
    return "\r\n\t".join(lines)


def _append(lines: list[str], word: str, blank: str) -> None:
    if len(lines[-1]) + len(blank) + len(word) > _LINE:
        lines.append(word)
    else:
        lines[-1] += blank + word
