"""mtaq with four checks on, and the message that they are about: two RSA signatures, SPF and DMARC that pass.

The name server is one of ours, on this machine; after the first message its answers are in mtaq's cache.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa

from tests.benchmarks.peers import PeerFailed
from tests.benchmarks.relay import MtaqIntake
from tests.support.dkim_signer import record, rsa_key, signed
from tests.support.rabbitmq import RabbitNode

#: Of the load's sender.
DOMAIN = "load.test"

_EXPECTED = {"spf": "pass", "dkim": "pass", "dmarc": "pass", "arc": "none"}
_NAMES = "from:to:subject:date:message-id:mime-version:content-type"


def zones() -> dict[str, Any]:
    """Return what DNS says."""
    return {
        DOMAIN: {"TXT": ["v=spf1 ip4:127.0.0.1 -all"]},
        f"_dmarc.{DOMAIN}": {"TXT": ["v=DMARC1; p=reject"]},
        **{f"{selector}._domainkey.{DOMAIN}": {"TXT": [_strings(record(_key()))]} for selector in ("s1", "s2")},
    }


def _key() -> rsa.RSAPrivateKey:
    return rsa_key(2048)


def _strings(text: str) -> list[str]:
    return [text[at : at + 255] for at in range(0, len(text), 255)]


def write_signed(folder: Path, size_bytes: int) -> Path:
    """Write a message with a body of that size and two signatures, its lines as smtp-source wants them."""
    head = (
        f"From: Sender <sender@{DOMAIN}>\r\nTo: <recipient@destination.test>\r\nSubject: performance test\r\n"
        f"Date: Fri, 01 May 2026 05:59:58 +0000\r\nMessage-ID: <1@{DOMAIN}>\r\nMIME-Version: 1.0\r\n"
        "Content-Type: text/plain; charset=us-ascii\r\n\r\n"
    )
    line = "La de da de da, and so on until the line is as long as lines of mail are.\r\n"
    content = (head + line * (size_bytes // len(line))).encode()
    for selector in ("s1", "s2"):
        content = signed(content, _key(), {"d": DOMAIN, "s": selector, "h": _NAMES})
    path = folder / f"signed-{size_bytes}"
    path.write_bytes(content.replace(b"\r\n", b"\n"))
    return path


class MtaqChecks(MtaqIntake):
    """Reception with checks."""

    name = "mtaq-checks"

    def __init__(self, folder: Path, node: RabbitNode, *, nameserver: str) -> None:
        """Keep everything in *folder*, which nobody else uses."""
        super().__init__(folder, node, smtp_check=",".join(_EXPECTED), dns_nameserver=nameserver)

    def collect(self) -> int:
        """
        Empty the inbox.

        Raises:
            PeerFailed: The checks came to something else than they should.
        """
        last = self.events("message.accepted")[-1]
        found = {check: last.get(check) for check in _EXPECTED}
        if found != _EXPECTED:
            raise PeerFailed(f"the checks of {self.name} say {found}")
        return super().collect()
