"""Hands the messages of the spool directory to ``receive.intake``, as a session would hand over what it received.

Whoever may write into the directory is trusted like a client that has logged in: its ``x-mq-*`` fields count
(``spool-extract``), and mail to anybody is taken. Ports' options do not apply; those without ``@port`` do.
"""

from __future__ import annotations

from dataclasses import replace

from mtaq.config import ReceiveOptions
from mtaq.config.spool import SpoolOptions
from mtaq.model.message import ConnectionFacts, SpoolFacts
from mtaq.model.reply import Reply
from mtaq.receive.draft import SessionFacts
from mtaq.receive.intake import Intake
from mtaq.receive.policy import PortPolicy
from mtaq.receive.spool_folder import SpooledMessage
from mtaq.smtp.server_events import Transaction

#: What the log calls the session, and our ``Received:`` the client.
SESSION_ID = "spool"
_CONNECTION = ConnectionFacts(
    local_ip="127.0.0.1", local_port=0, remote_ip="127.0.0.1", remote_port=0, helo="localhost"
)


def spool_receive_options(reception: ReceiveOptions, spool: SpoolOptions) -> ReceiveOptions:
    """Return the options of reception as they hold for the spool directory."""
    return replace(reception, smtp_extract="true" if spool.spool_extract else "false")


class SpoolIntake:
    """Takes what files say.

    Attributes:
        policy: May be replaced at any time; holds from the next message on.
    """

    def __init__(self, intake: Intake, policy: PortPolicy) -> None:
        """Hand over to *intake*, as *policy* says."""
        self.policy = policy
        self._intake = intake

    async def take(self, message: SpooledMessage) -> Reply:
        """Store *message* for each of its recipients, and return what a client would be told."""
        envelope, recipients, content = message.said
        addresses = [address for address in (envelope, *recipients) if address is not None]
        transaction = Transaction(
            reverse_path=envelope,
            body="7bit" if content.isascii() else "8bitmime",
            smtputf8=not all(address.is_ascii for address in addresses),
            forward_paths=list(recipients),
        )
        facts = SessionFacts(
            session_id=SESSION_ID,
            connection=_CONNECTION,
            hostname=self.policy.hostname(_CONNECTION.local_ip),
            esmtp=False,
            policy=self.policy,
            spool=SpoolFacts(
                directory=message.directory, file=message.file, user=message.user, size_bytes=message.size_bytes
            ),
        )
        return await self._intake.take(transaction, content, facts)
