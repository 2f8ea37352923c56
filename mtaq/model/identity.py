"""The ids that join a message's story: ``<server-id>.<time-ordered 128 bits in base32>.<n>``.

Pure: time and chance are arguments.
"""

from __future__ import annotations

from datetime import datetime

#: Longest ``server-id``: id, two dots, 26 characters of base32 and up to five digits stay within 64 characters.
MAX_SERVER_ID = 31


_DIGITS = "0123456789abcdefghijklmnopqrstuv"
#: Two base32 digits at a time: the library's encoder takes three times as long as all else here.
_PAIRS = [high + low for high in _DIGITS for low in _DIGITS]


def transaction_id(server_id: str, *, now: datetime, random: bytes) -> str:
    """Return the part of the message-id that all recipients of one mail transaction share.

    Base32hex (RFC 4648 §7) keeps the order of the bits, so ids of one server sort by time.

    Args:
        server_id: Name of this server, at most ``MAX_SERVER_ID`` characters.
        now: Time of reception.
        random: Ten random bytes.
    """
    milliseconds = int(now.timestamp() * 1000) & 0xFFFF_FFFF_FFFF
    bits = int.from_bytes(milliseconds.to_bytes(6, "big") + random, "big") << 2  # 128 bits fill 26 digits but for two
    return f"{server_id}.{''.join([_PAIRS[bits >> shift & 1023] for shift in range(120, -1, -10)])}"


def recipient_id(transaction: str, number: int) -> str:
    """Return the message-id of the *number*-th recipient (from 1) of *transaction*."""
    return f"{transaction}.{number}"


def trace_parent(random: bytes) -> str:
    """Return a ``traceparent`` (W3C Trace Context §3.2) that begins a trace, not sampled.

    Args:
        random: 24 random bytes: 16 for the trace, 8 for its first span.
    """
    return f"00-{random[:16].hex()}-{random[16:].hex()}-00"
