"""What only a message's consumer looks at, as the embedded queue stores it: ids, type and headers, one JSON array."""

from __future__ import annotations

import uuid
from collections.abc import Mapping

import orjson

from mtaq.model.errors import UnconfirmedPublish
from mtaq.model.parcel import Parcel

Properties = tuple[str, str, str, Mapping[str, str | int | bool]]
"""``message_id``, ``correlation_id``, ``type`` and headers."""


def encode_properties(parcel: Parcel) -> bytes:
    """
    Return what is stored of *parcel* beside its body.

    Raises:
        UnconfirmedPublish: It cannot be written.
    """
    message_id = parcel.message_id or str(uuid.uuid4())
    try:
        return orjson.dumps((message_id, parcel.correlation_id, parcel.type, dict(parcel.headers)))
    except orjson.JSONEncodeError as error:
        raise UnconfirmedPublish(f"properties that cannot be written: {error}") from error


def read_properties(stored: bytes) -> Properties:
    """Return what ``encode_properties`` wrote."""
    message_id, correlation_id, kind, headers = orjson.loads(stored)
    return message_id, correlation_id, kind, headers
