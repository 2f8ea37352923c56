"""What the sink keeps of the messages it takes: their content, and a line about each.

Raises ``OSError`` when it cannot write; the message then is not taken.
"""

from __future__ import annotations

import hashlib
import os
import platform
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from mtaq.model.address import address_text
from mtaq.model.message import TlsFacts
from mtaq.smtp.server_session import Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """Between whom a session is: our address and the peer's, the name it gave, and TLS."""

    local_ip: str
    remote_ip: str
    helo: str
    tls: TlsFacts | None


class Maildir:
    """A folder of messages, a file each, in the form of maildir(5): complete once it is in ``new``."""

    def __init__(self, path: Path) -> None:
        self._path = path
        for folder in ("tmp", "new", "cur"):
            (path / folder).mkdir(parents=True, exist_ok=True)
        self._start = f"{time.time():.6f}.{os.getpid()}"
        self._host = platform.node().replace("/", "_").replace(":", "_")
        self._count = 0

    def store(self, content: bytes) -> str:
        """Store *content*, byte for byte, and return the file's name. Names sort in the order of arrival."""
        self._count += 1
        name = f"{self._start}_{self._count:09d}.{self._host}"
        (self._path / "tmp" / name).write_bytes(content)
        os.rename(self._path / "tmp" / name, self._path / "new" / name)
        return name


class Record:
    """Everything a sink writes.

    Args:
        maildir: Folder for contents; ``None`` keeps none.
        log: File that gets a line of JSON for each message; ``None`` for none.
        verbose: Print a line for each message.

    Attributes:
        count: Messages taken.
    """

    def __init__(self, *, maildir: Path | None, log: Path | None, verbose: bool) -> None:
        self._maildir = Maildir(maildir) if maildir is not None else None
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._log = os.open(log, flags, 0o644) if log is not None else None
        self._verbose = verbose
        self.count = 0

    def take(self, ends: Ends, transaction: Transaction, content: bytes) -> None:
        """Keep one message. When this returns it can be read by others."""
        name = self._maildir.store(content) if self._maildir is not None else None
        if self._log is not None:
            os.write(self._log, orjson.dumps(_note(ends, transaction, content, name)) + b"\n")
        self.count += 1
        if self._verbose:
            self._print(transaction, len(content))

    def _print(self, transaction: Transaction, size_bytes: int) -> None:
        paths = ", ".join(f"<{path}>" for path in transaction.forward_paths[:10])
        more = "" if len(transaction.forward_paths) <= 10 else f" and {len(transaction.forward_paths) - 10} more"
        try:
            print(f"{size_bytes} bytes from <{address_text(transaction.reverse_path)}> to {paths}{more}", flush=True)
        except BrokenPipeError:
            # Whoever read this has seen enough. The message is kept all the same, and must not be refused.
            self._verbose = False
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _note(ends: Ends, transaction: Transaction, content: bytes, name: str | None) -> dict[str, Any]:
    return {
        "time": datetime.now(UTC).isoformat(),
        "local-ip": ends.local_ip,
        "remote-ip": ends.remote_ip,
        "helo": ends.helo,
        "tls": {"version": ends.tls.version, "cipher": ends.tls.cipher} if ends.tls is not None else None,
        "reverse-path": address_text(transaction.reverse_path),
        "forward-paths": [str(path) for path in transaction.forward_paths],
        "body": transaction.body,
        "smtputf8": transaction.smtputf8,
        "size": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "file": name,
    }
