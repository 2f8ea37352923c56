"""May a message with an ``idempotency-key`` go, or did another one with the same key go instead?

The first message that asks claims key and recipient, before anything of it is sent; another one that comes while the
claim lasts ends as ``process``/``invalid`` and names the first. Who is the same message: whoever has the same
``message-id``; without one, the same queue message, however often it is handed out again or parked. A message that
was attempted is not asked again, so its retries outlast its claim.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Awaitable, Callable

from mtaq.deliver.ending import Ending
from mtaq.deliver.intake import REDELIVERED_HEADER
from mtaq.deliver.ports import IdempotencyKeys
from mtaq.model.errors import BrokerUnavailable
from mtaq.model.message import OutboxMessage
from mtaq.model.parcel import Consumed

#: AMQP header of a parked message without ``message-id``: as whom it claimed its key.
OWNER_HEADER = "idempotency-owner"

_NAMED, _NAMELESS = "id:", "key:"


class Idempotency:
    """Asks for keys.

    Args:
        wait: Called while it is not known; raises what ends the waiting.
    """

    def __init__(self, keys: IdempotencyKeys, *, wait: Callable[[], Awaitable[None]]) -> None:
        self._keys = keys
        self._wait = wait

    async def objection(self, consumed: Consumed, key: bytes, message: OutboxMessage, *, ttl_s: int) -> Ending | None:
        """Return why *message*, known to journal and claims as *key*, is not sent; ``None`` when it is."""
        if message.idempotency_key is None or message.attempts:
            return None
        wished = _owner(consumed, key, message)
        while True:
            try:
                first = await self._keys.claim(_digest(message), wished, ttl_s=ttl_s)
                break
            except BrokerUnavailable:
                await self._wait()
        if first == wished or (_may_be_again(consumed) and _is_same_queue_message(first, wished)):
            return None
        return _repeated(first)


def owner_headers(consumed: Consumed, key: bytes, message: OutboxMessage) -> dict[str, str | int | bool]:
    """Return what *message* has to remember of its claim while it is parked."""
    if message.idempotency_key is None or message.attempts or message.message_id:
        return {}
    return {OWNER_HEADER: _owner(consumed, key, message)}


def _digest(message: OutboxMessage) -> bytes:
    recipient = message.recipient.rpartition("@")
    digest = hashlib.sha256(f"{recipient[0]}@{recipient[2].lower()}".encode("utf-8", "surrogatepass"))
    digest.update(b"\0")
    digest.update((message.idempotency_key or "").encode("utf-8", "surrogatepass"))
    return digest.digest()


def _owner(consumed: Consumed, key: bytes, message: OutboxMessage) -> str:
    if message.message_id:
        return f"{_NAMED}{message.message_id}"
    known = consumed.headers.get(OWNER_HEADER)
    if isinstance(known, str) and known.startswith(_NAMELESS):
        return known
    return f"{_NAMELESS}{key.hex()}:{uuid.uuid4().hex}"


def _may_be_again(consumed: Consumed) -> bool:
    """Was it handed out before, perhaps? Without an id of any kind, equal JSON that was not is another message."""
    return consumed.redelivered or bool(consumed.headers.get(REDELIVERED_HEADER))


def _is_same_queue_message(one: str, other: str) -> bool:
    return one.startswith(_NAMELESS) and one.rpartition(":")[0] == other.rpartition(":")[0]


def _repeated(first: str) -> Ending:
    name = f"message {first.removeprefix(_NAMED)}" if first.startswith(_NAMED) else "a message without message-id"
    return Ending(
        state="process",
        result="invalid",
        description=f"not sent: {name} came before it with the same idempotency-key and recipient",
        final=True,
        quiet=True,
    )
