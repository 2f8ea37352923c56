"""What the sink keeps: the content of messages it takes, a line about each, and about all that happens if asked to.

Raises ``OSError`` when it cannot write; the message then is not taken.
"""

from __future__ import annotations

import hashlib
import os
import platform
import sys
import time
from collections.abc import Callable
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
    """Between whom a session is, and what is known of the peer by now.

    Attributes:
        connection: Its id, unique for this run of the sink.
        helo: The name that the peer gave; empty before.
        user: As whom it has logged in.
        message: Which transaction on this connection is meant, from 1; 0 for none.
        submitter: AUTH= of its MAIL; ``None`` when it was not given.
    """

    connection: str
    local_ip: str
    local_port: int
    remote_ip: str
    remote_port: int
    helo: str = ""
    tls: TlsFacts | None = None
    user: str | None = None
    message: int = 0
    submitter: str | None = None


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
        log: File that gets lines of JSON; ``None`` for none.
        verbose: Print a line for each message.
        everything: Log connections, refusals and faults too, not messages alone.

    Attributes:
        count: Messages taken.
        everything: As given, if there is a log at all.
    """

    def __init__(self, *, maildir: Path | None, log: Path | None, verbose: bool, everything: bool = False) -> None:
        self._maildir = Maildir(maildir) if maildir is not None else None
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._log = os.open(log, flags, 0o644) if log is not None else None
        self._verbose = verbose
        self._run = f"{time.time_ns() // 1000:x}"
        self._connections = 0
        self.everything = everything and log is not None
        self.count = 0

    def next_connection(self) -> str:
        """Return the id of a new connection."""
        self._connections += 1
        return f"{self._run}.{self._connections}"

    def take(self, ends: Callable[[], Ends], transaction: Transaction, content: bytes) -> None:
        """Keep one message. When this returns it can be read by others."""
        name = self._maildir.store(content) if self._maildir is not None else None
        if self._log is not None:
            self._write("message", ends(), _facts(transaction, content, name))
        self.count += 1
        if self._verbose:
            self._print(transaction, len(content))

    def note(self, event: str, ends: Ends, **facts: Any) -> None:
        """Log that something happened, if everything is to be logged."""
        if self.everything:
            self._write(event, ends, facts)

    def _write(self, event: str, ends: Ends, facts: dict[str, Any]) -> None:
        if self._log is not None:
            os.write(self._log, orjson.dumps({"event": event, **_where(ends), **facts}) + b"\n")

    def _print(self, transaction: Transaction, size_bytes: int) -> None:
        paths = ", ".join(f"<{path}>" for path in transaction.forward_paths[:10])
        more = "" if len(transaction.forward_paths) <= 10 else f" and {len(transaction.forward_paths) - 10} more"
        try:
            print(f"{size_bytes} bytes from <{address_text(transaction.reverse_path)}> to {paths}{more}", flush=True)
        except BrokenPipeError:
            # Whoever read this has seen enough. The message is kept all the same, and must not be refused.
            self._verbose = False
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _where(ends: Ends) -> dict[str, Any]:
    where: dict[str, Any] = {
        "time": datetime.now(UTC).isoformat(timespec="microseconds"),
        "connection": ends.connection,
        "local-ip": ends.local_ip,
        "local-port": ends.local_port,
        "remote-ip": ends.remote_ip,
        "remote-port": ends.remote_port,
        "helo": ends.helo,
        "tls": {"version": ends.tls.version, "cipher": ends.tls.cipher} if ends.tls is not None else None,
        "user": ends.user,
    }
    if ends.message:
        where["message"] = ends.message
    if ends.submitter is not None:
        where["auth"] = ends.submitter
    return where


def _facts(transaction: Transaction, content: bytes, name: str | None) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "reverse-path": address_text(transaction.reverse_path),
        "forward-paths": [str(path) for path in transaction.forward_paths],
        "declared-size": transaction.size_bytes,
        "body": transaction.body,
        "smtputf8": transaction.smtputf8,
        "requiretls": transaction.requiretls,
        "size": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "file": name,
    }
    dsn = _dsn(transaction)
    return {**facts, "dsn": dsn} if dsn else facts


def _dsn(transaction: Transaction) -> dict[str, Any]:
    """RET and ENVID, and NOTIFY and ORCPT by forward-path; what was not given is left out."""
    dsn: dict[str, Any] = {"ret": transaction.ret, "envid": transaction.envid}
    for index, asked in transaction.dsn.items():
        given = {"notify": asked.notify, "orcpt": asked.orcpt}
        recipients = dsn.setdefault("recipients", {})
        recipients[str(transaction.forward_paths[index])] = {key: value for key, value in given.items() if value}
    return {key: value for key, value in dsn.items() if value}
