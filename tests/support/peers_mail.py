"""What every receiving peer of the tests is: a mail server of somebody else that keeps what it was given, as it came.

Each is private to a test: its own folder, its own port of loopback, and nothing of it is left when it ends.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

import trustme

from tests.support.instance import wait_until

#: All of them take mail for this domain, and for nobody of these local-parts.
DOMAIN = "example.com"
NOBODY, LATER = "nobody", "later"
#: Larger content is refused.
MOST_BYTES = 6_000_000


class Peer(ABC):
    """A mail server that is sent to.

    Attributes:
        name: Its own.
        port: Where it listens on 127.0.0.1.
        line_end: How lines end in what it keeps.
    """

    name: str
    port: int
    line_end: bytes = b"\r\n"

    @abstractmethod
    def start(self) -> None:
        """Start it and wait until it listens."""

    @abstractmethod
    def stop(self) -> None:
        """Stop it and all its processes."""

    @abstractmethod
    def kept(self) -> list[bytes]:
        """Return all messages that it keeps, with what it wrote above them."""

    def wait_kept(self, mark: bytes) -> tuple[bytes, bytes]:
        """Wait for the message whose content begins with *mark*; return what stands above it, and the content."""

        def found() -> tuple[bytes, bytes] | None:
            for message in self.kept():
                above, sign, below = message.partition(mark)
                if sign:
                    return above, sign + below
            return None

        told: tuple[bytes, bytes] = wait_until(found, f"{self.name} to keep {mark!r}", 30)
        return told


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """Write a key and a certificate for *name* that nobody knows, and return where they are."""
    issued = trustme.CA().issue_cert(name)
    key, chain = folder / "key.pem", folder / "chain.pem"
    issued.private_key_pem.write_to_path(str(key))
    for part in issued.cert_chain_pems:
        part.write_to_path(str(chain), append=True)
    key.chmod(0o640)
    return key, chain
