"""Attachments inside a TNEF container, Outlook's ``winmail.dat`` (MS-OXTNEF).

``tnefparse`` reads the objects; it trusts the counts in them, so here is what bounds it: our own walk over the objects,
octets that refuse to be read for ever, no embedded message opened by the library itself. Never fails; what cannot be
understood is left out, and said to be.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from tnefparse import TNEF, TNEFObject
from tnefparse import properties as mapi
from tnefparse.codepage import Codepage
from tnefparse.mapi import IMESSAGE_SIG, decode_mapi

from mtaq.mime.charsets import decode

SIZE_LIMIT = 32 * 1024 * 1024
ATTACHMENTS_LIMIT = 1_000
DEPTH_LIMIT = 3

_SIGNATURE = b"\x78\x9f\x3e\x22"
_OBJECTS_LIMIT = 10_000
_PROPERTIES_LIMIT = 1_000
_READS_LIMIT = 20_000
_OBJECT_HEAD = 9
_OBJECT_MIN = 12

_is_media_type = re.compile("[!-.0-~]{1,80}/[!-.0-~]{1,80}").fullmatch

# It tells of every oddity, and quotes the content doing so.
logging.getLogger("tnefparse").setLevel(logging.CRITICAL + 1)


class Unpacked(NamedTuple):
    """An attachment: its file's name, its media type and what it holds."""

    name: str
    media_type: str
    octets: bytes


def is_tnef(media_type: str, octets: bytes) -> bool:
    """Is this a container, by its type or its name for itself?"""
    return octets.startswith(_SIGNATURE) and media_type.startswith("application/")


def unpack(octets: bytes, depth: int = 0) -> tuple[list[Unpacked], bool]:
    """Return the attachments of a container, those of embedded messages included, and whether that was all."""
    if len(octets) > SIZE_LIMIT or depth == DEPTH_LIMIT:
        return [], False
    codepage, raw, complete = "cp1252", list[dict[str, Any]](), True
    try:
        for item in _objects(octets):
            if item.name == TNEF.ATTOEMCODEPAGE:
                codepage = Codepage(int.from_bytes(item.data[:4], "little")).best_guess() or codepage
            elif item.name == TNEF.ATTATTACHRENDDATA:
                raw.append({})
            elif item.level == TNEF.LVL_ATTACHMENT and raw:
                raw[-1] |= _said_by(item, codepage)
    except Exception:  # the library's, for what is no TNEF after all
        complete = False
    found: list[Unpacked] = []
    complete = complete and len(raw) <= ATTACHMENTS_LIMIT
    for attachment in raw[:ATTACHMENTS_LIMIT]:
        inner, all_of_it = _opened(attachment, depth)
        found += inner
        complete = complete and all_of_it
    return found[:ATTACHMENTS_LIMIT], complete and len(found) <= ATTACHMENTS_LIMIT


class _Guarded(bytes):
    """Octets that end a loop that reads on behind their end, or too often."""

    reads = 0

    def __getitem__(self, key: Any) -> Any:
        self.reads += 1
        if self.reads > _READS_LIMIT or (isinstance(key, slice) and key.start is not None and key.start >= len(self)):
            raise ValueError("no such property")
        return super().__getitem__(key)


def _objects(octets: bytes) -> Iterator[TNEFObject]:
    offset = len(_SIGNATURE) + 2
    for _ in range(_OBJECTS_LIMIT):
        if offset + _OBJECT_MIN > len(octets):
            return
        # The library copies all that is left for each object.
        size = int.from_bytes(octets[offset + 5 : offset + _OBJECT_HEAD], "little") + _OBJECT_HEAD + 2
        yield TNEFObject(octets[offset : offset + size])
        offset += size
    raise ValueError("more objects than any message has")


def _said_by(item: TNEFObject, codepage: str) -> dict[str, Any]:
    """Return what one object of an attachment says about it."""
    if item.name == TNEF.ATTATTACHTITLE:
        return {"title": decode(item.data, codepage)}
    if item.name == TNEF.ATTATTACHDATA:
        return {"octets": item.data}
    if item.name != TNEF.ATTATTACHMENT:
        return {}
    if int.from_bytes(item.data[:4], "little") > _PROPERTIES_LIMIT:
        raise ValueError("more properties than any attachment has")
    said: dict[str, Any] = {}
    for attribute in decode_mapi(_Guarded(item.data), codepage):
        if attribute.name in _WANTED:
            said[_WANTED[attribute.name]] = attribute.data
        elif attribute.name == mapi.MAPI_ATTACH_DATA_OBJ:  # its ``data`` would lack the NULs at the end
            said["octets"] = b"".join(attribute.raw_data)
    return said


_WANTED = {
    mapi.MAPI_ATTACH_LONG_FILENAME: "long name",
    mapi.MAPI_ATTACH_FILENAME: "title",
    mapi.MAPI_ATTACH_MIME_TAG: "type",
}


def _opened(said: dict[str, Any], depth: int) -> tuple[list[Unpacked], bool]:
    """Return an attachment, and what is in it when it is an embedded message."""
    octets = said.get("octets", b"")
    name = _plain(said.get("long name")) or _plain(said.get("title"))
    if octets.startswith(IMESSAGE_SIG):
        inner, complete = unpack(octets[len(IMESSAGE_SIG) :], depth + 1)
        return [Unpacked(name, "application/ms-tnef", octets[len(IMESSAGE_SIG) :]), *inner], complete
    media_type = _plain(said.get("type")).lower()
    return [Unpacked(name, media_type if _is_media_type(media_type) else "application/octet-stream", octets)], True


def _plain(text: Any) -> str:
    """Return a name without what ends it; nothing for what is no text."""
    return text.rstrip("\0").encode("utf-8", "replace").decode("utf-8")[:255] if isinstance(text, str) else ""
