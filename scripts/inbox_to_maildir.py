#!/usr/bin/env python3
"""Write every received message into a Maildir; a message leaves the queue only when its file is on the disk.

A crash between the two writes it once more, under the same name. Runs until SIGINT or SIGTERM, then exits 0.
"""

from __future__ import annotations

import argparse
import hashlib
import os
from pathlib import Path

from mtaq.client.sync import Message, address_from_environment, connect


def file_name(message: Message) -> str:
    """A name that no other message has, and this one always."""
    identity = message.get("message-id") or message.origin or message.consumed.body.decode()
    return hashlib.sha256(f"{identity}\n{message.recipient}".encode()).hexdigest()[:40]


def write(maildir: Path, name: str, content: bytes) -> None:
    """Write to ``tmp``, sync, move to ``new``, sync that folder too."""
    with (maildir / "tmp" / name).open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    (maildir / "tmp" / name).rename(maildir / "new" / name)
    folder = os.open(maildir / "new", os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(folder)
    os.close(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write every message of the inbox queue into a Maildir.")
    parser.add_argument("--maildir", type=Path, required=True, help="the folder; made if missing")
    parser.add_argument("--address", help="amqp://… or embedded:///…; else MTAQ_RABBITMQ_ADDRESS (or …_FILE)")
    parser.add_argument("--inbox", default="inbox", help="queue to take from (default: %(default)s)")
    chosen = parser.parse_args()
    os.umask(0o077)
    for part in ("tmp", "new", "cur"):
        (chosen.maildir / part).mkdir(mode=0o700, parents=True, exist_ok=True)
    with connect(chosen.address or address_from_environment()) as queues:
        queues.stop_on_signals()
        for message in queues.consume(chosen.inbox):
            with message:
                write(chosen.maildir, file_name(message), message.content)


if __name__ == "__main__":
    main()
