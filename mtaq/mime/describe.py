"""What the body of a message holds: its texts, and a description of each attachment.

The rest of ``extracted``, for ``smtp-parse: full`` and the step ``parse-full``. Bounded in parts, depth and text, and
never fails: what is broken is described as what it can be read as. A view for people and scripts: nothing in it has
been made harmless, unless the content was before. Takes as long as it takes to decode the content, so large content is
a matter for a thread.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

from mtaq.mime.charsets import decode
from mtaq.mime.entity import DEPTH_LIMIT, PARTS_LIMIT, Entity, entity_at, inner_places, parameters
from mtaq.mime.tnef import is_tnef, unpack
from mtaq.mime.transfer import decoded

#: Characters of all text bodies, and of all HTML bodies.
TEXT_LIMIT = 262_144
_NAME_MAX = 255

DESCRIBED_NAMES = ("text", "html", "attachments", "truncated")
"""The properties that are said here."""


def parse_full(content: bytes) -> dict[str, Any]:
    """
    Return the properties that the body of *content* adds to ``extracted``.

    ``text`` and ``html`` are there when the message has such a body: the parts that are neither attachments nor inside
    of one, one after the other, decoded. ``attachments`` holds everything else, with ``type``, ``size`` and ``sha256``
    of what it carries, and ``filename``, ``disposition`` and ``cid`` where it has them. What is found in a TNEF
    container follows it, with the container's name in ``container``. ``truncated`` is true when something was left out.
    """
    view = _View()
    for entity in _leaves(content, view):
        view.add(content, entity)
    return view.finished()


def _leaves(content: bytes, view: _View) -> Iterator[Entity]:
    """Yield the parts that hold no further parts, in order; messages that are attached count as such."""
    waiting = [(0, len(content), 0)]
    for _ in range(PARTS_LIMIT):
        if not waiting:
            return
        start, end, depth = waiting.pop()
        entity = entity_at(content, start, end)
        inner = list(inner_places(content, entity)) if entity.media_type.startswith("multipart/") else []
        if not inner:
            yield entity
        elif depth == DEPTH_LIMIT:
            view.truncated = True
        else:
            waiting += [(*place, depth + 1) for place in reversed(inner)]
    view.truncated = view.truncated or bool(waiting)


class _View:
    """What has been found so far."""

    def __init__(self) -> None:
        self.truncated = False
        self._texts: dict[str, list[str]] = {"text": [], "html": []}
        self._attachments: list[dict[str, Any]] = []

    def add(self, content: bytes, entity: Entity) -> None:
        octets = decoded(content[entity.body : entity.end], entity.encoding)
        kind = {"text/plain": "text", "text/html": "html"}.get(entity.media_type)
        disposition, name = _disposition(entity)
        if kind and disposition != "attachment" and not name:
            charset = parameters(entity.text(b"content-type")).get("charset")
            self._add_text(kind, decode(octets, charset))
        else:
            self._add_attachment(entity, octets, disposition, name)

    def _add_text(self, kind: str, text: str) -> None:
        room = TEXT_LIMIT - sum(map(len, self._texts[kind]))
        self.truncated = self.truncated or len(text) > room
        if text and room > 0:
            self._texts[kind].append(text[:room])

    def _add_attachment(self, entity: Entity, octets: bytes, disposition: str, name: str) -> None:
        described = _described(name, entity.media_type, octets)
        if disposition:
            described["disposition"] = disposition
        if cid := entity.text(b"content-id").strip(" \t<>")[:_NAME_MAX]:
            described["cid"] = cid
        self._attachments.append(described)
        if is_tnef(entity.media_type, octets):
            found, complete = unpack(octets)
            self.truncated = self.truncated or not complete
            container = name or "winmail.dat"
            self._attachments += [_described(*inner) | {"container": container} for inner in found]

    def finished(self) -> dict[str, Any]:
        result: dict[str, Any] = {kind: "\n".join(texts) for kind, texts in self._texts.items() if texts}
        result["attachments"] = self._attachments
        if self.truncated:
            result["truncated"] = True
        return result


def _disposition(entity: Entity) -> tuple[str, str]:
    """Return the disposition (RFC 2183) and the file's name; each empty when there is none."""
    value = entity.text(b"content-disposition")
    word = value.partition(";")[0].strip().lower()
    name = parameters(value).get("filename") or parameters(entity.text(b"content-type")).get("name", "")
    return (word if word in ("attachment", "inline") else "attachment" if word else ""), name


def _described(name: str, media_type: str, octets: bytes) -> dict[str, Any]:
    described: dict[str, Any] = {"filename": name[:_NAME_MAX]} if name else {}
    return described | {
        "type": media_type,
        "size": len(octets),
        "sha256": hashlib.sha256(octets).hexdigest(),
    }
