"""Readers of mail that disagree about broken messages: what each of them would show as HTML."""

from __future__ import annotations

import base64
import email
import email.policy
import quopri
import re
from collections.abc import Callable, Iterator

Reader = Callable[[bytes], Iterator[bytes]]


def by_the_library(content: bytes) -> Iterator[bytes]:
    """Python's parser: the header section ends at the first line that is no field."""
    for part in email.message_from_bytes(content, policy=email.policy.compat32).walk():
        if "html" in part.get_content_type():
            payload = part.get_payload(decode=True)
            if isinstance(payload, bytes):
                yield payload


def reader(*, last: bool = False, prefix: bool = False, cr: bool = False, decodes_all: bool = False) -> Reader:
    """
    Return a reader written to be fooled.

    Args:
        last: Of two fields or boundaries, takes the last one.
        prefix: A line that begins like a delimiter is one.
        cr: A bare CR ends a line.
        decodes_all: Decodes the body of multiparts and messages, too.
    """

    def read(content: bytes, depth: int = 0) -> Iterator[bytes]:
        if cr:
            content = re.sub(rb"\r(?!\n)", b"\n", content)
        section, _, body = re.sub(rb"\r\n", b"\n", b"\n" + content).partition(b"\n\n")
        fields = re.findall(rb"\ncontent-(type|transfer-encoding)[ \t]*:([^\n]*(?:\n[ \t][^\n]*)*)", section, re.I)
        types = [value.replace(b"\n", b"").strip().lower() for name, value in fields if name.lower() == b"type"]
        codings = [value.strip().lower() for name, value in fields if name.lower() != b"type"]
        kind = (types[-1] if last else types[0]) if types else b"text/plain"
        coding = (codings[-1] if last else codings[0]) if codings else b""
        composite = kind.startswith((b"multipart/", b"message/"))
        if not composite or decodes_all:
            body = _decoded(body, coding)
        if kind.startswith(b"message/rfc822") and depth < 20:
            yield from read(body, depth + 1)
        elif kind.startswith(b"multipart/") and depth < 20:
            originals = [value for name, value in fields if name.lower() == b"type"]
            for part in _parts(body, (originals[-1] if last else originals[0]).replace(b"\n", b""), last, prefix):
                yield from read(part, depth + 1)
        elif b"html" in kind:
            yield body

    return read


def _parts(body: bytes, kind: bytes, last: bool, prefix: bool) -> list[bytes]:
    found = re.findall(rb'boundary\s*=\s*(?:"([^"]*)"|([^\s;]+))', kind, re.I)
    if not found:
        return []
    boundary = re.escape((found[-1] if last else found[0])[0] or (found[-1] if last else found[0])[1])
    end = rb"[^\n]*(?:\n|\Z)" if prefix else rb"(?:--)?[ \t]*(?:\n|\Z)"
    return re.split(rb"(?:\A|(?<=\n))--" + boundary + end, body)[1:]


def _decoded(body: bytes, coding: bytes) -> bytes:
    if coding.startswith(b"base64"):
        letters = re.sub(rb"[^A-Za-z0-9+/]", b"", body)
        letters = letters[: len(letters) // 4 * 4] or b""
        return base64.b64decode(letters)
    return quopri.decodestring(body) if coding.startswith(b"quoted-printable") else body


READERS: dict[str, Reader] = {
    "library": by_the_library,
    "first": reader(),
    "last": reader(last=True),
    "prefix": reader(prefix=True),
    "last prefix": reader(last=True, prefix=True),
    "cr": reader(cr=True),
    "cr prefix": reader(cr=True, prefix=True),
    "decodes all": reader(decodes_all=True),
    "decodes all last": reader(decodes_all=True, last=True),
}
