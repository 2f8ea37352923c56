"""A hook in Python, to be copied and changed: who may send, who is known here, what a message may hold.

    smtp-hook: python://python_hook:Rules

The folder of this file must be in ``PYTHONPATH`` of the instance. One object answers for a whole worker process.
"""

from __future__ import annotations

from mtaq.hooks import Decision, Message, Recipient, Sender, accept, reject

BLOCKED = {"spam.example"}
KNOWN = {"ada@example.com", "grace@example.com"}
DANGEROUS = (".exe", ".scr", ".js")


class Rules:
    """A method that is missing accepts; plain methods run in a thread, so they may ask a database."""

    def sender(self, sender: Sender) -> bool:
        """MAIL: no means ``550 5.7.1 not accepted here``."""
        return sender.envelope.rpartition("@")[2] not in BLOCKED

    async def recipient(self, recipient: Recipient) -> Decision:
        """RCPT, once for each; an async method must never block."""
        if recipient.client.user is not None or recipient.recipient in KNOWN:
            return accept()
        return reject("no such mailbox", status="5.1.1")

    def message(self, message: Message) -> Decision | None:
        """The whole message, before it is stored; what is changed here counts."""
        for part in message.email().iter_attachments():
            if (part.get_filename() or "").lower().endswith(DANGEROUS):
                return reject("programs are not taken", status="5.7.0")
        message["tags"] = [*message.get("tags", []), "checked"]
        return None
