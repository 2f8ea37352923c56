"""One message taken from a queue, as a consumer script sees it: a mapping of its JSON, with typed access beside it.

What becomes of it when the script fails is ``mtaq.client.queues``'s decision.
"""

from __future__ import annotations

import email
import email.policy
import uuid
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from email.message import EmailMessage
from types import TracebackType
from typing import Any, Self

from mtaq.model.codec import content_of, content_property
from mtaq.model.parcel import Consumed

#: Headers of our own on a copy that goes back to its queue after a failure.
TRIES_HEADER = "tries"  #: how many times its consumer has failed
ORIGIN_HEADER = "origin"  #: AMQP message_id of the first copy
REDELIVERED_HEADER = "redelivered"  #: an earlier copy may have been acted on

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:mtaq:republished")

#: Told of the exception that ended a message's block; returns whether that settles the matter.
Failed = Callable[["Message", Exception], Awaitable[bool]]


class Message(MutableMapping[str, Any]):
    """A message that was handed out: a mapping of its JSON properties, to be read and changed at will.

    ``async with message:`` acks it when the block ends; when the block raises, the message is tried again, and after
    the last try it goes to the dead queue (``Queues.consume``). ``ack`` and ``requeue`` are for other patterns; only
    the first settlement counts.
    """

    def __init__(self, consumed: Consumed, properties: dict[str, Any], failed: Failed) -> None:
        self.consumed = consumed
        self._properties = properties
        self._failed = failed
        self._settled = False
        self._published = 0

    def __getitem__(self, name: str) -> Any:
        return self._properties[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self._properties[name] = value

    def __delitem__(self, name: str) -> None:
        del self._properties[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._properties)

    def __len__(self) -> int:
        return len(self._properties)

    def __repr__(self) -> str:
        return f"<Message {self.get('message-id', '')} for {self.recipient} from queue {self.queue}>"

    @property
    def envelope(self) -> str:
        """The reverse-path; empty for the null one."""
        return str(self.get("envelope") or "")

    @property
    def recipient(self) -> str:
        """The forward-path."""
        return str(self.get("recipient") or "")

    @property
    def content(self) -> bytes:
        """Header section and body, byte for byte; assigning puts other content into the JSON.

        Raises:
            BadMessage: It carries none, or none that can be read.
        """
        return content_of(self._properties)

    @content.setter
    def content(self, content: bytes) -> None:
        for name in ("mime", "mime-base64", "key"):
            self._properties.pop(name, None)
        name, value = content_property(content)
        self._properties[name] = value
        if "size" in self._properties:
            self._properties["size"] = len(content)

    def email(self) -> EmailMessage:
        """Return the content, parsed. To send it changed: ``message.content = parsed.as_bytes()``.

        Raises:
            BadMessage: As for ``content``.
        """
        return email.message_from_bytes(self.content, policy=email.policy.SMTP)

    @property
    def queue(self) -> str:
        """The queue it came from."""
        return self.consumed.queue

    @property
    def redelivered(self) -> bool:
        """It, or an earlier copy, was handed out before: somebody may have acted on it already."""
        headers = self.consumed.headers
        return self.consumed.redelivered or headers.get(REDELIVERED_HEADER) is True or self.tries > 0

    @property
    def tries(self) -> int:
        """How many times a consumer has failed on it."""
        tries = self.consumed.headers.get(TRIES_HEADER, 0)
        return tries if isinstance(tries, int) else 0

    @property
    def origin(self) -> str:
        """AMQP message_id of its first copy; empty if its publisher gave none."""
        return str(self.consumed.headers.get(ORIGIN_HEADER) or self.consumed.message_id)

    def ack(self) -> None:
        """Be done with it: the queue forgets it."""
        if not self._settled:
            self._settled = True
            self.consumed.ack()

    def requeue(self) -> None:
        """Give it back to its queue, to be handed out again soon, redelivered."""
        if not self._settled:
            self._settled = True
            self.consumed.requeue()

    def next_message_id(self, queue: str) -> str | None:
        """Return the AMQP message_id of the next publish that is made of this message.

        It follows from origin, queue and place, so a script that died after the publish and before the ack, and runs
        again, gives its second copy the same one. ``None``: a fresh one.
        """
        self._published += 1
        return self.derived_id(queue, str(self._published))

    def derived_id(self, queue: str, purpose: str) -> str | None:
        """Return an AMQP message_id that follows from this message's origin; ``None`` if that is not known."""
        return str(uuid.uuid5(_NAMESPACE, f"{self.origin}\n{queue}\n{purpose}")) if self.origin else None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if error is None:
            self.ack()
        elif not isinstance(error, Exception):  # cancelled, interrupted: not the message's fault
            self.requeue()
        elif not self._settled:
            return await self._failed(self, error)
        return False
