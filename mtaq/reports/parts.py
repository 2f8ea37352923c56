"""The parts of a mail that may be a report's: found, bounded, decoded.

A message inside of the mail is not looked into: who forwards a report does not make one. Beyond ``PARTS_LIMIT`` or
``DEPTH_LIMIT`` the mail is no report; content is decoded only when somebody asks for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from mtaq.mime.entity import Entity, entity_at, inner_places, parameters
from mtaq.mime.transfer import decoded
from mtaq.reports.report import NotAReport

DEPTH_LIMIT = 30
PARTS_LIMIT = 1_000

#: Encoded octets from which the first decoded ones come: enough for line ends and blanks before them.
_PEEK_BYTES = 400


class Part(NamedTuple):
    """A part that holds no further parts.

    Attributes:
        content: The mail that it is part of.
        entity: Its place in it.
        media_type: In lower case.
    """

    content: bytes
    entity: Entity
    media_type: str

    @property
    def filename(self) -> str:
        """Its file's name in lower case, or nothing."""
        disposition = parameters(self.entity.text(b"content-disposition"))
        name = disposition.get("filename") or parameters(self.entity.text(b"content-type")).get("name", "")
        return name.strip().lower()

    def octets(self) -> bytes:
        """Return what it carries, its transfer encoding undone."""
        return decoded(self.content[self.entity.body : self.entity.end], self.entity.encoding)

    def first_octets(self) -> bytes:
        """Return how that begins."""
        end = min(self.entity.end, self.entity.body + _PEEK_BYTES)
        return decoded(self.content[self.entity.body : end], self.entity.encoding)


def parts(content: bytes) -> Iterator[Part]:
    """
    Yield the parts of *content* that hold no further parts, in order.

    Raises:
        NotAReport: There are too many, or they are nested too deep.
    """
    waiting = [(0, len(content), 0)]
    for _ in range(PARTS_LIMIT):
        if not waiting:
            return
        start, end, depth = waiting.pop()
        entity = entity_at(content, start, end)
        media_type = entity.media_type
        inner = list(inner_places(content, entity)) if media_type.startswith("multipart/") else []
        if not inner:
            yield Part(content, entity, media_type)
        elif depth == DEPTH_LIMIT:
            raise NotAReport("parts are nested too deep")
        waiting += [(*place, depth + 1) for place in reversed(inner)]
    if waiting:
        raise NotAReport("too many parts")
