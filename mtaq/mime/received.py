"""The trace field that every SMTP server adds (RFC 5321 §4.4).

Parts of it are the client's own words; whatever they are, they cannot end a line, a comment or the field.
"""

from __future__ import annotations

import ipaddress
import re
from datetime import datetime
from email.utils import format_datetime
from functools import lru_cache

from mtaq.model.address import Address
from mtaq.model.message import TlsFacts

#: RFC 1035 §2.3.4, and twice that for what is no name anyway.
_NAME_MAX = 255
_UNSAFE = re.compile(r"[^A-Za-z0-9._:\[\]-]")
_UNSAFE_PATH = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff<>]")


def protocol_name(*, esmtp: bool, tls: bool, authenticated: bool, smtputf8: bool) -> str:
    """Return the word after ``with`` (RFC 3848, RFC 6531 §4.3): ``ESMTPSA``, ``UTF8SMTP`` …"""
    if not esmtp:
        return "SMTP"
    return ("UTF8SMTP" if smtputf8 else "ESMTP") + ("S" if tls else "") + ("A" if authenticated else "")


def received_field(
    *,
    helo: str,
    remote_ip: str,
    remote_name: str | None,
    hostname: str,
    protocol: str,
    tls: TlsFacts | None,
    transaction_id: str,
    recipient: Address | None,
    now: datetime,
) -> bytes:
    """
    Return our ``Received`` field, folded, with its line end.

    Args:
        helo: The client's name for itself.
        remote_name: What reverse DNS calls it; ``None`` when that is not known.
        hostname: Our name in the session.
        protocol: See ``protocol_name``.
        recipient: Only when the transaction has exactly one: else each would be told of the others (RFC 5321 §7.2).
            One that is not ASCII is left out unless *protocol* allows it.
        now: Timezone-aware; when the message was accepted.
    """
    peer = _literal(remote_ip) if remote_name is None else f"{_safe(remote_name)} {_literal(remote_ip)}"
    lines = [f"Received: from {_safe(helo)} ({peer})", f"by {_safe(hostname)} with {_safe(protocol)}"]
    if tls is not None:
        lines[-1] += f" ({_safe(tls.version)})"
    lines.append(f"id {_safe(transaction_id)}")
    if recipient is not None and _is_showable(str(recipient), protocol):
        lines.append(f"for <{recipient}>")
    if tls is not None:
        lines.append(f"tls {_safe(tls.cipher)}")  # RFC 8314 §4.3
    lines[-1] += ";"
    lines.append(_date(now.replace(microsecond=0)))
    return ("\r\n\t".join(lines) + "\r\n").encode("utf-8")


def return_path_field(envelope: str) -> bytes:
    """Return the ``Return-Path`` field of final delivery (RFC 5321 §4.4), with its line end; empty for the null one."""
    return f"Return-Path: <{_UNSAFE_PATH.sub('?', envelope)}>\r\n".encode()


def _safe(text: str) -> str:
    return _UNSAFE.sub("?", text[:_NAME_MAX]) or "unknown"


@lru_cache(maxsize=4)
def _date(now: datetime) -> str:
    # Busy servers write the same one hundreds of times.
    return format_datetime(now)


@lru_cache(maxsize=4096)
def _literal(ip: str) -> str:
    """Return the address literal of *ip* (RFC 5321 §4.1.3)."""
    try:
        return f"[IPv6:{ip}]" if ipaddress.ip_address(ip).version == 6 else f"[{ip}]"
    except ValueError:
        return f"[{_safe(ip)}]"


def _is_showable(address: str, protocol: str) -> bool:
    if _UNSAFE_PATH.search(address) or len(address.encode()) > 900:
        return False
    return address.isascii() or protocol.startswith("UTF8")
