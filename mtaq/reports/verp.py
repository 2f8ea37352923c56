"""The recipient that a return address names (variable envelope return paths).

Two forms are read: ``bounces+user=example.com@us`` and ezmlm's ``list-return-17-user=example.com@us``.
"""

from __future__ import annotations

import re

from mtaq.model.address import Address

_match_verp = re.compile(
    r"(?:[^+=@]{1,64}\+|.{1,64}-return-[0-9]{1,12}-)([^=@\s]{1,64})=([a-z0-9-]+(?:\.[a-z0-9-]+)+)", re.IGNORECASE
).fullmatch


def verp_recipient(address: Address | None) -> str | None:
    """Return whom *address*, to which a bounce came, was made for; ``None`` when it names nobody."""
    match = _match_verp(address.local_part) if address is not None else None
    return f"{match[1]}@{match[2]}" if match else None
