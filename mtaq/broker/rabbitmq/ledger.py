"""Which deliveries of one channel are settled, and how few frames tell the broker so?

Acks that follow each other without a gap go out as one (``multiple``, AMQP 0-9-1 §1.8.3.13). No I/O. The order of
what ``take`` returns matters: an ack for many would settle a message that is about to be given back.
"""

from __future__ import annotations

from typing import NamedTuple


class Settlement(NamedTuple):
    """One frame to send.

    Attributes:
        delivery_tag: Which delivery.
        requeue: Give it back instead of acknowledging it.
        multiple: Acknowledge everything up to it as well.
    """

    delivery_tag: int
    requeue: bool = False
    multiple: bool = False


class Ledger:
    """The deliveries of one channel. Their tags count up from 1 without a gap."""

    def __init__(self) -> None:
        self._settled_up_to = 0
        self._settled_above: set[int] = set()
        self._to_ack: set[int] = set()
        self._to_requeue: list[int] = []

    def settle(self, delivery_tag: int, *, requeue: bool) -> bool:
        """Note how a delivery ended; ``False`` when that was known already, which changes nothing."""
        if delivery_tag <= self._settled_up_to or delivery_tag in self._settled_above:
            return False
        self._settled_above.add(delivery_tag)
        if requeue:
            self._to_requeue.append(delivery_tag)
        else:
            self._to_ack.add(delivery_tag)
        return True

    def take(self) -> list[Settlement]:
        """Return the frames that tell the broker what was settled since the last call."""
        while self._settled_up_to + 1 in self._settled_above:
            self._settled_up_to += 1
            self._settled_above.remove(self._settled_up_to)
        together = [tag for tag in self._to_ack if tag <= self._settled_up_to]
        alone = sorted(tag for tag in self._to_ack if tag > self._settled_up_to)
        frames = [Settlement(tag, requeue=True) for tag in self._to_requeue]
        if together:
            frames.append(Settlement(max(together), multiple=len(together) > 1))
        frames += [Settlement(tag) for tag in alone]
        self._to_ack.clear()
        self._to_requeue.clear()
        return frames
