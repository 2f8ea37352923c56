"""Keeps what was refused in a queue, for whoever looks into it (``rabbitmq-refused``).

Best effort: a refusal stands whether or not its evidence could be stored, and no client waits for it. A flood of
refusals fills neither memory nor the broker's window: beyond ``MOST_BYTES`` under way, evidence is counted and let go.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime

from mtaq.model.address import Address
from mtaq.model.codec import encode_inbox
from mtaq.model.errors import BrokerError
from mtaq.receive.draft import Draft, Refusal, SessionFacts
from mtaq.receive.ports import Publisher
from mtaq.receive.publish import Outgoing, publish_all
from mtaq.smtp.server_events import Transaction
from mtaq.telemetry.metrics import counter

#: Evidence that is being published, content and what stands around it.
MOST_BYTES = 32 * 1024 * 1024

#: What a message takes beside its content, about: a refused envelope has no other.
BESIDE_BYTES = 4096

PUBLISH_TIMEOUT_S = 25.0

KEPT = counter("mtaq_evidence_kept", "Refused messages stored in rabbitmq-refused, one per recipient.")
LOST = counter("mtaq_evidence_lost", "Refused messages that could not be stored in rabbitmq-refused.")


class Evidence:
    """Publishes refused messages to one queue, or to none."""

    def __init__(
        self,
        queue: str | None,
        *,
        publisher: Publisher,
        watch: Callable[[asyncio.Task[None]], None],
        max_bytes: int | None,
        identify: Callable[[datetime], str],
        clock: Callable[[], datetime],
    ) -> None:
        """
        Publish to *queue*.

        Args:
            watch: Keeps the tasks that do it.
            max_bytes: Largest JSON the broker takes.
            identify: Makes the id of a transaction.
            clock: Timezone-aware.
        """
        self._identify = identify
        self._clock = clock
        self._queue = queue
        self._publisher = publisher
        self._watch = watch
        self._max_bytes = max_bytes
        self._under_way_bytes = 0

    def keep(self, draft: Draft, refusal: Refusal) -> None:
        """Store *draft*, if refused for good and there is a queue for it, without waiting."""
        if self._queue is None or refusal.reply.is_transient:
            return
        size_bytes = (len(draft.content) + BESIDE_BYTES) * len(draft.recipients)
        if self._under_way_bytes and self._under_way_bytes + size_bytes > MOST_BYTES:
            LOST.inc(len(draft.recipients))
            return
        self._under_way_bytes += size_bytes
        self._watch(asyncio.get_running_loop().create_task(self._store(self._queue, draft, refusal, size_bytes)))

    def keep_envelope(
        self, refusal: Refusal, facts: SessionFacts, sender: Address | None, path: Address | None
    ) -> None:
        """Store that an envelope was refused, at MAIL or, with *path*, at RCPT: there is no content."""
        if self._queue is None or refusal.reply.is_transient:
            return
        transaction = Transaction(reverse_path=sender, forward_paths=[path or Address("", "")])
        now = self._clock()
        self.keep(Draft.of(transaction, b"", facts, identity=self._identify(now), now=now), refusal)

    async def _store(self, queue: str, draft: Draft, refusal: Refusal, size_bytes: int) -> None:
        answer = refusal.reply
        properties = draft.properties | {
            "refused": {
                "code": answer.code,
                "status": answer.status or "",
                "reason": refusal.reason,
                "stage": refusal.stage,
            }
        }
        encoded = encode_inbox(properties, draft.recipients, draft.content)
        try:
            await publish_all(
                self._publisher,
                (Outgoing(queue, recipient.message_id, body) for recipient, body in encoded),
                count=len(draft.recipients),
                headers={},
                timeout_s=PUBLISH_TIMEOUT_S,
                max_bytes=self._max_bytes,
            )
        except BrokerError:
            LOST.inc(len(draft.recipients))
        else:
            KEPT.inc(len(draft.recipients))
        finally:
            self._under_way_bytes -= size_bytes
