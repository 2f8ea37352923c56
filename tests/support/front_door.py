"""The instance of docs/guide/receiving.md: a mail exchanger on one port, submission for users on two others."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import trustme

from mtaq.client.sync import connect
from tests.support.instance import ROOT, Relay, free_port
from tests.support.received import example

USER, PASSWORD = "ada@example.org", "Zeph1r, 2 wells"

#: The names of the example, of which each has a certificate.
EXCHANGER, SUBMISSION = "mx.example.com", "mail.example.com"


class FrontDoor(Relay):
    """A reception with the guide's example, on ports of this machine.

    Attributes:
        mx: The port of the mail exchanger.
        submission: The port where users begin with STARTTLS.
        secure: The port with TLS from the first byte.
        authority: PEM file of who signed all certificates.
        trust: A client's context that believes it.
        address: Of the queues.
    """

    def __init__(self, folder: Path, address: str = "", **options: object) -> None:
        self.address = address or f"embedded://{folder / 'queue'}"
        super().__init__(folder, self.address, verb="receive", smtp_threads=1)
        self.mx, self.submission, self.secure = self.port, free_port(), free_port()
        authority = trustme.CA()
        self.authority, self.trust = folder / "authority.pem", ssl.create_default_context()
        authority.cert_pem.write_to_path(str(self.authority))
        authority.configure_trust(self.trust)
        for name in (EXCHANGER, SUBMISSION):
            issued = authority.issue_cert(name, "127.0.0.1", "127.0.0.4")
            issued.cert_chain_pems[0].write_to_path(str(folder / f"{name}.pem"))
            issued.private_key_pem.write_to_path(str(folder / f"{name}.key"))
        hashed = subprocess.run(["openssl", "passwd", "-6", PASSWORD], check=True, capture_output=True, text=True)
        (folder / "users").write_text(f"{USER}:{hashed.stdout.strip()}\n")
        del self.options["smtp-hostname"]
        self.options |= example("receiving.md", "smtp-relay@25", self._here())
        self.options |= {key.replace("_", "-"): value for key, value in options.items()}

    def _here(self) -> dict[str, object]:
        """What the example says → what it is on this machine."""
        return {
            "smtp-port: 25,587": f"smtp-port: {self.mx},{self.submission}",
            "smtp-secure-port: 465": f"smtp-secure-port: {self.secure}",
            "@25": f"@{self.mx}",
            "@587": f"@{self.submission}",
            "@465": f"@{self.secure}",
            "/etc/mtaq": self.folder,
        }

    def local(self, *arguments: str) -> None:
        """Run ``mtaq local`` for this instance."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MTAQ_")}
        subprocess.run(
            [sys.executable, "-m", "mtaq", "local", *arguments, "--config", str(self.configuration)],
            check=True, capture_output=True, cwd=ROOT, env=environment, timeout=60,
        )  # fmt: skip


def messages(address: str, queue: str) -> Generator[dict[str, Any], None, None]:
    """Yield the JSON of each message of *queue*, waiting for the next; each is taken out."""
    with connect(address) as queues:
        for message in queues.consume(queue):
            message.ack()
            yield dict(message)
