"""A message as its signatures see it: header fields in their order, and hashes of the body, each made once.

``SignedMessage`` is where the time goes that a check takes, and ``dkim.find_signatures`` and ``arc.find_chain``, which
work on it. Neither asks nor waits, so a large message is worked through in a thread; ``is_large`` says which are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from mtaq.mailauth.dkim_canonical import (
    BodyHashes,
    RawField,
    body_hashes,
    canonical_field,
    field_index,
    header_hash,
    raw_fields,
    selected_places,
)

#: Hashing more than this is left to a thread: below it takes less than a millisecond, which a thread costs as well.
LARGE_BYTES = 65_536
#: More of a header section is not looked at, as everywhere.
HEADER_LIMIT_BYTES = 262_144


def is_large(content: bytes) -> bool:
    """Would working through *content* hold up an event loop?"""
    return len(content) > LARGE_BYTES


class SignedMessage:
    """A message's header fields, and what is signed of it.

    Attributes:
        fields: From the top.
        index: Name in lower case → places in ``fields``.
        problem: Why nothing in its header section can be trusted to be what its reader sees; ``None`` if it can.
    """

    def __init__(self, content: bytes) -> None:
        end, self._body_start = _header_end(content)
        section = content[: min(end, HEADER_LIMIT_BYTES)]
        self._content = content
        self._bodies: dict[bool, BodyHashes] = {}
        self._canonical_fields: dict[tuple[int, bool], bytes] = {}
        self.fields = raw_fields(section)
        self.index = field_index(self.fields)
        self.problem = _problem(section, end)

    def named(self, name: bytes) -> list[RawField]:
        """Return the fields of that name, from the top; *name* in lower case."""
        return [self.fields[place] for place in self.index.get(name, ())]

    def count(self, name: bytes) -> int:
        """Return how many fields have that name; *name* in lower case."""
        return len(self.index.get(name, ()))

    def hash_bodies(self, wanted: Iterable[tuple[bool, int | None]]) -> None:
        """Hash the body as often as needed for all of *wanted*: relaxed or not, and how much of it (``l=``)."""
        lengths: dict[bool, set[int]] = {}
        for relaxed, length in wanted:
            lengths.setdefault(relaxed, set()).update(() if length is None else (length,))
        for relaxed, some in lengths.items():
            if not self._has(relaxed, some):
                self._bodies[relaxed] = body_hashes(self._content, self._body_start, relaxed=relaxed, lengths=some)

    def _has(self, relaxed: bool, lengths: Collection[int]) -> bool:
        known = self._bodies.get(relaxed)
        return known is not None and all(length in known.beginnings or length > known.size_bytes for length in lengths)

    def body_hash(self, *, relaxed: bool, length: int | None) -> bytes | None:
        """Return a hash that ``hash_bodies`` was asked for; ``None`` when the body is shorter than *length*."""
        body = self._bodies[relaxed]
        return body.whole if length is None else body.beginnings.get(length)

    def body_size(self, *, relaxed: bool) -> int:
        """Return the octets of the canonical body; ``hash_bodies`` was asked for one of that kind."""
        return self._bodies[relaxed].size_bytes

    def signed_hash(self, place: int, names: Iterable[bytes], *, relaxed: bool) -> bytes:
        """Return the SHA-256 that the signature at *place* signs, of the fields *names* and of itself."""
        return self.hash_under(self.fields[place], names, relaxed=relaxed, own=place)

    def hash_under(
        self, signature: RawField, names: Iterable[bytes], *, relaxed: bool, own: int | None = None
    ) -> bytes:
        """Return the SHA-256 that *signature* signs, which stands at *own*, or is not in this message yet."""
        places = selected_places(self.index, names, own)
        return header_hash([self._canonical(place, relaxed) for place in places], signature, relaxed=relaxed)

    def _canonical(self, place: int, relaxed: bool) -> bytes:
        """Each field is made canonical once, however many signatures cover it."""
        known = self._canonical_fields.get((place, relaxed))
        if known is None:
            known = self._canonical_fields[place, relaxed] = canonical_field(self.fields[place], relaxed=relaxed)
        return known


def _header_end(content: bytes) -> tuple[int, int]:
    """Return where the header section ends, and where the body begins."""
    if content.startswith(b"\r\n"):
        return 0, 2
    end = content.find(b"\r\n\r\n")
    return (end, end + 4) if end >= 0 else (len(content), len(content))


def _problem(section: bytes, end: int) -> str | None:
    if end > HEADER_LIMIT_BYTES:
        return f"the header section has more than {HEADER_LIMIT_BYTES} octets"
    # Readers take a bare CR or LF for a line end and see other fields than those that were signed.
    pairs = section.count(b"\r\n")
    if section.count(b"\r") != pairs or section.count(b"\n") != pairs:
        return "the header section has a bare CR or LF"
    return None
