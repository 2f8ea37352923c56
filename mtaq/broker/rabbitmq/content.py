"""What is published as AMQP content: ids, headers and, if wished, gzip; and back.

Does no I/O. What comes back is what somebody else published, so nothing here raises on it: a body that claims to be
gzip and is not, or that would inflate beyond the bound, is handed on as it came; its consumer finds that it is no JSON.
"""

from __future__ import annotations

import gzip
import itertools
import uuid
import zlib
from collections.abc import Iterator, Mapping

GZIP = "gzip"

#: A body may inflate to this multiple of the largest body published.
INFLATION = 4

#: Headers that the broker adds on the way (dead-lettering, redelivery); they are not the publisher's.
_BROKERS_OWN = ("x-death", "x-first-death-", "x-last-death-", "x-delivery-count", "x-acquired-count")

_HeaderValue = str | int | bool


def fresh_ids() -> Iterator[str]:
    """Yield UUIDs (version 4 in form): one random start, then counted, since each publish needs one that is cheap."""
    start = uuid.uuid4().int
    prefix = str(uuid.UUID(int=start, version=4))[:-12]
    for count in itertools.count(start):
        yield f"{prefix}{count & 0xFFFFFFFFFFFF:012x}"


def headers_of(table: Mapping[str, object]) -> Mapping[str, _HeaderValue]:
    """Return the publisher's headers out of *table*: those of the plain types, without what the broker wrote."""
    return {
        name: value
        for name, value in table.items()
        if isinstance(value, str | int | bool) and not name.startswith(_BROKERS_OWN)
    }


def deflate(body: bytes) -> bytes:
    """Compress *body*, quickly rather than well."""
    return gzip.compress(body, compresslevel=1, mtime=0)


def inflate(body: bytes, *, limit_bytes: int) -> bytes:
    """Return what *body* holds, or *body* itself when it is not gzip, is cut off, or holds more than *limit_bytes*."""
    stream = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        inflated = stream.decompress(body, limit_bytes + 1)
    except zlib.error:
        return body
    return inflated if stream.eof and len(inflated) <= limit_bytes else body
